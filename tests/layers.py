"""The benchmark's layers (torch_dwconv/bench/layers.csv), and what tests make of them."""

from torch_dwconv.bench.layers import Layer, distinct, read_layers

LAYERS = read_layers()


def distinct_geometries(layers: tuple[Layer, ...] = LAYERS) -> tuple[Layer, ...]:
    """The layers without those that differ from an earlier one by model and count only."""
    return distinct(layers)


def cropped(layer: Layer, max_work: int) -> Layer:
    """The layer made smaller until ``work`` is at most ``max_work``, or until it would lose what makes it hard.

    Height and width go down in steps of 28 and stay at least 28: that keeps them modulo the usual strides and row
    tiles (2, 4, 7, 14) and leaves several tiles. Channels go down in steps of 32 and stay at least 32: that keeps
    vector tails. Height is cut before width and width before channels, since rows are the most alike.
    """
    for field, step in (("height", 28), ("width", 28), ("channels", 32)):
        while layer.work > max_work and getattr(layer, field) >= 2 * step:
            layer = layer._replace(**{field: getattr(layer, field) - step})
    return layer

"""Real depthwise layers (``layers.csv``) as plain facts, for tests and benchmarks.

One row is one distinct layer of a model; ``count`` says how often the model has it. The rows ``odd`` are made up: sizes
that no vector width divides.
"""

import csv
from pathlib import Path
from typing import NamedTuple


class Layer(NamedTuple):
    """A depthwise convolution as a model has it. Input (N, channels, height, width), no bias."""

    model: str
    channels: int
    multiplier: int
    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    count: int

    @property
    def name(self) -> str:
        """Readable and unique among the distinct geometries, for test ids: ``mobilenet_v2-c96-112x112-k3x3-s2x2``."""
        name = (
            f"{self.model}-c{self.channels}-{self.height}x{self.width}-k{self.kernel_h}x{self.kernel_w}"
            f"-s{self.stride_h}x{self.stride_w}"
        )
        name += f"-d{self.dilation_h}x{self.dilation_w}" if (self.dilation_h, self.dilation_w) != (1, 1) else ""
        return name + (f"-m{self.multiplier}" if self.multiplier > 1 else "")

    @property
    def padding(self) -> tuple[int, int]:
        """(top and bottom, left and right), as the models have it: the input's size is kept at stride 1."""
        return (self.kernel_h - 1) * self.dilation_h // 2, (self.kernel_w - 1) * self.dilation_w // 2

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the output."""
        (pad_h, pad_w), reach_h, reach_w = self.padding, *self.reach
        return (
            (self.height + 2 * pad_h - reach_h) // self.stride_h + 1,
            (self.width + 2 * pad_w - reach_w) // self.stride_w + 1,
        )

    @property
    def reach(self) -> tuple[int, int]:
        """(rows, columns) of input that one output sees."""
        return (self.kernel_h - 1) * self.dilation_h + 1, (self.kernel_w - 1) * self.dilation_w + 1

    @property
    def work(self) -> int:
        """Multiply-adds per image, taps in the padding included."""
        out_h, out_w = self.output_size
        return self.channels * self.multiplier * out_h * out_w * self.kernel_h * self.kernel_w

    def cropped(self, max_work: int) -> "Layer":
        """The layer made smaller until ``work`` is at most ``max_work``, or until it would lose what makes it hard.

        Height and width go down in steps of 28 and stay at least 28: that keeps them modulo the usual strides and row
        tiles (2, 4, 7, 14) and leaves several tiles. Channels go down in steps of 32 and stay at least 32: that keeps
        vector tails. Height is cut before width and width before channels, since rows are the most alike.
        """
        layer = self
        for field, step in (("height", 28), ("width", 28), ("channels", 32)):
            while layer.work > max_work and getattr(layer, field) >= 2 * step:
                layer = layer._replace(**{field: getattr(layer, field) - step})
        return layer


def read_layers() -> tuple[Layer, ...]:
    """All rows of layers.csv, in its order."""
    with Path(__file__).with_name("layers.csv").open(newline="") as file:
        return tuple(
            Layer(model=row.pop("model"), **{field: int(value) for field, value in row.items()})
            for row in csv.DictReader(file)
        )


LAYERS = read_layers()


def distinct_geometries(layers: tuple[Layer, ...] = LAYERS) -> tuple[Layer, ...]:
    """The layers without those that differ from an earlier one by model and count only."""
    first = {}
    for layer in layers:
        first.setdefault(layer[1:-1], layer)
    return tuple(first.values())

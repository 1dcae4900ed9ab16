"""What is timed: every cell, in an order of which any beginning is a fair choice."""

from collections.abc import Sequence

from torch_dwconv.bench.layers import Layer, distinct, read_layers
from torch_dwconv.bench.problem import LAYOUTS, Cell
from torch_dwconv.bench.problem import OPERATIONS as SINGLE

OPERATIONS = (*SINGLE, "backward")  # both gradients
DTYPES = ("f32", "f16", "bf16")


def square(channels: int, side: int, kernel: int, stride: int) -> Layer:
    return Layer("made_up", channels, 1, side, side, kernel, kernel, stride, stride, 1, 1, 1)


# Layers of no model of layers.csv, for the kernels that none of those reaches: planes of odd sizes, 7x7 at stride 2.
MADE_UP = (
    *(square(256, 9, kernel, 1) for kernel in (3, 5, 7)),
    *(square(256, 13, kernel, 2) for kernel in (5, 7)),
    square(256, 14, 7, 2),
    *(square(96, 64, kernel, 2) for kernel in (5, 7)),
)
IN_FLOAT64 = (square(96, 28, 3, 1),)


def plan(
    layers: Sequence[Layer], batch: int, operations=OPERATIONS, dtypes=DTYPES, layouts=tuple(LAYOUTS)
) -> list[Cell]:
    """A cell for each layer, operation, dtype and layout."""
    spread = [layer for start in range(4) for layer in distinct(layers)[start::4]]
    return [
        Cell(layer, batch, operation, dtype, layout, 1)
        for layer in spread
        for dtype in dtypes
        for layout in layouts
        for operation in operations
    ]


def all_cells(batch: int) -> list[Cell]:
    """Of the real layers, of MADE_UP, and of IN_FLOAT64."""
    return plan((*read_layers(), *MADE_UP), batch) + plan(IN_FLOAT64, batch, dtypes=("f64",))


def groups(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """By the process that times them: those of a dtype and a layout, under a name like "f32-nchw"."""
    grouped: dict[str, list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(f"{cell.dtype}-{cell.layout}", []).append(cell)
    return grouped

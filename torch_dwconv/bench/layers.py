"""Real depthwise layers (``layers.csv``) as plain facts, and layers that a user names, lists or writes out.

One row is one distinct layer of a model; ``count`` says how often the model has it. The rows ``odd`` are made up: sizes
that no vector width divides.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LAYERS_CSV = Path(__file__).with_name("layers.csv")


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
    count: int  # type: ignore[assignment]  # a column of the table, which hides tuple.count

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


def read_layers(path: Path | str = LAYERS_CSV) -> tuple[Layer, ...]:
    """All rows of a CSV file whose columns are the fields of Layer, in its order.

    Raises:
        ValueError: a column is missing or unknown, or a value is not a positive whole number.
    """
    with Path(path).open(newline="") as file:
        rows = csv.DictReader(file)
        if set(rows.fieldnames or ()) != set(Layer._fields):
            raise ValueError(f"{path} must have the columns {','.join(Layer._fields)}, got {rows.fieldnames}")
        return tuple(_checked(Layer(row.pop("model"), **{key: _number(row[key]) for key in row})) for row in rows)


def select_layers(name: str) -> tuple[Layer, ...]:
    """The rows of a model in ``layers.csv``, all of them for "all", or the rows of another CSV file.

    Raises:
        ValueError: there is neither such a model nor such a file.
    """
    layers = read_layers()
    chosen = layers if name == "all" else tuple(layer for layer in layers if layer.model == name)
    if not chosen and Path(name).is_file():
        chosen = read_layers(name)
    if not chosen:
        models = ", ".join(dict.fromkeys(layer.model for layer in layers))
        raise ValueError(f"--layers must be a CSV file, all, or one of {models}; got {name!r}")
    return chosen


def distinct(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers without those that differ from an earlier one by model and count only."""
    first: dict[tuple, Layer] = {}
    for layer in layers:
        first.setdefault(layer[1:-1], layer)
    return tuple(first.values())


def parse_layer(text: str) -> tuple[int, Layer]:
    """``N,C,H,W,k,s`` and, if wanted, ``,d`` and ``,m`` (dilation, multiplier) as (batch, layer).

    k, s and d are a number or HxW, as in ``1,24,56,56,1x11,1``.

    >>> parse_layer("1,144,56,56,3,1")[1].name
    'cli-c144-56x56-k3x3-s1x1'
    """
    parts = text.split(",")
    if not 6 <= len(parts) <= 8:
        raise ValueError(f"--layer must be N,C,H,W,k,s[,d[,m]], got {text!r}")
    batch, channels, height, width = (_number(part) for part in parts[:4])
    kernel, stride, dilation = (_pair(part) for part in [*parts[4:7], "1"][:3])
    multiplier = _number(parts[7]) if len(parts) == 8 else 1
    return batch, _checked(Layer("cli", channels, multiplier, height, width, *kernel, *stride, *dilation, count=1))


def _number(text: str | None) -> int:
    if text is None or not re.fullmatch(r"\s*[1-9][0-9]*\s*", text):
        raise ValueError(f"sizes must be positive whole numbers, got {text!r}")
    return int(text)


def _pair(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _number(height), _number(width or height)


def _checked(layer: Layer) -> Layer:
    if min(layer.output_size) < 1:
        raise ValueError(f"{layer.name} has an empty output: its kernel is larger than its padded input")
    return layer

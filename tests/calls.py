"""Calls of depthwise_conv2d, drawn at random or made from a layer, and the right answer from F.conv2d."""

import random
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.layers import Layer

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FORMATS = (torch.contiguous_format, torch.channels_last)

# Relative norm of the error that a result may have: of accumulation in float32 and float64, of the one rounding to a
# 16-bit dtype (half a unit in the last place, and a little for the accumulation before it).
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}
TOLERANCE |= {dtype: 1.01 * torch.finfo(dtype).eps / 2 for dtype in (torch.bfloat16, torch.float16)}


class Call(NamedTuple):
    """The sizes and options of one call; pairs are (h, w), padding is ((top, bottom), (left, right))."""

    batch: int
    channels: int
    multiplier: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    @property
    def options(self) -> dict:
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}

    def tensors(self, dtype: torch.dtype, integers: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Random input, weight and bias: normal, or integers that are small enough for exact sums in any dtype."""

        def draw(*size):
            return torch.randint(-2, 3, size).to(dtype) if integers else torch.randn(size, dtype=dtype)

        out_channels = self.channels * self.multiplier
        return draw(self.batch, self.channels, *self.size), draw(out_channels, 1, *self.kernel), draw(out_channels)

    @classmethod
    def draw(cls, rng: random.Random) -> "Call":
        """Any options; the sizes are small, and half of the inputs are no larger than the kernel needs."""
        kernel, dilation, stride = ((rng.randint(1, top), rng.randint(1, top)) for top in (6, 3, 3))
        padding = tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(2))
        size = tuple(
            max(1, d * (k - 1) + 1 - sum(sides)) + rng.choice((0, rng.randint(1, 20)))
            for d, k, sides in zip(dilation, kernel, padding, strict=True)
        )
        channels = rng.choice((1, 2, 5, 16, 19))
        return cls(rng.randint(1, 3), channels, rng.randint(1, 3), size, kernel, stride, padding, dilation)

    @classmethod
    def from_layer(cls, layer: Layer, batch: int = 1) -> "Call":
        padding = tuple((side, side) for side in layer.padding)
        return cls(
            batch,
            layer.channels,
            layer.multiplier,
            (layer.height, layer.width),
            (layer.kernel_h, layer.kernel_w),
            (layer.stride_h, layer.stride_w),
            padding,
            (layer.dilation_h, layer.dilation_w),
        )


def reference(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=((0, 0), (0, 0)), dilation=1
) -> Tensor:
    """F.conv2d of the padded input; `padding` is ((top, bottom), (left, right))."""
    (top, bottom), (left, right) = padding
    padded = F.pad(input, (left, right, top, bottom))
    return F.conv2d(padded, weight, bias, stride, 0, dilation, groups=input.shape[-3])


def assert_close(actual: Tensor, exact: Tensor, what: str = "result") -> None:
    """The relative norm of the error, against float64, is what the dtype of `actual` allows."""
    assert actual.shape == exact.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(exact.shape)}"
    error = (actual.double() - exact).norm() / exact.norm().clamp_min(1e-300)
    assert error <= TOLERANCE[actual.dtype], f"{what}: relative error {error:.2e} in {actual.dtype}"

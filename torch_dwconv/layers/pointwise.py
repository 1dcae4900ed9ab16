"""PointwiseConv2d: an nn.Conv2d with a 1x1 kernel."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.common_types import _size_2_t

from ..functional.pointwise import is_ours
from ..operators.pointwise import pointwise
from .tracing import leaf


class PointwiseConv2d(nn.Conv2d):
    """An nn.Conv2d with ``kernel_size=1`` and ``groups=1``, which mixes channels, on kernels made for training.

    Arguments, attributes, initialisation and state_dict are nn.Conv2d's. The kernels compute the output and both
    gradients of plain float32 tensors on a CPU, contiguous or channels_last, at stride 1 without padding, where a call
    is large enough to gain from it. F.conv2d computes everything else: other dtypes, devices, strides and padding,
    autocast, torch.compile, torch.export, torch.func, second derivatives.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype: as
            in nn.Conv2d; a kernel size other than 1 and groups other than 1 are refused.

    Shape:
        input (N, C, H, W) or (C, H, W); output (N, out_channels, OH, OW) or (out_channels, OH, OW), as nn.Conv2d's.
        weight (out_channels, C, 1, 1), bias (out_channels,).

    Raises:
        ValueError: `kernel_size` is not 1, `groups` is not 1, and what nn.Conv2d refuses.
        RuntimeError: of a call with an input that does not fit the layer, as nn.Conv2d's.

    >>> layer = PointwiseConv2d(32, 64)
    >>> layer(torch.randn(8, 32, 14, 14)).shape
    torch.Size([8, 64, 14, 14])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t = 1,
        stride: _size_2_t = 1,
        padding: str | _size_2_t = 0,
        dilation: _size_2_t = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        if self.kernel_size != (1, 1):
            raise ValueError(f"kernel_size must be 1, got {kernel_size}")
        if groups != 1:
            raise ValueError(f"groups must be 1, got {groups}")

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  (a condition of its own, below which nothing is scripted)
            if isinstance(input, torch.fx.Proxy):
                return leaf(self, super().forward, input)
        weight, bias = self.weight, self.bias  # once: a parametrisation computes at each look
        if not torch.jit.is_scripting():  # noqa: SIM102
            if self.stride == (1, 1) and self.padding in _NONE and self.groups == 1 and is_ours(input, weight, bias):
                return pointwise(input, weight, bias)
        return self._conv_forward(input, weight, bias)


_NONE = ((0, 0), "valid", "same")  # of padding, with a 1x1 kernel and a stride of 1

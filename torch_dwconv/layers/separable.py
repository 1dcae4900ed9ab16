"""SeparableConv2d and SeparableConv1d: a depthwise convolution and the 1x1 convolution that mixes its channels."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..functional import scripted
from ..functional.convolution import convolve
from ..functional.rules import IntPair, Padding
from ..functional.separable import separate
from .convolution import DepthwiseConv1d, DepthwiseConv2d
from .options import check_row, with_height
from .tracing import leaf


class _SeparableConv(nn.Module):
    """What the 1-D and the 2-D layer share. A `_depthwise` layer checks the options and gives the attributes."""

    _depthwise: type[Any]  # DepthwiseConv1d or DepthwiseConv2d
    bias: Tensor | None

    if TYPE_CHECKING:

        def _compute(self, input: Tensor) -> Tensor: ...

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size,
        stride: IntPair = 1,
        padding: Padding = 0,
        dilation: IntPair = 1,
        bias: bool = True,
        channel_multiplier: int = 1,
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        if out_channels <= 0:
            raise ValueError(f"out_channels must be positive, got {out_channels}")
        if channel_multiplier <= 0:
            raise ValueError(f"channel_multiplier must be positive, got {channel_multiplier}")
        middle = in_channels * channel_multiplier
        layer: nn.Conv1d | nn.Conv2d = self._depthwise(
            in_channels, middle, kernel_size, stride, padding, dilation, bias=False, device=device, dtype=dtype
        )
        self.in_channels, self.out_channels, self.channel_multiplier = in_channels, out_channels, channel_multiplier
        self.kernel_size, self.stride = layer.kernel_size, layer.stride
        self.padding, self.dilation = layer.padding, layer.dilation
        self.depthwise_weight = layer.weight
        shape = (out_channels, middle, *(1 for _ in layer.kernel_size))
        self.pointwise_weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises each of the two convolutions as nn.Conv2d does."""
        for weight in (self.depthwise_weight, self.pointwise_weight):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.pointwise_weight.shape[1])
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return scripted.separable(
                input,
                self.depthwise_weight,
                self.pointwise_weight,
                self.bias,
                self.stride,
                self.padding,
                self.dilation,
                self.in_channels,
            )
        else:
            return leaf(self, self._compute, input) if isinstance(input, torch.fx.Proxy) else self._compute(input)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, default in (("padding", 0), ("dilation", 1)):
            value = getattr(self, name)
            text += "" if value == (default,) * len(value) else f", {name}={value}"
        text += "" if self.bias is not None else ", bias=False"
        return text + ("" if self.channel_multiplier == 1 else f", channel_multiplier={self.channel_multiplier}")


class SeparableConv2d(_SeparableConv):
    """Depthwise separable 2-D convolution: every input channel filtered by itself, then a 1x1 convolution.

    Keras' SeparableConv2D, on (N, C, H, W). `torch_dwconv.weights.from_keras` makes a state_dict of its weights.

    Args:
        in_channels (int): channels of the input, C.
        out_channels (int): channels of the output, O.
        kernel_size, stride, padding, dilation: of the depthwise convolution, as in `DepthwiseConv2d`.
        bias (bool): adds a learnable bias of shape (O,) to the output, default True.
        channel_multiplier (int): filters for every input channel, M, default 1.
        device, dtype: of the parameters.

    Shape:
        input (N, C, H, W) or (C, H, W); output (N, O, OH, OW) or (O, OH, OW), OH and OW as in `DepthwiseConv2d`.
        depthwise_weight (C*M, 1, kernel_h, kernel_w), pointwise_weight (O, C*M, 1, 1), bias (O,).

    Raises:
        ValueError: a number of channels that is not positive, or a `padding` that `DepthwiseConv2d` refuses.

    >>> layer = SeparableConv2d(32, 64, 3, stride=2, padding=1)
    >>> layer(torch.randn(8, 32, 56, 56)).shape
    torch.Size([8, 64, 28, 28])
    """

    _depthwise = DepthwiseConv2d

    @torch.jit.unused
    def _compute(self, input: Tensor) -> Tensor:
        return separate(
            input,
            self.depthwise_weight,
            self.pointwise_weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.in_channels,
        )


class SeparableConv1d(_SeparableConv):
    """Depthwise separable 1-D convolution, Keras' SeparableConv1D on (N, C, L): `SeparableConv2d` of height 1.

    Args, raises: as `SeparableConv2d`, with sizes of one number and `padding` as in `DepthwiseConv1d`.

    Shape:
        input (N, C, L) or (C, L); output (N, O, OL) or (O, OL), OL as in `DepthwiseConv1d`.
        depthwise_weight (C*M, 1, kernel_size), pointwise_weight (O, C*M, 1), bias (O,).

    >>> SeparableConv1d(16, 24, 5, padding="same")(torch.randn(2, 16, 100)).shape
    torch.Size([2, 24, 100])
    """

    _depthwise = DepthwiseConv1d

    @torch.jit.unused
    def _compute(self, input: Tensor) -> Tensor:
        check_row(input)
        depthwise = convolve(
            input.contiguous().unsqueeze(-2),  # as DepthwiseConv1d
            self.depthwise_weight.unsqueeze(-2),
            None,
            with_height(self.stride, 1),
            with_height(self.padding, 0),
            with_height(self.dilation, 1),
            None,
            self.in_channels,
            row=True,
        )
        return F.conv1d(depthwise, self.pointwise_weight, self.bias)

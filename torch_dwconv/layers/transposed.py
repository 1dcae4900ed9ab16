"""DepthwiseConvTranspose2d and DepthwiseConvTranspose1d: drop-ins for nn.ConvTranspose2d and nn.ConvTranspose1d."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.common_types import _size_any_t
from torch.nn.modules.utils import _single

from ..functional.dispatch import native_reason
from ..functional.tracing import is_symbolic
from ..functional.transposed import depthwise_conv_transpose2d, transpose_plain
from ..operators.plain import is_plain
from ..operators.symbolic import require
from .options import check_channels
from .tracing import leaf

_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]  # nn.ConvTranspose2d's annotation; it takes zeros


def _is_depthwise(layer: nn.ConvTranspose1d | nn.ConvTranspose2d, weight: Tensor, dim: int) -> bool:
    """Whether the layer, which may have been edited, still is what its class says; if not, PyTorch's class computes.

    PyTorch's class is also what torch.jit.trace and torch.onnx.export record.
    """
    if (
        torch.jit.is_tracing()
        or torch.onnx.is_in_onnx_export()
        or layer.padding_mode != "zeros"
        or not isinstance(layer.padding, tuple)
    ):
        return False
    if is_symbolic(weight):  # torch.fx.symbolic_trace hands out a proxy; the parameter has the size
        parameter = layer._parameters.get("weight")
        if parameter is None:
            return layer.groups == layer.in_channels
        weight = parameter
    return weight.dim() == dim and weight.shape[0] == layer.groups


@torch.fx.wrap  # an `output_size` is compared with the input's size, which a traced input does not have yet
def _traced_output_padding(input, output_size, output_padding, *options):
    layer = SimpleNamespace(output_padding=output_padding)  # what holds where `output_size` turns out to be None
    return nn.ConvTranspose2d._output_padding(layer, input, output_size, *options)  # type: ignore[arg-type]


def _output_padding(layer: nn.ConvTranspose1d | nn.ConvTranspose2d, input: Tensor, output_size, dim: int):
    """The layer's attribute, or what gives an output of `output_size`."""
    options = layer.stride, layer.padding, layer.kernel_size, dim, layer.dilation
    if is_symbolic(input) and output_size is not None:
        return _traced_output_padding(input, output_size, layer.output_padding, *options)
    return layer._output_padding(input, output_size, *options)  # type: ignore[arg-type]


def _leaf(layer, input: torch.fx.Proxy, output_size):
    """tracing.leaf, called with the arguments that the layer was: tools that read nodes count them."""
    if output_size is None:
        return leaf(layer, lambda input: layer._compute(input, None), input)
    return leaf(layer, layer._compute, input, output_size)


class _DepthwiseConvTranspose(nn.Module):
    """The constructor of both layers."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_any_t,
        stride: _size_any_t = 1,
        padding: _size_any_t = 0,
        output_padding: _size_any_t = 0,
        groups: int | None = None,
        bias: bool = True,
        dilation: _size_any_t = 1,
        padding_mode: _PaddingMode = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        check_channels(in_channels, out_channels, groups)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            output_padding,
            in_channels,
            bias,
            dilation,
            padding_mode,
            device=device,
            dtype=dtype,
        )


class DepthwiseConvTranspose2d(_DepthwiseConvTranspose, nn.ConvTranspose2d):
    """Depthwise transposed 2-D convolution: every input channel has `channel_multiplier` filters of its own.

    An ``nn.ConvTranspose2d`` with ``groups=in_channels``: the same arguments in the same order, the same attributes,
    initialisation and state_dict, so the weights of either load into the other. Output channel ``c * M + m`` is filter
    ``m`` of input channel ``c``, where ``M = out_channels / in_channels``.

    Args:
        in_channels (int): channels of the input, C.
        out_channels (int): channels of the output, a multiple of C.
        kernel_size (int or (int, int)): height and width of the filters.
        stride (int or (int, int)): distance of neighbouring inputs in the output, default 1.
        padding (int or (int, int)): rows and columns that are cut off at either side of the output, default 0.
        output_padding (int or (int, int)): rows and columns added at the bottom and right, less than stride or
            dilation, default 0.
        groups (int, optional): None or `in_channels`, which mean the same.
        bias (bool): adds a learnable bias of shape (out_channels,), default True.
        dilation (int or (int, int)): distance between the taps of a filter, default 1.
        padding_mode (str): 'zeros', the only one.
        device, dtype: of the parameters.

    Shape:
        input (N, C, H, W) or (C, H, W); output (N, out_channels, OH, OW) or (out_channels, OH, OW), in channels_last
        memory format when the input or the weight is, where ``OH = (H - 1) * stride_h - 2 * padding_h +
        dilation_h * (kernel_h - 1) + output_padding_h + 1`` and OW likewise. ``layer(input, output_size)`` finds the
        output padding for an output of (OH, OW).
        weight (C, M, kernel_h, kernel_w), bias (out_channels,).

    Raises:
        ValueError: of the constructor, if `groups` is neither None nor `in_channels`, `out_channels` is not a positive
            multiple of `in_channels`, or `padding_mode` is another one; of a call, for an `output_size` that no output
            padding gives.
        RuntimeError: of a call, for an input that does not have C channels, or of another dtype than the weight.

    >>> layer = DepthwiseConvTranspose2d(32, 32, 4, stride=2, padding=1)
    >>> layer(torch.randn(8, 32, 14, 14)).shape
    torch.Size([8, 32, 28, 28])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        stride, padding, dilation = self.stride, self.padding, self.dilation
        if torch.jit.is_scripting():  # TorchScript knows PyTorch's operators only
            extra = self._output_padding(input, output_size, stride, padding, self.kernel_size, 2, dilation)  # type: ignore[arg-type]
            return F.conv_transpose2d(input, self.weight, self.bias, stride, padding, extra, self.groups, dilation)  # type: ignore[arg-type]
        elif isinstance(input, torch.fx.Proxy):
            return _leaf(self, input, output_size)
        else:
            return self._compute(input, output_size)

    @torch.jit.unused
    def _compute(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        weight = self.weight
        if not _is_depthwise(self, weight, 4):
            return super().forward(input, output_size)
        extra = _output_padding(self, input, output_size, 2)
        return depthwise_conv_transpose2d(input, weight, self.bias, self.stride, self.padding, extra, self.dilation)


class DepthwiseConvTranspose1d(_DepthwiseConvTranspose, nn.ConvTranspose1d):
    """Depthwise transposed 1-D convolution: an ``nn.ConvTranspose1d`` with ``groups=in_channels``.

    Arguments, attributes, initialisation and state_dict are nn.ConvTranspose1d's. It is computed as a 2-D layer of
    height 1.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, output_padding, bias, dilation, padding_mode, device,
            dtype: as in nn.ConvTranspose1d; `out_channels` is a multiple of `in_channels`.
        groups (int, optional): None or `in_channels`, which mean the same.

    Shape:
        input (N, C, L) or (C, L); output (N, out_channels, OL) or (out_channels, OL), contiguous, with
        ``OL = (L - 1) * stride - 2 * padding + dilation * (kernel_size - 1) + output_padding + 1``.
        weight (C, M, kernel_size), bias (out_channels,).

    Raises:
        ValueError, RuntimeError: as `DepthwiseConvTranspose2d`.

    >>> layer = DepthwiseConvTranspose1d(16, 16, 4, stride=2, padding=1)
    >>> layer(torch.randn(2, 16, 50)).shape
    torch.Size([2, 16, 100])
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        stride, padding, dilation = self.stride, self.padding, self.dilation
        if torch.jit.is_scripting():
            extra = self._output_padding(input, output_size, stride, padding, self.kernel_size, 1, dilation)  # type: ignore[arg-type]
            return F.conv_transpose1d(input, self.weight, self.bias, stride, padding, extra, self.groups, dilation)  # type: ignore[arg-type]
        elif isinstance(input, torch.fx.Proxy):
            return _leaf(self, input, output_size)
        else:
            return self._compute(input, output_size)

    @torch.jit.unused
    def _compute(self, input: Tensor, output_size: list[int] | None) -> Tensor:
        weight, bias = self.weight, self.bias
        if not _is_depthwise(self, weight, 3):
            return super().forward(input, output_size)
        transpose: Callable[..., Tensor] = depthwise_conv_transpose2d
        if not is_symbolic(input):
            _check_sequence(input, weight)
            if is_plain(input, weight, bias):
                transpose = transpose_plain
            elif native_reason(input, weight, bias):
                return super().forward(input, output_size)
        extra = _output_padding(self, input, output_size, 1)
        added = (0, extra[0]) if is_symbolic(extra) else (0, *extra)
        # A transposed view is copied, as by nn.ConvTranspose1d: its row would be taken for channels_last.
        input, weight = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
        step, cut, spread = (1, *_single(self.stride)), (0, *_single(self.padding)), (1, *_single(self.dilation))
        output = transpose(input, weight, bias, step, cut, added, spread)
        return _without_height(output)


_unsafe_view = torch.ops.aten._unsafe_view.default._op


def _without_height(output: Tensor) -> Tensor:
    """(..., C, 1, L) as (..., C, L), which is no view, as nn.ConvTranspose1d's output is none: it may be written to."""
    if type(output) is not Tensor or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return output.squeeze(-2)
    *outer, _, length = output.shape
    return _unsafe_view(output, (*outer, length))


def _check_sequence(input: Tensor, weight: Tensor) -> None:
    if input.dim() not in (2, 3):
        raise RuntimeError(f"input must be (N, C, L) or (C, L), got {tuple(input.shape)}")
    require(
        input.shape[-2] == weight.shape[0],
        lambda: (
            f"input must have {weight.shape[0]} channels, those of weight {tuple(weight.shape)}, "
            f"got {tuple(input.shape)}"
        ),
    )

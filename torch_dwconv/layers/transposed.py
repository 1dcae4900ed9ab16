"""Transposed depthwise convolution, the gradient of a depthwise convolution's input: a function and two layers."""

from types import SimpleNamespace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.common_types import _size_1_t, _size_2_t
from torch.nn.modules.utils import _single
from torch.overrides import handle_torch_function

from ..functional import convolution as functional
from ..functional import rules, scripted
from ..functional.convolution import IntPair, Padding
from ..operators import autograd
from ..operators.schemas import GRAD_INPUT, suggests_channels_last
from .convolution import _check_channels, leaf

_PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]  # nn.ConvTranspose2d's annotation; it takes zeros


def depthwise_conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    output_padding: IntPair = 0,
    dilation: IntPair = 1,
) -> Tensor:
    """Depthwise transposed 2-D convolution, as ``F.conv_transpose2d(..., groups=C)`` computes it.

    With M = 1 it is the gradient of `depthwise_conv2d` with respect to its input, for a call with these options.

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (C, M, kernel_h, kernel_w), F.conv_transpose2d's. Output channel c*M + m is input channel c by filter m.
        bias: (C*M,), added to the output.
        stride: int or (h, w), the distance of neighbouring inputs in the output, at least 1.
        padding: rows and columns that are cut off round the output: int, (h, w) or ((top, bottom), (left, right)).
        output_padding: int or (h, w), rows and columns added at the bottom and right, less than stride or dilation.
        dilation: int or (h, w), distance between the taps of a filter, at least 1.

    Returns:
        (N, C*M, OH, OW), or (C*M, OH, OW) for a 3-D input, with
        ``OH = (H - 1) * stride_h - top - bottom + dilation_h * (kernel_h - 1) + output_padding_h + 1`` and OW likewise.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit together, or an option out of its range.
        TypeError: an argument of the wrong Python type.

    >>> input, weight = torch.randn(2, 8, 7, 7), torch.randn(8, 1, 4, 4)
    >>> depthwise_conv_transpose2d(input, weight, stride=2, padding=1).shape
    torch.Size([2, 8, 14, 14])
    """
    tensors = (input, weight, bias)
    if functional.is_symbolic(*tensors):
        return handle_torch_function(
            depthwise_conv_transpose2d, tensors, *tensors, stride, padding, output_padding, dilation
        )
    if input.dim() == 3:
        output = depthwise_conv_transpose2d(input.unsqueeze(0), weight, bias, stride, padding, output_padding, dilation)
        return output.squeeze(0)
    plain = autograd.is_plain(input, weight, bias)
    resolve = _remembered_geometry if plain else _geometry
    with functional.untraced():
        shapes = input.shape, weight.shape, None if bias is None else bias.shape
        steps, pads, extra, spread, size = resolve(*shapes, stride, padding, output_padding, dilation)
    channels, multiplier, *kernel_size = shapes[1]
    # ONNX's ConvTranspose has the channel multiplier and the bias inside, and a padding for opposite sides.
    onnx = torch.onnx.is_in_onnx_export() and all(before == after for before, after in pads)
    if onnx or (not plain and functional.native_reason(input, weight, bias)):
        return _fall_back(input, weight, bias, steps, pads, extra, channels, spread)
    if torch._C._is_any_autocast_enabled():
        input, weight, bias = functional.autocast(input), functional.autocast(weight), functional.autocast(bias)
    rules.check_match("weight", weight, input)
    if bias is not None:
        rules.check_match("bias", bias, input)
    if plain and functional.plain_reason(input):
        return _fall_back(input, weight, bias, steps, pads, extra, channels, spread)
    dtype, channels_last = input.dtype, suggests_channels_last(input) or suggests_channels_last(weight)
    if multiplier > 1:
        if suggests_channels_last(input):  # repeat_interleave's results, gradients too, are contiguous
            input = input.permute(0, 2, 3, 1).repeat_interleave(multiplier, 3).permute(0, 3, 1, 2)
        else:
            input = input.repeat_interleave(multiplier, 1)
        weight = weight.reshape(channels * multiplier, 1, *kernel_size)
    (top, _), (left, _) = pads
    sizes = (channels * multiplier, *size, *steps, top, left, *spread, channels_last)
    if bias is None:
        return autograd.call(GRAD_INPUT, input, weight, *sizes)
    if dtype in (torch.bfloat16, torch.float16):  # the operator has no bias, and a sum is rounded once
        output = autograd.call(GRAD_INPUT, input.float(), weight.float(), *sizes)
        return (output + bias.float()[:, None, None]).to(dtype)
    return autograd.call(GRAD_INPUT, input, weight, *sizes) + bias[:, None, None]


# What TorchScript compiles where a script calls it.
depthwise_conv_transpose2d.__prepare_scriptable__ = lambda: scripted.depthwise_conv_transpose2d  # type: ignore[attr-defined]


def _fall_back(input, weight, bias, stride, pads, output_padding, channels, dilation) -> Tensor:
    """F.conv_transpose2d. It has one padding for opposite sides; what one side has more is cut off, by constants."""
    padding = [min(sides) for sides in pads]
    output = F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, channels, dilation)
    for dim, (before, after), both in zip((2, 3), pads, padding, strict=True):
        if before != after:
            rows = slice(before - both, both - after or None)
            output = output[:, :, rows] if dim == 2 else output[:, :, :, rows]
    return output


def _geometry(input_shape, weight_shape, bias_shape, stride, padding, output_padding, dilation) -> tuple:
    """stride, ((top, bottom), (left, right)), output_padding, dilation and (OH, OW) of a 4-D call, all checked."""
    if len(input_shape) != 4:
        raise RuntimeError(f"input must be (N, C, H, W) or (C, H, W), got {tuple(input_shape)}")
    if len(weight_shape) != 4 or 0 in weight_shape:
        raise RuntimeError(f"weight must be (C, M, kernel_h, kernel_w), got {tuple(weight_shape)}")
    channels, multiplier, *kernel_size = weight_shape
    rules.require(
        input_shape[1] == channels,
        lambda: f"input must have {channels} channels, those of weight {tuple(weight_shape)}, got {tuple(input_shape)}",
    )
    for length in input_shape[2:]:
        rules.require(length >= 1, lambda: f"input must have at least one row and column, got {tuple(input_shape)}")
    out_channels = channels * multiplier
    if bias_shape is not None and tuple(bias_shape) != (out_channels,):
        raise RuntimeError(f"bias must be ({out_channels},), one value per output channel, got {tuple(bias_shape)}")
    stride = rules.positive_pair(stride, "stride")
    dilation = rules.positive_pair(dilation, "dilation")
    if padding == "same":
        raise RuntimeError("padding must be an int, (h, w), ((top, bottom), (left, right)) or 'valid', got 'same'")
    top, bottom, left, right = rules.resolve_padding(padding, input_shape[2:], kernel_size, stride, dilation)
    pads = (top, bottom), (left, right)
    output_padding = rules.pair(output_padding, "output_padding")
    for extra, step, spread in zip(output_padding, stride, dilation, strict=True):
        rules.require(
            (extra >= 0) & (extra < max(step, spread)),
            lambda: (
                f"output_padding must be at least 0 and less than stride={stride} or dilation={dilation}, "
                f"got {output_padding}"
            ),
        )
    axes = zip(input_shape[2:], stride, pads, dilation, kernel_size, output_padding, strict=True)
    size = tuple(
        (length - 1) * step - sum(sides) + spread * (taps - 1) + extra + 1
        for length, step, sides, spread, taps, extra in axes
    )
    for length in size:
        rules.require(
            length >= 1,
            lambda: f"the output must not be empty, got {size[0]} x {size[1]} for input {tuple(input_shape)}",
        )
    return stride, pads, output_padding, dilation, size


_remembered_geometry = functional._remembering(_geometry)  # for plain tensors only, whose sizes are numbers


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
    if functional.is_symbolic(weight):  # torch.fx.symbolic_trace hands out a proxy; the parameter has the size
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
    if functional.is_symbolic(input) and output_size is not None:
        return _traced_output_padding(input, output_size, layer.output_padding, *options)
    return layer._output_padding(input, output_size, *options)  # type: ignore[arg-type]


def _leaf(layer, input: torch.fx.Proxy, output_size):
    """modules.leaf, called with the arguments that the layer was: tools that read nodes count them."""
    if output_size is None:
        return leaf(layer, lambda input: layer._compute(input, None), input)
    return leaf(layer, layer._compute, input, output_size)


class DepthwiseConvTranspose2d(nn.ConvTranspose2d):
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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_2_t,
        stride: _size_2_t = 1,
        padding: _size_2_t = 0,
        output_padding: _size_2_t = 0,
        groups: int | None = None,
        bias: bool = True,
        dilation: _size_2_t = 1,
        padding_mode: _PaddingMode = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        _check_channels(in_channels, out_channels, groups)
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


class DepthwiseConvTranspose1d(nn.ConvTranspose1d):
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

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: _size_1_t,
        stride: _size_1_t = 1,
        padding: _size_1_t = 0,
        output_padding: _size_1_t = 0,
        groups: int | None = None,
        bias: bool = True,
        dilation: _size_1_t = 1,
        padding_mode: _PaddingMode = "zeros",
        device=None,
        dtype=None,
    ) -> None:
        _check_channels(in_channels, out_channels, groups)
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
        if not functional.is_symbolic(input):
            _check_sequence(input, weight)
            if not autograd.is_plain(input, weight, bias) and functional.native_reason(input, weight, bias):
                return super().forward(input, output_size)
        extra = _output_padding(self, input, output_size, 1)
        added = (0, extra[0]) if functional.is_symbolic(extra) else (0, *extra)
        # A transposed view is copied, as by nn.ConvTranspose1d: its row would be taken for channels_last.
        input, weight = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
        step, cut, spread = (1, *_single(self.stride)), (0, *_single(self.padding)), (1, *_single(self.dilation))
        output = depthwise_conv_transpose2d(input, weight, bias, step, cut, added, spread)
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
    rules.require(
        input.shape[-2] == weight.shape[0],
        lambda: (
            f"input must have {weight.shape[0]} channels, those of weight {tuple(weight.shape)}, "
            f"got {tuple(input.shape)}"
        ),
    )

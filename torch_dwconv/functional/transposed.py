"""depthwise_conv_transpose2d: the gradient of a depthwise convolution's input, as a function of its own."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function

from ..operators import eager
from ..operators.formats import strides_suggest_channels_last, suggests_channels_last
from ..operators.plain import is_plain
from ..operators.schemas import GRAD_INPUT
from . import rules, scripted
from .dispatch import autocast, is_native, native_reason
from .rules import IntPair, Padding
from .tracing import is_symbolic, untraced

_is_any_autocast_enabled = torch._C._is_any_autocast_enabled


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
    transpose = transpose_plain if is_plain(input, weight, bias) else _transpose_any
    return transpose(input, weight, bias, stride, padding, output_padding, dilation)


# What TorchScript compiles where a script calls it.
depthwise_conv_transpose2d.__prepare_scriptable__ = lambda: scripted.depthwise_conv_transpose2d  # type: ignore[attr-defined]


def transpose_plain(input, weight, bias, stride, padding, output_padding, dilation) -> Tensor:
    """depthwise_conv_transpose2d of plain tensors."""
    single = len(input.shape) == 3
    if single:
        input = input.unsqueeze(0)
    if _is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    shapes = input.shape, input.stride(), weight.shape, weight.stride(), None if bias is None else bias.shape
    options, sizes = _plan(input.dtype, input.get_device(), *shapes, stride, padding, output_padding, dilation)
    rules.check_tensors(input, weight=weight, bias=bias)
    output = _fall_back(input, weight, bias, *options) if sizes is None else _compute(input, weight, bias, sizes, True)
    return output.squeeze(0) if single else output


def _transpose_any(input, weight, bias, stride, padding, output_padding, dilation) -> Tensor:
    """depthwise_conv_transpose2d of what is not plain: traced, transformed, watched, or of other classes."""
    tensors = input, weight, bias
    if is_symbolic(*tensors):
        return handle_torch_function(
            depthwise_conv_transpose2d, tensors, *tensors, stride, padding, output_padding, dilation
        )
    if input.dim() == 3:
        return _transpose_any(input.unsqueeze(0), weight, bias, stride, padding, output_padding, dilation).squeeze(0)
    with untraced():
        shapes = input.shape, weight.shape, None if bias is None else bias.shape
        *options, size = rules.resolve_transposed(*shapes, stride, padding, output_padding, dilation)
    # ONNX's ConvTranspose has the channel multiplier and the bias inside, and a padding for opposite sides.
    onnx = torch.onnx.is_in_onnx_export() and all(before == after for before, after in options[1])
    if onnx or native_reason(*tensors):
        return _fall_back(*tensors, *options)
    if _is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    rules.check_tensors(input, weight=weight, bias=bias)
    channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
    return _compute(input, weight, bias, _sizes(shapes[1], options, size, channels_last), False)


@rules.remembering
def _plan(
    dtype, device: int, input_shape, input_strides, weight_shape, weight_strides, bias_shape, *options
) -> tuple[list, tuple | None]:
    """The options of a call on plain tensors, checked, and the numbers for grad_input; None for F.conv_transpose2d."""
    *resolved, size = rules.resolve_transposed(input_shape, weight_shape, bias_shape, *options)
    if not is_native(dtype, device):
        return resolved, None
    channels_last = strides_suggest_channels_last(input_shape, input_strides) or strides_suggest_channels_last(
        weight_shape, weight_strides
    )
    return resolved, _sizes(weight_shape, resolved, size, channels_last)


def _sizes(weight_shape, options, size, channels_last: bool) -> tuple:
    """What grad_input takes after its tensors."""
    stride, ((top, _), (left, _)), _, dilation = options
    return weight_shape[0] * weight_shape[1], *size, *stride, top, left, *dilation, channels_last


def _compute(input: Tensor, weight: Tensor, bias: Tensor | None, sizes: tuple, plain: bool) -> Tensor:
    """grad_input, round it the repetition of the input for a channel multiplier and the sum with the bias."""
    channels, multiplier, *kernel_size = weight.shape
    if multiplier > 1:
        if suggests_channels_last(input):  # repeat_interleave's results, gradients too, are contiguous
            input = input.permute(0, 2, 3, 1).repeat_interleave(multiplier, 3).permute(0, 3, 1, 2)
        else:
            input = input.repeat_interleave(multiplier, 1)
        weight = weight.reshape(channels * multiplier, 1, *kernel_size)
    if bias is None:
        return eager.call(GRAD_INPUT, plain, input, weight, *sizes)
    dtype = input.dtype
    if dtype in (torch.bfloat16, torch.float16):  # the operator has no bias, and a sum is rounded once
        output = eager.call(GRAD_INPUT, plain, input.float(), weight.float(), *sizes)
        return (output + bias.float()[:, None, None]).to(dtype)
    return eager.call(GRAD_INPUT, plain, input, weight, *sizes) + bias[:, None, None]


def _fall_back(input, weight, bias, stride, pads, output_padding, dilation) -> Tensor:
    """F.conv_transpose2d. It has one padding for opposite sides; what one side has more is cut off, by constants."""
    with untraced():
        channels = weight.shape[0]
    padding = [min(sides) for sides in pads]
    output = F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, channels, dilation)
    for dim, (before, after), both in zip((2, 3), pads, padding, strict=True):
        if before != after:
            rows = slice(before - both, both - after or None)
            output = output[:, :, rows] if dim == 2 else output[:, :, :, rows]
    return output

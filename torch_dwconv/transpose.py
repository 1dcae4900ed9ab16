"""depthwise_conv_transpose2d: the gradient of a depthwise convolution's input, as a function to build models of."""

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function

from . import autograd, functional
from .functional import IntPair, Padding
from .library import GRAD_INPUT, suggests_channels_last


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
    steps, (top, left), extra, spread, size = _geometry(input, weight, bias, stride, padding, output_padding, dilation)
    if functional.native_reason(input, weight, bias):
        # Cut by hand: F.conv_transpose2d has one padding for opposite sides.
        output = F.conv_transpose2d(input, weight, bias, steps, 0, extra, input.shape[1], spread)
        return output[:, :, top : top + size[0], left : left + size[1]]
    input, weight, bias = functional.autocast(input), functional.autocast(weight), functional.autocast(bias)
    functional.check_match("weight", weight, input)
    if bias is not None:
        functional.check_match("bias", bias, input)
    channels, multiplier = weight.shape[:2]
    channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
    if multiplier > 1:
        input = input.repeat_interleave(multiplier, 1)
    weight = weight.reshape(channels * multiplier, 1, *weight.shape[2:])
    sizes = (channels * multiplier, *size, *steps, top, left, *spread, channels_last)
    output = autograd.call(GRAD_INPUT, input, weight, *sizes)
    return output if bias is None else output + bias[:, None, None]


def _geometry(input, weight, bias, stride, padding, output_padding, dilation) -> tuple:
    """stride, (top, left), output_padding, dilation and (OH, OW) of a 4-D call, all checked."""
    if input.dim() != 4:
        raise RuntimeError(f"input must be (N, C, H, W) or (C, H, W), got {tuple(input.shape)}")
    channels = input.shape[1]
    if weight.dim() != 4 or weight.shape[0] != channels or channels == 0 or 0 in weight.shape:
        raise RuntimeError(
            f"weight must be (C, M, kernel_h, kernel_w) with the input's C = {channels}, got {tuple(weight.shape)}"
        )
    out_channels = channels * weight.shape[1]
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise RuntimeError(f"bias must be ({out_channels},), one value per output channel, got {tuple(bias.shape)}")
    stride = functional.positive_pair(stride, "stride")
    dilation = functional.positive_pair(dilation, "dilation")
    if padding == "same":
        raise RuntimeError("padding must be an int, (h, w), ((top, bottom), (left, right)) or 'valid', got 'same'")
    top, bottom, left, right = functional.resolve_padding(padding, input.shape[2:], weight.shape[2:], stride, dilation)
    output_padding = functional.pair(output_padding, "output_padding")
    for extra, step, spread in zip(output_padding, stride, dilation, strict=True):
        if not 0 <= extra < max(step, spread):
            raise RuntimeError(
                f"output_padding must be at least 0 and less than stride={stride} or dilation={dilation}, "
                f"got {output_padding}"
            )
    size = tuple(
        (length - 1) * step - sum(sides) + spread * (taps - 1) + extra + 1
        for length, step, sides, spread, taps, extra in zip(
            input.shape[2:],
            stride,
            ((top, bottom), (left, right)),
            dilation,
            weight.shape[2:],
            output_padding,
            strict=True,
        )
    )
    if min(size) < 1:
        raise RuntimeError(f"the output must not be empty, got {size[0]} x {size[1]} for input {tuple(input.shape)}")
    return stride, (top, left), output_padding, dilation, size

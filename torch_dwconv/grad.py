"""The two gradients of depthwise_conv2d by themselves, as torch.nn.grad has conv2d's. Both can be differentiated."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .functional import rules
from .functional.convolution import fall_back
from .functional.dispatch import is_native, native_reason
from .functional.rules import IntPair, Padding
from .operators import eager
from .operators.formats import suggests_channels_last
from .operators.plain import is_plain
from .operators.schemas import GRAD_INPUT, GRAD_WEIGHT


def depthwise_conv2d_input(
    input_size: Sequence[int],
    weight: Tensor,
    grad_output: Tensor,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
) -> Tensor:
    """Gradient of depthwise_conv2d with respect to its input: torch.nn.grad.conv2d_input with groups = channels.

    Args:
        input_size: (N, C, H, W), the size of the result.
        weight: (C*M, 1, kernel_h, kernel_w).
        grad_output: (N, C*M, OH, OW), the size that depthwise_conv2d has for an input of `input_size`.
        stride, padding, dilation: as in depthwise_conv2d.

    Returns:
        (N, C, H, W), channels_last if the strides of `weight` or `grad_output` suggest it.

    Raises:
        RuntimeError, TypeError: as depthwise_conv2d, and for a `grad_output` of another size.

    >>> output = depthwise_conv2d(input, weight)
    >>> grad_input, = torch.autograd.grad(output, input, grad_output)
    >>> depthwise_conv2d_input(input.shape, weight, grad_output)  # the same
    """
    plain, native, geometry = _geometry(input_size, weight.shape, weight, grad_output, stride, padding, dilation)
    if not native:

        def convolve(input):
            return fall_back(input, weight, None, stride, padding, dilation)

        return _pull_back(convolve, input_size, grad_output)
    channels_last = suggests_channels_last(grad_output) or suggests_channels_last(weight)
    return eager.call(GRAD_INPUT, plain, grad_output, weight, *input_size[1:], *geometry, channels_last)


def depthwise_conv2d_weight(
    input: Tensor,
    weight_size: Sequence[int],
    grad_output: Tensor,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
) -> Tensor:
    """Gradient of depthwise_conv2d with respect to its weight: torch.nn.grad.conv2d_weight with groups = channels.

    Args:
        input: (N, C, H, W).
        weight_size: (C*M, 1, kernel_h, kernel_w), the size of the result.
        grad_output: (N, C*M, OH, OW), the size that depthwise_conv2d has for this input and a weight of `weight_size`.
        stride, padding, dilation: as in depthwise_conv2d.

    Returns:
        (C*M, 1, kernel_h, kernel_w), contiguous.

    Raises:
        RuntimeError, TypeError: as depthwise_conv2d, and for a `grad_output` of another size.

    >>> output = depthwise_conv2d(input, weight)
    >>> grad_weight, = torch.autograd.grad(output, weight, grad_output)
    >>> depthwise_conv2d_weight(input, weight.shape, grad_output)  # the same
    """
    plain, native, geometry = _geometry(input.shape, weight_size, input, grad_output, stride, padding, dilation)
    if not native:

        def convolve(weight):
            return fall_back(input, weight, None, stride, padding, dilation)

        return _pull_back(convolve, weight_size, grad_output)
    return eager.call(GRAD_WEIGHT, plain, input, grad_output, *weight_size[2:], *geometry, False, False)[0]


_remembered_geometry = rules.remembering(rules.resolve_geometry)


def _geometry(input_size, weight_size, operand, grad_output, stride, padding, dilation) -> tuple[bool, bool, list]:
    """Whether the tensors are plain, whether the operators take them, and stride, pads and dilation, all checked."""
    rules.check_tensors(operand, grad_output=grad_output)
    plain = is_plain(operand, grad_output)
    resolve = _remembered_geometry if plain else rules.resolve_geometry
    out_h, out_w, *geometry = resolve(input_size, weight_size, None, stride, padding, dilation)
    expected = (input_size[0], weight_size[0], out_h, out_w)
    if grad_output.shape != expected:
        raise RuntimeError(f"grad_output must have the output's size {expected}, got {tuple(grad_output.shape)}")
    native = is_native(operand.dtype, operand.get_device()) if plain else native_reason(operand, grad_output) is None
    return plain, native, geometry


def _pull_back(convolve, size, grad_output: Tensor) -> Tensor:
    """Gradient of `convolve`, a linear map of a tensor of `size`."""
    pull_back = torch.func.vjp(convolve, grad_output.new_zeros(size))[1]
    return pull_back(grad_output)[0]

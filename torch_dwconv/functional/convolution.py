"""depthwise_conv2d: its rules are in rules.py, who computes it in dispatch.py.

Errors are of the types that F.conv2d raises: TypeError for an argument of the wrong Python type, RuntimeError for
tensors that do not fit and for options out of range. `activation`, which F.conv2d does not have, gets ValueError.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function

from ..operators import eager
from ..operators.formats import strides_suggest_channels_last, suggests_channels_last
from ..operators.plain import is_plain
from ..operators.schemas import ACTIVATION_CODES, ACTIVATIONS, FORWARD
from . import rules, scripted
from .dispatch import autocast, is_native, native_reason, opaque_reason
from .rules import IntPair, Padding
from .tracing import is_symbolic, untraced

_is_any_autocast_enabled = torch._C._is_any_autocast_enabled  # looked up once: calls are counted in microseconds


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    *,
    activation: str | None = None,
) -> Tensor:
    """Depthwise 2-D convolution: every channel with filters of its own, as ``F.conv2d(..., groups=C)`` computes it.

    Tensors without a kernel in this package (integer and complex dtypes, other devices, sparse tensors, tensor
    subclasses, objects with ``__torch_function__``) are computed by F.conv2d. float16 and bfloat16 accumulate in
    float32 and round once. Under autocast the tensors are cast as F.conv2d's are.

    Args:
        input: (N, C, H, W) or (C, H, W), contiguous or channels_last (any other strides cost a copy).
        weight: (C*M, 1, kernel_h, kernel_w). Output channel c*M + m is filter m of input channel c.
        bias: (C*M,), added to the output.
        stride: int or (h, w), in rows and columns of the input, at least 1.
        padding: zeros round the input: int, (h, w), ((top, bottom), (left, right)), 'valid' for none, or 'same' for
            an output of ceil(H / stride_h) x ceil(W / stride_w): PyTorch's at stride 1, TensorFlow's SAME at larger
            strides. What cannot be split evenly goes to the bottom and right.
        dilation: int or (h, w), distance between the taps of a filter, at least 1.
        activation: 'relu', 'relu6', 'hardswish', 'silu', 'gelu' or 'gelu_tanh' (gelu's tanh approximation), applied to
            the result: before it is rounded and in the same pass over the output, if no gradient is needed.

    Returns:
        (N, C*M, OH, OW), or (C*M, OH, OW) for a 3-D input, with
        ``OH = (H + top + bottom - dilation_h * (kernel_h - 1) - 1) // stride_h + 1`` and OW likewise. Its memory format
        is channels_last if the strides of the input or the weight suggest that, otherwise contiguous.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit together, or an option out of its range, as F.conv2d.
        TypeError: an argument of the wrong Python type.
        ValueError: an unknown `activation`.
    """
    return convolve(input, weight, bias, stride, padding, dilation, activation, None)


# What TorchScript compiles where a script calls it.
depthwise_conv2d.__prepare_scriptable__ = lambda: scripted.depthwise_conv2d  # type: ignore[attr-defined]


def convolve(input, weight, bias, stride, padding, dilation, activation, groups: int | None, row=False) -> Tensor:
    """depthwise_conv2d for a layer, which knows its channels.

    Args:
        groups: channels that the input must have, None for whatever it has. A weight that has not one channel for each
            filter is no depthwise one; then F.conv2d computes what these `groups` mean.
        row: whether the height is 1 and is taken away from the output, in place: nn.Conv1d's output is no view, so that
            it may be written to. Not together with an activation, whose gradient may need its result as it was.
        others: as depthwise_conv2d.
    """
    if not is_plain(input, weight, bias):
        output = _convolve_any(input, weight, bias, stride, padding, dilation, activation, groups)
        return output.squeeze(-2) if row else output
    if activation not in ACTIVATION_CODES:
        rules.check_activation(activation)
    single = len(input.shape) == 3
    if single:
        input = input.unsqueeze(0)
    if _is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    plan = plan_of(input, weight, bias, stride, padding, dilation, groups)
    if plan is None:
        rules.check_tensors(input, weight=weight, bias=bias)
        output = fall_back(input, weight, bias, stride, padding, dilation, activation, groups)
    else:
        try:
            output = eager.forward(input, weight, bias, plan, ACTIVATION_CODES[activation])
        except RuntimeError:
            # The operator compares dtypes and devices. Its words for a difference are not those of the other ways.
            rules.check_tensors(input, weight=weight, bias=bias)
            raise
    if row:
        output = output.squeeze_(-2)
    return output.squeeze(0) if single else output


def _convolve_any(input, weight, bias, stride, padding, dilation, activation, groups) -> Tensor:
    """`convolve` of whatever is not plain: traced, transformed, watched, of other classes, or no tensors at all."""
    options = stride, padding, dilation
    if is_symbolic(input, weight, bias):
        tensors = input, weight, bias
        return handle_torch_function(depthwise_conv2d, tensors, *tensors, *options, activation=activation)
    rules.check_activation(activation)
    if opaque_reason(input, weight, bias):
        return fall_back(input, weight, bias, *options, activation, groups)
    if len(input.shape) == 3:
        return _convolve_any(input.unsqueeze(0), weight, bias, *options, activation, groups).squeeze(0)
    if _is_any_autocast_enabled():
        input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    rules.check_tensors(input, weight=weight, bias=bias)
    if _is_grouped(weight.shape, groups):
        return fall_back(input, weight, bias, *options, activation, groups)
    bias_shape = None if bias is None else bias.shape
    geometry = rules.resolve_geometry(input.shape, weight.shape, bias_shape, *options, groups)
    if native_reason(input, weight, bias):
        return fall_back(input, weight, bias, *options, activation, groups)
    channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
    return FORWARD(input, weight, bias, *geometry, channels_last, ACTIVATION_CODES[activation])


def _is_grouped(weight_shape, groups: int | None) -> bool:
    """Whether a layer's weight and groups, edited since, are of an ordinary grouped convolution."""
    return groups is not None and len(weight_shape) == 4 and weight_shape[1] > 1


def plan_of(input, weight, bias, stride, padding, dilation, groups: int | None) -> eager.Plan | None:
    """The numbers of a call on plain tensors, checked; None if it is one for F.conv2d."""
    bias_shape = None if bias is None else bias.shape
    shapes = input.shape, input.stride(), weight.shape, weight.stride(), bias_shape
    return _plan(input.dtype, input.get_device(), *shapes, stride, padding, dilation, groups)


@rules.remembering
def _plan(
    dtype: torch.dtype,
    device: int,
    input_shape,
    input_strides,
    weight_shape,
    weight_strides,
    bias_shape,
    stride,
    padding,
    dilation,
    groups: int | None = None,
) -> eager.Plan | None:
    """The numbers of a call on plain tensors, checked; None if it is one for F.conv2d. `device` is get_device()'s."""
    if _is_grouped(weight_shape, groups):
        return None
    geometry = rules.resolve_geometry(input_shape, weight_shape, bias_shape, stride, padding, dilation, groups)
    if not is_native(dtype, device):
        return None
    channels_last = strides_suggest_channels_last(input_shape, input_strides) or strides_suggest_channels_last(
        weight_shape, weight_strides
    )
    return eager.Plan.of((*geometry, channels_last), input_shape, input_strides, weight_shape, weight_strides)


def fall_back(input, weight, bias, stride, padding, dilation, activation=None, groups: int | None = None):
    """F.conv2d, with the forms of padding that it does not have made by F.pad, and the activation."""
    with untraced():
        channels = input.shape[-3] if groups is None else groups
    input, around = pad_by_sides(input, weight.shape, stride, padding, dilation)
    output = F.conv2d(input, weight, bias, stride, around, dilation, channels)
    return output if activation is None else ACTIVATIONS[activation](output)


@torch.fx.wrap  # of a traced input the size is not known yet
def pad_by_sides(input, weight_shape, stride, padding, dilation, mode: str = "constant") -> tuple[Tensor, tuple]:
    """The input, and the padding (h, w) that is left to a convolution which pads opposite sides alike, with zeros.

    In a trace, padding that depends on the input's size is recorded as it is computed, so that the trace is right at
    other sizes; what does not depend on it is kept out of the trace, which would warn.
    """
    with untraced():
        kernel_hw, stride, dilation = weight_shape[-2:], rules.pair(stride, "stride"), rules.pair(dilation, "dilation")
        by_size = isinstance(padding, str) and padding == "same" and stride != (1, 1)
        pads = None if by_size else rules.resolve_padding(padding, input.shape[-2:], kernel_hw, stride, dilation)
    if pads is None:
        pads = rules.resolve_padding(padding, input.shape[-2:], kernel_hw, stride, dilation)
        by_size = any(isinstance(pad, Tensor) for pad in pads)
    top, bottom, left, right = pads
    if mode == "constant" and not by_size and top == bottom and left == right:
        return input, (top, left)
    return F.pad(input, (left, right, top, bottom), mode), (0, 0)

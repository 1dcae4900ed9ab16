"""separable_conv2d: a depthwise convolution and the 1x1 convolution that mixes its channels."""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function

from ..operators.block.separable import separable as in_one_block
from ..operators.plain import is_plain
from . import rules, scripted
from .convolution import convolve, plan_of
from .rules import IntPair, Padding
from .tracing import is_symbolic, untraced


def separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
) -> Tensor:
    """Depthwise separable 2-D convolution: `depthwise_conv2d` without bias, then a 1x1 convolution with it.

    Args:
        input: (N, C, H, W) or (C, H, W).
        depthwise_weight: (C*M, 1, kernel_h, kernel_w).
        pointwise_weight: (O, C*M, 1, 1).
        bias: (O,), added to the output.
        stride, padding, dilation: of the depthwise convolution, as in `depthwise_conv2d`.

    Returns:
        (N, O, OH, OW), or (O, OH, OW) for a 3-D input; OH and OW as in `depthwise_conv2d`.

    Raises:
        RuntimeError: shapes, dtypes or devices that do not fit together, or an option out of its range.
        TypeError: an argument of the wrong Python type.
    """
    tensors = (input, depthwise_weight, pointwise_weight, bias)
    if is_symbolic(*tensors):
        return handle_torch_function(separable_conv2d, tensors, *tensors, stride, padding, dilation)
    return separate(*tensors, stride, padding, dilation, None)


separable_conv2d.__prepare_scriptable__ = lambda: scripted.separable_conv2d  # type: ignore[attr-defined]


def separate(input, depthwise_weight, pointwise_weight, bias, stride, padding, dilation, groups: int | None) -> Tensor:
    """separable_conv2d for a layer, which knows its channels: `groups`, as in convolution.convolve."""
    if isinstance(input, torch.fx.Proxy):  # the layer is all that torch.fx traces
        return separable_conv2d(cast(Any, input), depthwise_weight, pointwise_weight, bias, stride, padding, dilation)
    with untraced():
        _check_pointwise(input, depthwise_weight, pointwise_weight, bias)
    if (
        output := _in_one_call(input, depthwise_weight, pointwise_weight, bias, stride, padding, dilation, groups)
    ) is not None:
        return output
    depthwise = convolve(input, depthwise_weight, None, stride, padding, dilation, None, groups)
    return F.conv2d(depthwise, pointwise_weight, bias)


def _in_one_call(input, depthwise_weight, pointwise_weight, bias, stride, padding, dilation, groups) -> Tensor | None:
    """Both as one block, where that is faster: plain tensors of which nothing is differentiated."""
    if not is_plain(input, depthwise_weight, pointwise_weight) or not (bias is None or is_plain(bias, bias)):
        return None
    operands = (
        (input, depthwise_weight, pointwise_weight)
        if bias is None
        else (input, depthwise_weight, pointwise_weight, bias)
    )
    if len(input.shape) != 4 or torch._C._is_any_autocast_enabled():
        return None
    if torch.is_grad_enabled() and torch._C._any_requires_grad(*operands):
        return None
    plan = plan_of(input, depthwise_weight, None, stride, padding, dilation, groups)
    return None if plan is None else in_one_block(input, depthwise_weight, pointwise_weight, bias, plan)


def _check_pointwise(input, depthwise_weight, pointwise_weight, bias) -> None:
    middle = depthwise_weight.shape[0]
    if len(pointwise_weight.shape) != 4 or tuple(pointwise_weight.shape[1:]) != (middle, 1, 1):
        raise RuntimeError(
            f"pointwise_weight must be (O, {middle}, 1, 1), one value per depthwise channel, "
            f"got {tuple(pointwise_weight.shape)}"
        )
    out_channels = pointwise_weight.shape[0]
    if bias is not None and tuple(bias.shape) != (out_channels,):
        raise RuntimeError(f"bias must be ({out_channels},), one value per output channel, got {tuple(bias.shape)}")
    if not torch._C._is_any_autocast_enabled():
        rules.check_tensors(input, pointwise_weight=pointwise_weight, bias=bias)

"""A block in PyTorch's own operators: what it means, its decomposition, and what is differentiated."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..formats import suggests_channels_last
from .packing import unpacked
from .steps import CONSTANTS, DENSE, DEPTHWISE, FUNCTIONS, LAYER_NORM, MEAN, NAMES, Step, decoded


def composed(
    input: Tensor, constants: list[Tensor], residual: Tensor | None, steps: list[int], epsilon: float = 0.0
) -> Tensor:
    """The operator `block` (block/__init__.py), differentiable in every tensor.

    Each step computes in float32 where the dtype is a 16-bit one, and rounds once.
    """
    chain, rest, value = decoded(steps), [*constants], input
    for index, step in enumerate(chain):
        own, rest = rest[: CONSTANTS[step.kind]], rest[CONSTANTS[step.kind] :]
        value = _computed(value, step, own, residual if index == len(chain) - 1 else None, epsilon)
    return _channels_last(value)


def _computed(x: Tensor, step: Step, constants: list[Tensor], residual: Tensor | None, epsilon: float) -> Tensor:
    dtype = x.dtype
    x = _wide(x)
    if step.kind == LAYER_NORM:
        x = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=epsilon).permute(0, 3, 1, 2)
    elif step.kind == MEAN:
        x = x.mean((2, 3), keepdim=True)
    elif step.kind in (DENSE, DEPTHWISE):
        weight, bias = constants
        x = _activated(_convolved(x, step, weight, bias, residual), step.activation)
    else:
        into, into_bias, out_of, out_of_bias = constants
        channels = x.shape[1]
        mean = x.mean((2, 3), keepdim=True).to(dtype)
        hidden = _dense(_wide(mean), into, into_bias, step.channels)
        hidden = _activated(hidden, step.activation).to(dtype)
        gate = _activated(_dense(_wide(hidden), out_of, out_of_bias, channels), step.gate).to(dtype)
        x = x * gate
    return x.to(dtype)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _activated(x: Tensor, code: int) -> Tensor:
    name = NAMES[code]
    return x if name is None else FUNCTIONS[name](x)


def _dense(x: Tensor, weight: Tensor, bias: Tensor, outputs: int) -> Tensor:
    """A 1x1 convolution with a packed weight."""
    return F.conv2d(x, unpacked(weight, outputs, x.shape[1], 1, 1).to(x.dtype), bias.to(x.dtype))


def _convolved(x: Tensor, step: Step, weight: Tensor, bias: Tensor, residual: Tensor | None) -> Tensor:
    groups = 1
    if step.kind == DEPTHWISE:
        groups = x.shape[1]
    else:
        weight = unpacked(weight, step.channels, x.shape[1], step.kernel_h, step.kernel_w, step.dilation_w)
    top, left, bottom, right = step.padding
    padding = (top, left)
    if padding != (bottom, right):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    stride, dilation = (step.stride_h, step.stride_w), (step.dilation_h, step.dilation_w)
    x = F.conv2d(x, weight.to(x.dtype), bias.to(x.dtype), stride, padding, dilation, groups)
    return x if residual is None else x + _wide(residual)


def _channels_last(x: Tensor) -> Tensor:
    """The value in dense channels_last, a copy if it is not; in views and a copy that vmap knows."""
    if suggests_channels_last(x) and x.permute(0, 2, 3, 1).is_contiguous():
        return x
    return x.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)

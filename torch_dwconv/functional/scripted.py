"""The functions and layers of this package in what TorchScript compiles: its subset of Python and PyTorch's operators.

TorchScript files run without Python, where the operators of this package are not defined. So a script computes with
F.conv2d. Options arrive as `Any`, since TorchScript has no type for "an int, a pair or a string"; values of a type that
is not listed raise when the script runs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def pair(value: Any, name: str) -> list[int]:
    """An option for h and w as two ints."""
    if isinstance(value, int):
        return [value, value]
    if torch.jit.isinstance(value, tuple[int, int]):
        return [value[0], value[1]]
    if torch.jit.isinstance(value, list[int]):
        return [value[0], value[-1]]
    if torch.jit.isinstance(value, tuple[int]):
        return [value[0], value[0]]
    raise RuntimeError(name + " must be an int or (h, w)")


def same_pads(
    input: Tensor,
    kernel_size: list[int],
    stride: list[int],
    dilation: list[int],
) -> list[int]:
    """'same' for this input, as F.pad's (left, right, top, bottom)."""
    pads = [0, 0, 0, 0]
    for axis in range(2):
        reach = dilation[axis] * (kernel_size[axis] - 1)
        total = reach
        if stride[axis] != 1:
            size = input.shape[axis - 2]
            outputs = (size + stride[axis] - 1) // stride[axis]
            total = max((outputs - 1) * stride[axis] + reach + 1 - size, 0)
        pads[2 - 2 * axis] = total // 2
        pads[3 - 2 * axis] = total - total // 2
    return pads


def _pads(
    input: Tensor,
    padding: Any,
    kernel_size: list[int],
    stride: list[int],
    dilation: list[int],
) -> list[int]:
    """Any form of `padding` as F.pad's (left, right, top, bottom)."""
    if isinstance(padding, str):
        if padding == "valid":
            return [0, 0, 0, 0]
        if padding == "same":
            return same_pads(input, kernel_size, stride, dilation)
        raise RuntimeError("padding must be 'valid' or 'same' if it is a string, got " + padding)
    if torch.jit.isinstance(padding, tuple[tuple[int, int], tuple[int, int]]):
        return [padding[1][0], padding[1][1], padding[0][0], padding[0][1]]
    if torch.jit.isinstance(padding, list[list[int]]):
        return [padding[1][0], padding[1][1], padding[0][0], padding[0][1]]
    around = pair(padding, "padding")
    return [around[1], around[1], around[0], around[0]]


def _has_sides(padding: Any) -> bool:
    return torch.jit.isinstance(padding, tuple[tuple[int, int], tuple[int, int]]) or torch.jit.isinstance(
        padding, list[list[int]]
    )


def activate(output: Tensor, activation: str | None) -> Tensor:
    """operators.schemas.ACTIVATIONS."""
    if activation is None:
        return output
    if activation == "relu":
        return F.relu(output)
    if activation == "relu6":
        return F.relu6(output)
    if activation == "hardswish":
        return F.hardswish(output)
    if activation == "silu":
        return F.silu(output)
    if activation == "gelu":
        return F.gelu(output)
    if activation == "gelu_tanh":
        return F.gelu(output, approximate="tanh")
    raise RuntimeError("activation must be None or one of relu, relu6, hardswish, silu, gelu, gelu_tanh")


def _with_height(option: Any, of_height: int) -> Any:
    """layers.options.with_height."""
    if torch.jit.isinstance(option, tuple[int, int]):
        return ((of_height, of_height), option)
    if torch.jit.isinstance(option, tuple[int]):
        return (of_height, option[0])
    if torch.jit.isinstance(option, list[int]):
        return (of_height, option[0])
    if isinstance(option, int):
        return (of_height, option)
    return option


def convolve(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    padding_mode: str,
    constructed_pads: list[int],
    activation: str | None,
) -> Tensor:
    """A depthwise convolution with the options of DepthwiseConv2d, or of DepthwiseConv1d: then one of height 1.

    `constructed_pads` is `_reversed_padding_repeated_twice` of the layer, as in layers.options.pad.
    """
    row = weight.dim() == 3
    if row:
        input, weight = input.contiguous().unsqueeze(-2), weight.unsqueeze(-2)
        stride, padding, dilation = _with_height(stride, 1), _with_height(padding, 0), _with_height(dilation, 1)
        if constructed_pads != [-1]:
            constructed_pads = [constructed_pads[0], constructed_pads[1], 0, 0]
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    pads = _pads(input, padding, list(weight.shape[-2:]), strides, dilations)
    if padding_mode != "zeros" and constructed_pads != [-1] and not _has_sides(padding):
        pads = constructed_pads
    around = [0, 0]
    if padding_mode != "zeros":
        input = F.pad(input, pads, padding_mode)
    elif pads[0] == pads[1] and pads[2] == pads[3]:
        around = [pads[2], pads[0]]
    else:
        input = F.pad(input, pads)
    output = F.conv2d(input, weight, bias, strides, around, dilations, groups)
    return activate(output.squeeze(-2) if row else output, activation)


def depthwise_conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    activation: str | None = None,
) -> Tensor:
    """convolution.depthwise_conv2d."""
    return convolve(input, weight, bias, stride, padding, dilation, input.shape[-3], "zeros", [0, 0, 0, 0], activation)


def batch_norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """batch_norm.batch_norm_act."""
    return activate(F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps), activation)


def separable_conv2d(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    """separable.separable_conv2d."""
    groups = input.shape[-3]
    return separable(input, depthwise_weight, pointwise_weight, bias, stride, padding, dilation, groups)


def separable(
    input: Tensor,
    depthwise_weight: Tensor,
    pointwise_weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Tensor:
    """separable_conv2d of a layer, which knows its channels, and of a 1-D layer."""
    no_pads = [0, 0, 0, 0]
    output = convolve(input, depthwise_weight, None, stride, padding, dilation, groups, "zeros", no_pads, None)
    if pointwise_weight.dim() == 3:
        return F.conv1d(output, pointwise_weight, bias)
    return F.conv2d(output, pointwise_weight, bias)


def depthwise_conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
) -> Tensor:
    """transposed.depthwise_conv_transpose2d."""
    if isinstance(padding, str) and padding != "valid":
        raise RuntimeError("padding must be 'valid' if it is a string, got " + padding)
    strides, dilations = pair(stride, "stride"), pair(dilation, "dilation")
    added = pair(output_padding, "output_padding")
    left, right, top, bottom = _pads(input, padding, list(weight.shape[-2:]), strides, dilations)
    around = [min(top, bottom), min(left, right)]
    output = F.conv_transpose2d(input, weight, bias, strides, around, added, weight.shape[0], dilations)
    output = output[..., top - around[0] : output.shape[-2] - (bottom - around[0]), :]
    return output[..., left - around[1] : output.shape[-1] - (right - around[1])]

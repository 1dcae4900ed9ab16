"""BatchNorm with its activation in PyTorch's own operators: what the operators mean, their decompositions, and what
transforms and second derivatives differentiate."""

import torch
from torch import Tensor

from ..schemas import activation_of

_aten = torch.ops.aten


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float, activation: int, channels_last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `batch_norm`. Mean and variance are constants to whoever reads them beside the output."""
    x = _wide(input)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    output = _activated(_normalised(x, weight, bias, mean, variance, epsilon), activation)
    return _stored(output, input, channels_last), mean.detach(), variance.detach()


def batch_norm_eval(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: int,
    channels_last: bool,
) -> Tensor:
    """The operator `batch_norm_eval`."""
    output = _activated(_normalised(_wide(input), weight, bias, mean, variance, epsilon), activation)
    return _stored(output, input, channels_last)


def batch_norm_backward(
    grad_output: Tensor,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    epsilon: float,
    activation: int,
    of_batch: bool,
    wants_input: bool,
    wants_parameters: bool,
    channels_last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The operator `batch_norm_backward`, by the formulas of csrc/cpu/batch_norm/backward.h."""
    x = _wide(input)
    argument = _normalised(x, weight, bias, mean, variance, epsilon)
    gradient = _through(_wide(grad_output), argument, activation)
    deviation, rstd = x - mean[:, None, None], (variance + epsilon).rsqrt()
    total, product = gradient.sum((0, 2, 3)), (gradient * deviation).sum((0, 2, 3))
    scale = rstd if weight is None else rstd * weight
    grad_input, grad_weight, grad_bias = input.new_empty(0), mean.new_empty(0), mean.new_empty(0)
    if wants_input:
        if of_batch:
            count = input.shape[0] * input.shape[2] * input.shape[3]
            slope = (product * rstd * rstd / count)[:, None, None]
            gradient = gradient - (total / count)[:, None, None] - deviation * slope
        grad_input = _stored(gradient * scale[:, None, None], input, channels_last)
    if wants_parameters:
        grad_weight, grad_bias = product * rstd, total
    return grad_input, grad_weight, grad_bias


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _normalised(x, weight, bias, mean, variance, epsilon) -> Tensor:
    scale = (variance + epsilon).rsqrt()
    scale = scale if weight is None else scale * weight
    output = (x - mean[:, None, None]) * scale[:, None, None]
    return output if bias is None else output + bias[:, None, None]


def _activated(x: Tensor, activation: int) -> Tensor:
    function = activation_of(activation)
    return x if function is None else function(x)


def _through(gradient: Tensor, argument: Tensor, activation: int) -> Tensor:
    """The gradient before the activation."""
    if activation == 1:
        return _aten.threshold_backward(gradient, argument, 0.0)
    if activation == 2:
        return _aten.hardtanh_backward(gradient, argument, 0.0, 6.0)
    if activation == 3:
        return _aten.hardswish_backward(gradient, argument)
    if activation == 4:
        return _aten.silu_backward(gradient, argument)
    if activation in (5, 6):
        return _aten.gelu_backward(gradient, argument, approximate="none" if activation == 5 else "tanh")
    return gradient


def _stored(x: Tensor, like: Tensor, channels_last: bool) -> Tensor:
    """In the dtype and the memory format of the result; views and a copy that vmap knows."""
    x = x.to(like.dtype)
    if channels_last:
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return x.contiguous()

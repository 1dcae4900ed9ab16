"""The operators of the pointwise convolution (1x1, stride 1, groups=1) in training.

    pointwise(input, weight, bias?, channels_last) -> output
    pointwise_grad_input(grad_output, weight, channels_last) -> grad_input
    pointwise_grad_weight(input, grad_output, channels_last, weight_channels_last) -> grad_weight

All float32: input and grad_input (N, C, H, W), output and grad_output (N, O, H, W), weight and grad_weight
(O, C, 1, 1), bias (O,). `channels_last` is the memory format in which images are read and written,
`weight_channels_last` that of grad_weight. The operators are for plain tensors in eager code, as `backward` is: they
have no derivative of their own, no fake kernel and no batching rule. `Pointwise` has the derivative, and everything
else is PyTorch's convolution.
"""

import torch
from torch import Tensor

from .calls import below_autograd
from .eager import Function
from .engine import needed
from .formats import suggests_channels_last
from .plain import is_plain

POINTWISE = torch.ops.torch_dwconv.pointwise.default
GRAD_INPUT = torch.ops.torch_dwconv.pointwise_grad_input.default
GRAD_WEIGHT = torch.ops.torch_dwconv.pointwise_grad_weight.default

_aten_backward = torch.ops.aten.convolution_backward.default


def pointwise(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The operator on plain tensors, by the shortest way."""
    channels_last = suggests_channels_last(input) or suggests_channels_last(weight)
    if torch.is_grad_enabled() and torch._C._any_requires_grad(input, weight, bias):
        return Pointwise.apply(input, weight, bias, channels_last)
    return below_autograd(POINTWISE, input, weight, bias, channels_last)


class Pointwise(Function):
    """apply(input, weight, bias, channels_last); a second derivative is that of PyTorch's convolution."""

    @staticmethod
    def forward(ctx, input, weight, bias, channels_last):
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(input if needs_weight else None, weight if needs_input else None)
        ctx.shapes = input.shape, weight.shape
        ctx.formats = channels_last, suggests_channels_last(weight)
        return below_autograd(POINTWISE, input, weight, bias, channels_last)

    @staticmethod
    def backward(ctx, v):
        input, weight = ctx.saved_tensors
        wanted = needed(ctx, 3, v)
        if torch.is_grad_enabled() or not is_plain(v, v if input is None else input, weight):
            return *_atens_gradients(ctx, v, input, weight, wanted), None
        channels_last, weight_channels_last = ctx.formats
        grad_input = grad_weight = grad_bias = None
        if wanted[0]:
            grad_input = below_autograd(GRAD_INPUT, v, weight, channels_last)
        if wanted[1]:
            grad_weight = below_autograd(GRAD_WEIGHT, input, v, channels_last, weight_channels_last)
        if wanted[2]:
            grad_bias = v.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias, None


def _atens_gradients(ctx, v: Tensor, input: Tensor | None, weight: Tensor | None, wanted) -> tuple[Tensor | None, ...]:
    """Those of PyTorch's convolution, which can be differentiated. Of what was not saved only the shape matters."""
    input_shape, weight_shape = ctx.shapes
    x = v.new_empty(input_shape) if input is None else input
    w = v.new_empty(weight_shape) if weight is None else weight
    return _aten_backward(v, x, w, [weight_shape[0]], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [*wanted])

"""The shortest safe way to the operators, for plain tensors (plain.py), where autograd is the only dispatch layer.

The kernels at the Autograd key (autograd.py) are right under every transform and cost tens of microseconds. Here a call
that needs no gradient skips autograd, and one that does gets a Function with no more than a training step needs. The
two gradients of CUDA tensors are then one call of `backward`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction

from .calls import below_autograd
from .engine import needed
from .formats import strides_suggest_channels_last
from .plain import is_plain
from .schemas import ACTIVATION_CODES, BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT, activation_of

# In float64 the kernels compute the other activations lane by lane, which takes longer than a second pass.
_VECTORISED_IN_F64 = frozenset(ACTIVATION_CODES[name] for name in ("relu", "relu6", "hardswish"))

# Looked up once: plain eager calls are counted in microseconds.
_is_grad_enabled = torch.is_grad_enabled


class Plan(NamedTuple):
    """The numbers that a call of `forward` and its two gradients hand to the operators."""

    forward: tuple  # out_h, out_w, *geometry, channels_last
    grad_input: tuple  # in_channels, in_h, in_w, *geometry, channels_last
    grad_weight: tuple  # kernel_h, kernel_w, *geometry
    weight_format: bool  # channels_last of the weight

    @classmethod
    def of(cls, sizes: tuple, input_size, input_strides, weight_size, weight_strides) -> "Plan":
        """`sizes` are what `forward` takes after its tensors."""
        geometry = sizes[2:-1]
        return cls(
            sizes,
            (*input_size[1:], *geometry, strides_suggest_channels_last(input_size, input_strides)),
            (*weight_size[2:], *geometry),
            strides_suggest_channels_last(weight_size, weight_strides),
        )


def forward(input: Tensor, weight: Tensor, bias: Tensor | None, plan: Plan, activation: int) -> Tensor:
    """The operator `forward` on plain tensors."""
    if _is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        output = _DepthwiseConv2d.apply(input, weight, bias, plan)
    elif activation and input.dtype == torch.float64 and activation not in _VECTORISED_IN_F64:
        output = below_autograd(FORWARD, input, weight, bias, *plan.forward)
    else:
        return below_autograd(FORWARD, input, weight, bias, *plan.forward, activation)
    return activation_of(activation)(output) if activation else output


def call(op, plain: bool, first: Tensor, second: Tensor, *sizes):
    """An operator of two tensors, which may be plain, by its shortest way."""
    if plain and not (_is_grad_enabled() and (first.requires_grad or second.requires_grad)):
        return below_autograd(op, first, second, *sizes)
    return op(first, second, *sizes)


class Function(_SingleLevelFunction):
    """torch.autograd.Function without its apply(), which would pass through every level of transforms by itself."""

    _compiled_autograd_key = staticmethod(torch.autograd.Function._compiled_autograd_key)

    if TYPE_CHECKING:  # it has one, of C

        @classmethod
        def apply(cls, *args: Any) -> Any: ...


class _DepthwiseConv2d(Function):
    @staticmethod
    def forward(ctx, input, weight, bias, plan):
        save(ctx, input, weight, plan)
        return below_autograd(FORWARD, input, weight, bias, *plan.forward)

    @staticmethod
    def backward(ctx, v):
        return *gradients(ctx, v), None


def save(ctx, input: Tensor, weight: Tensor, plan: Plan) -> None:
    """Keeps for `gradients` what a needed one uses."""
    needs_input, needs_weight, *_ = ctx.needs_input_grad
    ctx.save_for_backward(input if needs_weight else None, weight if needs_input else None)
    ctx.plan = plan


def gradients(ctx, v: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of input, weight and bias, each None if nothing needs it; `v` is the output's."""
    input, weight = ctx.saved_tensors
    needs_input, needs_weight, needs_bias = needed(ctx, 3, v)
    plan = ctx.plan
    plain = not _is_grad_enabled() and is_plain(v, v if input is None else input, weight)
    if plain and needs_input and needs_weight and v.is_cuda:  # where a kernel may compute both in one pass
        formats = plan.grad_input[-1], plan.weight_format
        grads = below_autograd(BACKWARD, v, input, weight, *plan.grad_weight[2:], needs_bias, *formats)
        return grads[0], grads[1], grads[2] if needs_bias else None
    run = below_autograd if plain else _through_autograd
    grad_input = grad_weight = grad_bias = None
    if needs_input:
        grad_input = run(GRAD_INPUT, v, weight, *plan.grad_input)
    if needs_weight:
        grad_weight, grad_bias = run(GRAD_WEIGHT, input, v, *plan.grad_weight, needs_bias, plan.weight_format)
    elif needs_bias:
        grad_bias = v.sum((0, 2, 3))
    return grad_input, grad_weight, grad_bias if needs_bias else None


def _through_autograd(op, *args):
    return op(*args)

"""Derivatives of batch_norm and batch_norm_eval.

In plain backward passes, and where graphs are traced for torch.compile, they are one call of batch_norm_backward. It
needs the input and what is of channels again: nothing else is saved. Everything else differentiates the composed form:
torch.func's transforms and forward mode in place of the call, second derivatives in the backward pass.
"""

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from ..autograd import library, may_be_differentiated
from ..calls import redispatch
from ..eager import Function
from . import BATCH_NORM, BATCH_NORM_BACKWARD, BATCH_NORM_EVAL, composed

_C = torch._C


class BatchNorm(Function):
    """apply(input, weight, bias, options, call): `call` runs the operator below autograd, options are its numbers."""

    @staticmethod
    def forward(ctx, input, weight, bias, options, call):
        output, mean, variance = call(BATCH_NORM, input, weight, bias, *options)
        ctx.save_for_backward(input, weight, bias, mean, variance)
        ctx.options = options
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx, v, *_):
        *operands, mean, variance = ctx.saved_tensors
        return *_gradients(ctx, v, operands, mean, variance, of_batch=True), None, None


class BatchNormEval(Function):
    """The same with a mean and a variance, which are constants: apply(input, weight, bias, mean, variance, ...)."""

    @staticmethod
    def forward(ctx, input, weight, bias, mean, variance, options, call):
        ctx.save_for_backward(input, weight, bias, mean, variance)
        ctx.options = options
        return call(BATCH_NORM_EVAL, input, weight, bias, mean, variance, *options)

    @staticmethod
    def backward(ctx, v):
        *operands, mean, variance = ctx.saved_tensors
        return *_gradients(ctx, v, operands, mean, variance, of_batch=False), None, None, None, None


def _gradients(ctx, v: Tensor, operands, mean: Tensor, variance: Tensor, of_batch: bool) -> list[Tensor | None]:
    wanted = [*ctx.needs_input_grad[:3]]
    if torch.is_grad_enabled():
        return _differentiable_gradients(v, operands, wanted, mean, variance, ctx.options, of_batch)
    epsilon, activation, channels_last = ctx.options
    flags = of_batch, wanted[0], wanted[1] or wanted[2], channels_last
    results = BATCH_NORM_BACKWARD(v, *operands, mean, variance, epsilon, activation, *flags)
    return [result if wants else None for result, wants in zip(results, wanted, strict=True)]


def _differentiable_gradients(v, operands, wanted, mean, variance, options, of_batch) -> list[Tensor | None]:
    """Those of the composed form, with a graph of their own."""
    input, weight, bias = operands
    if of_batch:
        output, _, _ = composed.batch_norm(input, weight, bias, *options)
    else:
        output = composed.batch_norm_eval(input, weight, bias, mean, variance, *options)
    of = [operand for operand, wants in zip(operands, wanted, strict=True) if wants]
    results = iter(torch.autograd.grad(output, of, v, create_graph=True))
    return [next(results) if wants else None for wants in wanted]


def _is_transformed() -> bool:
    return _C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _call_below(keyset):
    return lambda op, *args: redispatch(op, keyset, args)


def _batch_norm_kernel(keyset, input, weight, bias, *options):
    if not may_be_differentiated((input, weight, bias)):
        return redispatch(BATCH_NORM, keyset, (input, weight, bias, *options))
    if _is_transformed():
        return composed.batch_norm(input, weight, bias, *options)
    with enable_single_level_autograd_function():
        return BatchNorm.apply(input, weight, bias, options, _call_below(keyset))


def _eval_kernel(keyset, input, weight, bias, mean, variance, *options):
    if not may_be_differentiated((input, weight, bias, mean, variance)):
        return redispatch(BATCH_NORM_EVAL, keyset, (input, weight, bias, mean, variance, *options))
    if _is_transformed() or mean.requires_grad or variance.requires_grad:
        return composed.batch_norm_eval(input, weight, bias, mean, variance, *options)
    with enable_single_level_autograd_function():
        return BatchNormEval.apply(input, weight, bias, mean, variance, options, _call_below(keyset))


def _backward_kernel(keyset, *args):
    if may_be_differentiated(args):
        return composed.batch_norm_backward(*args)
    return redispatch(BATCH_NORM_BACKWARD, keyset, args)


library.impl("batch_norm", _batch_norm_kernel, "Autograd", with_keyset=True)
library.impl("batch_norm_eval", _eval_kernel, "Autograd", with_keyset=True)
library.impl("batch_norm_backward", _backward_kernel, "Autograd", with_keyset=True)

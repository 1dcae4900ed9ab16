"""Derivatives of the operators.

T(x, w, g) = <g, conv(x, w)> is linear in each argument, and its three slot-gradients are the operators. So they are
each other's derivatives and no order of differentiation needs anything else. With v the incoming gradient:

    forward(x, w, b)     x: grad_input(v, w)      w, b: grad_weight(x, v)
    grad_input(g, w)     g: forward(v, w)         w: grad_weight(v, g)
    grad_weight(x, g)    x: grad_input(g, v)      g: forward(x, v, v_bias)

`forward` with an activation has no row: where a gradient may be needed, it is `forward` without one and then PyTorch's
function. Every operator has a Python kernel at the Autograd dispatch key, which applies a Function with its row of the
table. This is right under every transform: eager autograd, forward mode, torch.func, torch.compile, nested in any way.
It also costs tens of microseconds, so plain eager code goes round it, by eager.py.
"""

import functools

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad

from . import eager
from .calls import counting, redispatch
from .engine import needed
from .formats import suggests_channels_last
from .schemas import FORWARD, GRAD_INPUT, GRAD_WEIGHT, activation_of

_C = torch._C

_FORWARD_ARGUMENTS = 12  # the dispatcher leaves out an activation of 0, its default


def _nestable(jvp):
    """Lets forward mode through to the levels below, which autograd turns off for all of them while it calls a jvp."""

    @functools.wraps(jvp)
    def enabled(*args):
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(*args)

    return enabled


def _primals(ctx) -> list[Tensor]:
    """The tensors saved for jvp without their tangents of this level, which are jvp's arguments."""
    return [forward_ad.unpack_dual(tensor, level=0).primal for tensor in ctx.saved_tensors]


class _Operator(eager.Function):
    """A Function that runs an operator below autograd, applied as ``apply(*tensors, sizes, keyset)``.

    It handles one level of transforms, the one whose Autograd kernel applies it. Redispatching hands the call to the
    next level, which must find the gradient modes as they were: apply() has turned them off.
    """

    op: torch._ops.OpOverload

    @classmethod
    def forward(cls, *args):
        *tensors, sizes, keyset = args
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return redispatch(cls.op, keyset, (*tensors, *sizes))


class _Forward(_Operator):
    op = FORWARD

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, _, sizes, _ = inputs
        plan = eager.Plan.of(sizes, input.shape, input.stride(), weight.shape, weight.stride())
        eager.save(ctx, input, weight, plan)
        ctx.save_for_forward(input, weight)
        ctx.output_size = output.shape

    @staticmethod
    def backward(ctx, v):
        return *eager.gradients(ctx, v), None, None

    @staticmethod
    @_nestable
    def jvp(ctx, input_tangent, weight_tangent, bias_tangent, *_):
        input, weight = _primals(ctx)
        tangent = None
        if input_tangent is not None:
            tangent = FORWARD(input_tangent, weight, bias_tangent, *ctx.plan.forward)
        elif bias_tangent is not None:
            tangent = bias_tangent[:, None, None].expand(ctx.output_size)
        if weight_tangent is not None:
            tangent = _add(tangent, FORWARD(input, weight_tangent, None, *ctx.plan.forward))
        return tangent


class _GradInput(_Operator):
    op = GRAD_INPUT

    @staticmethod
    def setup_context(ctx, inputs, output):
        grad_output, weight, sizes, _ = inputs
        needs_grad_output, needs_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(grad_output if needs_weight else None, weight if needs_grad_output else None)
        ctx.save_for_forward(grad_output, weight)
        ctx.sizes = sizes
        ctx.output_size, ctx.kernel_size = grad_output.shape[2:], weight.shape[2:]
        ctx.grad_output_format, ctx.weight_format = suggests_channels_last(grad_output), suggests_channels_last(weight)

    @staticmethod
    def backward(ctx, v):
        grad_output, weight = ctx.saved_tensors
        needs_grad_output, needs_weight = needed(ctx, 2, v)
        geometry = ctx.sizes[3:-1]
        grad_grad_output = grad_weight = None
        if needs_grad_output:
            grad_grad_output = FORWARD(v, weight, None, *ctx.output_size, *geometry, ctx.grad_output_format)
        if needs_weight:
            grad_weight, _ = GRAD_WEIGHT(v, grad_output, *ctx.kernel_size, *geometry, False, ctx.weight_format)
        return grad_grad_output, grad_weight, None, None

    @staticmethod
    @_nestable
    def jvp(ctx, grad_output_tangent, weight_tangent, *_):
        grad_output, weight = _primals(ctx)
        tangent = None
        if grad_output_tangent is not None:
            tangent = GRAD_INPUT(grad_output_tangent, weight, *ctx.sizes)
        if weight_tangent is not None:
            tangent = _add(tangent, GRAD_INPUT(grad_output, weight_tangent, *ctx.sizes))
        return tangent


class _GradWeight(_Operator):
    op = GRAD_WEIGHT

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, grad_output, sizes, _ = inputs
        needs_input, needs_grad_output, *_ = ctx.needs_input_grad
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(input if needs_grad_output else None, grad_output if needs_input else None)
        ctx.save_for_forward(input, grad_output)
        ctx.sizes = sizes
        ctx.input_size, ctx.grad_output_size = input.shape[1:], grad_output.shape
        ctx.input_format, ctx.grad_output_format = suggests_channels_last(input), suggests_channels_last(grad_output)

    @staticmethod
    def backward(ctx, v, v_bias):
        input, grad_output = ctx.saved_tensors
        needs_input, needs_grad_output = needed(ctx, 2, v_bias if v is None else v)
        *geometry, with_bias, _ = ctx.sizes[2:]
        v_bias = v_bias if with_bias else None
        grad_input = grad_grad_output = None
        if needs_input and v is not None:
            grad_input = GRAD_INPUT(grad_output, v, *ctx.input_size, *geometry, ctx.input_format)
        if needs_grad_output and v is not None:
            output_size = ctx.grad_output_size[2:]
            grad_grad_output = FORWARD(input, v, v_bias, *output_size, *geometry, ctx.grad_output_format)
        elif needs_grad_output and v_bias is not None:
            grad_grad_output = v_bias[:, None, None].expand(ctx.grad_output_size)
        return grad_input, grad_grad_output, None, None

    @staticmethod
    @_nestable
    def jvp(ctx, input_tangent, grad_output_tangent, *_):
        input, grad_output = _primals(ctx)
        tangent = bias_tangent = None
        if grad_output_tangent is not None:
            tangent, bias_tangent = GRAD_WEIGHT(input, grad_output_tangent, *ctx.sizes)
        if input_tangent is not None:
            from_input, constant = GRAD_WEIGHT(input_tangent, grad_output, *ctx.sizes)
            tangent = _add(tangent, from_input)
            bias_tangent = torch.zeros_like(constant) if bias_tangent is None else bias_tangent
        return tangent, bias_tangent


def _add(tangent: Tensor | None, other: Tensor) -> Tensor:
    return other if tangent is None else tangent + other


def may_be_differentiated(args) -> bool:
    return (
        _C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (torch.is_grad_enabled() and _C._any_requires_grad(*args))
    )


def _autograd_kernel(function: type[_Operator], tensors: int):
    """The kernel at the Autograd key of an operator whose first `tensors` arguments are tensors."""

    def kernel(keyset, *args):
        if may_be_differentiated(args):
            # Function.apply would take the call through all levels of transforms; the dispatcher is already doing that.
            with enable_single_level_autograd_function():
                return function.apply(*args[:tensors], args[tensors:], keyset)
        return redispatch(function.op, keyset, args)

    return kernel


_autograd_forward = _autograd_kernel(_Forward, 3)


def _forward_kernel(keyset, *args):
    """What may be differentiated is composed: the operator without an activation, then PyTorch's function."""
    if len(args) > _FORWARD_ARGUMENTS and args[-1]:
        if may_be_differentiated(args):
            activate = activation_of(args[-1])
            return activate(FORWARD(*args[:-1]))
        return redispatch(FORWARD, keyset, args)
    return _autograd_forward(keyset, *args[:_FORWARD_ARGUMENTS])


def _refusing(op):
    """The kernel at the Autograd key of an out overload: such a result has no history, as with PyTorch's operators."""

    def kernel(keyset, *args, **buffers):
        if torch.is_grad_enabled() and _C._any_requires_grad(*args, *buffers.values()):
            raise RuntimeError(
                f"torch_dwconv: {op.name().removeprefix('torch_dwconv::')} has no derivative, but an argument requires "
                f"grad; call {op.name().removesuffix('.out')}, or turn gradients off with torch.no_grad()"
            )
        return op.redispatch(keyset & _C._after_autograd_keyset, *args, **buffers)

    return kernel


library = torch.library.Library("torch_dwconv", "FRAGMENT")
library.impl("forward", _forward_kernel, "Autograd", with_keyset=True)
library.impl("grad_input", _autograd_kernel(_GradInput, 2), "Autograd", with_keyset=True)
library.impl("grad_weight", _autograd_kernel(_GradWeight, 2), "Autograd", with_keyset=True)
for _op in (FORWARD, GRAD_INPUT, GRAD_WEIGHT):
    _out = getattr(torch.ops.torch_dwconv, _op._opname).out
    library.impl(f"{_op._opname}.out", _refusing(_out), "Autograd", with_keyset=True)
    library.impl(f"{_op._opname}.out", counting(_out), "ADInplaceOrView", with_keyset=True)

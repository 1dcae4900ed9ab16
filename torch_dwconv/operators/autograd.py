"""Derivatives of the operators, and the shortest safe way to call them.

T(x, w, g) = <g, conv(x, w)> is linear in each argument, and its three slot-gradients are the operators. So they are
each other's derivatives and no order of differentiation needs anything else. With v the incoming gradient:

    forward(x, w, b)     x: grad_input(v, w)      w, b: grad_weight(x, v)
    grad_input(g, w)     g: forward(v, w)         w: grad_weight(v, g)
    grad_weight(x, g)    x: grad_input(g, v)      g: forward(x, v, v_bias)

`forward` with an activation has no row: where a gradient may be needed, it is `forward` without one and then PyTorch's
function. Every operator has a Python kernel at the Autograd dispatch key, which applies a Function with its row of the
table. This is right under every transform: eager autograd, forward mode, torch.func, torch.compile, nested in any way.
It also costs tens of microseconds, so plain eager code (see `is_plain`) goes round it, by `forward` and `call`. There
the two gradients of CUDA tensors are one call of `backward`.
"""

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from .engine import needed
from .plain import is_plain
from .schemas import (
    ACTIVATION_CODES,
    BACKWARD,
    EMPTY_RESULT,
    FORWARD,
    GRAD_INPUT,
    GRAD_WEIGHT,
    activation_of,
    strides_suggest_channels_last,
    suggests_channels_last,
)

_C = torch._C

_FORWARD_ARGUMENTS = 12  # the dispatcher leaves out an activation of 0, its default

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
    """The operator `forward` on tensors that are plain."""
    if _is_grad_enabled() and (
        input.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    ):
        output = _DepthwiseConv2d.apply(input, weight, bias, plan)
    elif activation and input.dtype == torch.float64 and activation not in _VECTORISED_IN_F64:
        output = _below_autograd(FORWARD, input, weight, bias, *plan.forward)
    else:
        return _below_autograd(FORWARD, input, weight, bias, *plan.forward, activation)
    return activation_of(activation)(output) if activation else output


def call(op, first: Tensor, second: Tensor, *sizes):
    """An operator of two tensors, by its shortest way."""
    if is_plain(first, second) and not (_is_grad_enabled() and (first.requires_grad or second.requires_grad)):
        return _below_autograd(op, first, second, *sizes)
    return op(first, second, *sizes)


def _below_autograd(op, *args):
    try:
        with _C._AutoDispatchBelowAutograd():
            return op._op(*args)
    except RuntimeError as error:
        _raise_out_of_memory(error, op, args)
        raise


def _through_autograd(op, *args):
    return op(*args)


def _redispatch(op, keyset, args):
    try:
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)
    except RuntimeError as error:
        _raise_out_of_memory(error, op, args)
        raise


def _raise_out_of_memory(error: RuntimeError, op, args) -> None:
    """Raises PyTorch's own out-of-memory error if an operator failed for want of memory.

    The stable ABI reports every failure inside PyTorch as "API call failed", without the reason. Making the same
    allocations here, the result, the workspace and dense copies of the operands, meets the same failure with its text.
    """
    if "API call failed" in str(error):
        allocations = [EMPTY_RESULT[op](*args)]
        if workspace := re.search(r"workspace of (\d+) bytes", str(error)):
            allocations.append(torch.empty(int(workspace[1]), dtype=torch.uint8, device=args[0].device))
        for arg in args:
            if isinstance(arg, Tensor):
                allocations.append(arg.clone(memory_format=torch.contiguous_format))


class _Function(_SingleLevelFunction):
    """torch.autograd.Function without its apply(), which would pass through every level of transforms by itself."""

    _compiled_autograd_key = staticmethod(torch.autograd.Function._compiled_autograd_key)

    if TYPE_CHECKING:  # it has one, of C

        @classmethod
        def apply(cls, *args: Any) -> Any: ...


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


class _Operator(_Function):
    """A Function that runs an operator below autograd, applied as ``apply(*tensors, sizes, keyset)``.

    It handles one level of transforms, the one whose Autograd kernel applies it. Redispatching hands the call to the
    next level, which must find the gradient modes as they were: apply() has turned them off.
    """

    op: torch._ops.OpOverload

    @classmethod
    def forward(cls, *args):
        *tensors, sizes, keyset = args
        with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True):
            return _redispatch(cls.op, keyset, (*tensors, *sizes))


class _Forward(_Operator):
    op = FORWARD

    @staticmethod
    def setup_context(ctx, inputs, output):
        input, weight, _, sizes, _ = inputs
        plan = Plan.of(sizes, input.shape, input.stride(), weight.shape, weight.stride())
        _Forward.save(ctx, input, weight, plan)
        ctx.save_for_forward(input, weight)
        ctx.output_size = output.shape

    @staticmethod
    def save(ctx, input, weight, plan):
        needs_input, needs_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(input if needs_weight else None, weight if needs_input else None)
        ctx.plan = plan

    @staticmethod
    def backward(ctx, v):
        input, weight = ctx.saved_tensors
        needs_input, needs_weight, needs_bias = needed(ctx, 3, v)
        plan = ctx.plan
        plain = not _is_grad_enabled() and is_plain(v, v if input is None else input, weight)
        if plain and needs_input and needs_weight and v.is_cuda:  # where a kernel may compute both in one pass
            formats = plan.grad_input[-1], plan.weight_format
            grads = _below_autograd(BACKWARD, v, input, weight, *plan.grad_weight[2:], needs_bias, *formats)
            return grads[0], grads[1], grads[2] if needs_bias else None, None, None
        run = _below_autograd if plain else _through_autograd
        grad_input = grad_weight = grad_bias = None
        if needs_input:
            grad_input = run(GRAD_INPUT, v, weight, *plan.grad_input)
        if needs_weight:
            grad_weight, grad_bias = run(GRAD_WEIGHT, input, v, *plan.grad_weight, needs_bias, plan.weight_format)
        elif needs_bias:
            grad_bias = v.sum((0, 2, 3))
        return grad_input, grad_weight, grad_bias if needs_bias else None, None, None

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


class _DepthwiseConv2d(_Function):
    """_Forward with no more than a training step on plain tensors needs."""

    @staticmethod
    def forward(ctx, input, weight, bias, plan):
        _Forward.save(ctx, input, weight, plan)
        return _below_autograd(FORWARD, input, weight, bias, *plan.forward)

    @staticmethod
    def backward(ctx, v):
        return _Forward.backward(ctx, v)[:4]


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


def _may_be_differentiated(args) -> bool:
    return (
        _C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or (torch.is_grad_enabled() and _C._any_requires_grad(*args))
    )


def _autograd_kernel(function: type[_Operator], tensors: int):
    """The kernel at the Autograd key of an operator whose first `tensors` arguments are tensors."""

    def kernel(keyset, *args):
        if _may_be_differentiated(args):
            # Function.apply would take the call through all levels of transforms; the dispatcher is already doing that.
            with enable_single_level_autograd_function():
                return function.apply(*args[:tensors], args[tensors:], keyset)
        return _redispatch(function.op, keyset, args)

    return kernel


_autograd_forward = _autograd_kernel(_Forward, 3)


def _forward_kernel(keyset, *args):
    """What may be differentiated is composed: the operator without an activation, then PyTorch's function."""
    if len(args) > _FORWARD_ARGUMENTS and args[-1]:
        if _may_be_differentiated(args):
            activate = activation_of(args[-1])
            return activate(FORWARD(*args[:-1]))
        return _redispatch(FORWARD, keyset, args)
    return _autograd_forward(keyset, *args[:_FORWARD_ARGUMENTS])


_library = torch.library.Library("torch_dwconv", "FRAGMENT")
_library.impl("forward", _forward_kernel, "Autograd", with_keyset=True)
_library.impl("grad_input", _autograd_kernel(_GradInput, 2), "Autograd", with_keyset=True)
_library.impl("grad_weight", _autograd_kernel(_GradWeight, 2), "Autograd", with_keyset=True)

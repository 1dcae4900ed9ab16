"""The operators of sequences: the causal depthwise convolution after the states of earlier positions.

    causal_conv1d(x, weight, bias?, initial_states?, seq_idx?, dilation, activation) -> output
    causal_conv1d_backward(grad_output, ...the same) -> grad_x, grad_weight, grad_bias, grad_states
    causal_conv1d_update(x, conv_state!, weight, bias?, cache_seqlens?, conv_state_indices?, activation) -> output

x, output and grad_output (N, C, L), of causal_conv1d_update also (N, C), which is one position; weight (C, K) and bias
(C,) in the dtype of x or, where that has 16 bits, float32;
initial_states (N, C, R) with R = (K - 1) * dilation; seq_idx (N, L) int32. `activation` is a code of ACTIVATION_CODES:
of None or "silu". The output has the order of the strides of x. grad_bias and grad_states are empty where there is no
such operand. causal_conv1d_backward is what the derivative of causal_conv1d calls, and has none itself; nor has
causal_conv1d_update. Whatever else is differentiated or transformed, and tensors on other devices than the CPU, are
composed of PyTorch's operators (composed.py).
"""

import torch
from torch import Tensor

from ..autograd import library, may_be_differentiated
from ..calls import below_autograd, counting, redispatch
from ..checks import refuse
from ..eager import Function
from ..fake import fake_kernel
from ..schemas import ACTIVATION_CODES
from .composed import composed, composed_backward, composed_update, has_kernels

_C = torch._C

CAUSAL_CONV1D = torch.ops.torch_dwconv.causal_conv1d.default
BACKWARD = torch.ops.torch_dwconv.causal_conv1d_backward.default
UPDATE = torch.ops.torch_dwconv.causal_conv1d_update.default

SILU = ACTIVATION_CODES["silu"]

library.impl("causal_conv1d", composed, "CUDA")
library.impl("causal_conv1d_backward", composed_backward, "CUDA")
library.impl("causal_conv1d_update", composed_update, "CUDA")


# ---- what fake tensors are checked for, and what comes of them ------------------------------------------------------


def _empty_rows(like: Tensor, size) -> Tensor:
    """As layout_of_rows in csrc/binding/sequence.h has them: dense, channels last where `like` is."""
    if like.stride(1) == 1 and like.stride(2) != 1:
        return like.new_empty((size[0], size[2], size[1])).transpose(1, 2)
    return like.new_empty(tuple(size))


def _check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None, activation: int) -> None:
    expected = f"weight must be ({x.shape[1]}, width)"
    refuse(weight.dim() != 2, f"{expected}, got {weight.dim()} dimensions")
    refuse(weight.shape[0] != x.shape[1], f"{expected}, got {tuple(weight.shape)}")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None:
            wide = x.dtype in (torch.bfloat16, torch.float16) and parameter.dtype == torch.float32
            refuse(parameter.dtype != x.dtype and not wide, f"{name} must have the dtype of x or be float32")
    if bias is not None:
        refuse(bias.dim() != 1 or bias.shape[0] != x.shape[1], f"bias must be ({x.shape[1]},), got {tuple(bias.shape)}")
    refuse(activation not in (0, SILU), f"activation must be 0 (none) or {SILU} (silu), got {activation}")


def _check(x, weight, bias, initial_states, seq_idx, dilation, activation) -> None:
    refuse(x.dim() != 3, f"x must have 3 dimensions, got {x.dim()}")
    _check_parameters(x, weight, bias, activation)
    refuse(dilation <= 0, f"dilation must be positive, got {dilation}")
    if initial_states is not None:
        refuse(initial_states.dtype != x.dtype, "initial_states must have the dtype of x")
        _check_sizes(initial_states, "initial_states", (*x.shape[:2], (weight.shape[1] - 1) * dilation))
    if seq_idx is not None:
        refuse(seq_idx.dtype != torch.int32, "seq_idx must be int32")
        _check_sizes(seq_idx, "seq_idx", (x.shape[0], x.shape[2]))


def _check_sizes(tensor: Tensor, name: str, wanted: tuple) -> None:
    text = f"{name} must be {wanted}, got {tuple(tensor.shape)}"
    refuse(tensor.dim() != len(wanted), text)
    for got, size in zip(tensor.shape, wanted, strict=True):
        refuse(got != size, text)


def _check_backward(grad_output, x, *rest) -> None:
    _check(x, *rest)
    _check_sizes(grad_output, "grad_output", tuple(x.shape))


def _check_update(x, conv_state, weight, bias, cache_seqlens, conv_state_indices, activation) -> None:
    refuse(x.dim() not in (2, 3), f"x must have 2 or 3 dimensions, got {x.dim()}")
    _check_parameters(x, weight, bias, activation)
    refuse(conv_state.dtype != x.dtype, "conv_state must have the dtype of x")
    refuse(conv_state.dim() != 3, f"conv_state must have 3 dimensions, got {conv_state.dim()}")
    for name, integers in (("cache_seqlens", cache_seqlens), ("conv_state_indices", conv_state_indices)):
        if integers is not None:
            refuse(integers.dtype != torch.int32, f"{name} must be int32")
            _check_sizes(integers, name, (x.shape[0],))


@fake_kernel(CAUSAL_CONV1D, _check)
def _causal_conv1d(x, *_):
    return _empty_rows(x, x.shape)


@fake_kernel(BACKWARD, _check_backward)
def _causal_conv1d_backward(grad_output, x, weight, bias, initial_states, *_):
    grad_bias = x.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    if initial_states is None:
        grad_states = x.new_empty(0)
    elif x.stride(1) == 1 and (x.stride(2) != 1 or x.shape[2] == 1):
        size = initial_states.shape
        grad_states = x.new_empty((size[0], size[2], size[1])).transpose(1, 2)
    else:
        grad_states = x.new_empty(initial_states.shape)
    return _empty_rows(x, x.shape), weight.new_empty(weight.shape), grad_bias, grad_states


@fake_kernel(UPDATE, _check_update)
def _causal_conv1d_update(x, *_):
    return x.new_empty(x.shape)


# ---- derivatives ----------------------------------------------------------------------------------------------------


class _CausalConv1d(Function):
    @staticmethod
    def forward(ctx, *args):
        *operands, keyset = args
        ctx.operands = operands[5:]
        ctx.save_for_backward(*operands[:5])
        if keyset is None:
            return below_autograd(CAUSAL_CONV1D, *operands)
        with torch.enable_grad():
            return redispatch(CAUSAL_CONV1D, keyset, operands)

    @staticmethod
    def backward(ctx, v):
        operands = ctx.saved_tensors
        needed = [
            wanted and operand is not None for wanted, operand in zip(ctx.needs_input_grad, operands, strict=False)
        ]
        if torch.is_grad_enabled():  # the gradients themselves are differentiated
            leaves = [operand for operand, wanted in zip(operands, needed, strict=True) if wanted]
            output = composed(*operands, *ctx.operands)
            found = iter(torch.autograd.grad(output, leaves, v, create_graph=True, allow_unused=True))
            grads = [next(found) if wanted else None for wanted in needed]
        else:
            x, weight, bias, states = BACKWARD(v, *operands, *ctx.operands)
            grads = [
                grad if wanted else None for grad, wanted in zip((x, weight, bias, states, None), needed, strict=True)
            ]
        return *grads, None, None, None


def _autograd_kernel(keyset, *args) -> Tensor:
    if not has_kernels(args[1].shape[-1], args[5]):
        return composed(*args)
    if may_be_differentiated(tuple(arg for arg in args if isinstance(arg, Tensor))):
        if transformed():
            return composed(*args)
        return _CausalConv1d.apply(*args, keyset)
    return redispatch(CAUSAL_CONV1D, keyset, args)


def transformed() -> bool:
    """Whether a transform of torch.func or forward mode looks on."""
    return _C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0


def _backward_kernel(keyset, *args):
    return redispatch(BACKWARD, keyset, args)


def _update_kernel(keyset, *args):
    return redispatch(UPDATE, keyset, args)


library.impl("causal_conv1d", _autograd_kernel, "Autograd", with_keyset=True)
library.impl("causal_conv1d_backward", _backward_kernel, "Autograd", with_keyset=True)
library.impl("causal_conv1d_update", _update_kernel, "Autograd", with_keyset=True)
library.impl("causal_conv1d_update", counting(UPDATE), "ADInplaceOrView", with_keyset=True)


@torch.library.register_vmap(CAUSAL_CONV1D)
def _vmap(info, in_dims, *args):
    """A call for each of the batch."""

    def at(index: int, arg, dim):
        return arg if dim is None else arg.select(dim, index)

    calls = ([at(i, arg, dim) for arg, dim in zip(args, in_dims, strict=True)] for i in range(info.batch_size))
    return torch.stack([CAUSAL_CONV1D(*call) for call in calls]), 0

"""The interface of the causal-conv1d package, on every device: the convolution of Mamba and of its relatives.

Names, arguments and their order, effects in place and layouts are those of causal-conv1d 1.6. Beyond it, any width is
taken, float64 too, and `seq_idx`, states and layouts in any combination.

>>> from torch_dwconv.causal_conv1d import causal_conv1d_fn
>>> causal_conv1d_fn(torch.randn(2, 64, 100), torch.randn(64, 4), activation="silu").shape
torch.Size([2, 64, 100])

`install()` has ``import causal_conv1d`` find this module, for packages that ask for that one.
"""

import sys

import torch
from torch import Tensor
from torch._C import _AutoDispatchBelowADInplaceOrView

from .operators.calls import below_autograd, count_write, raise_out_of_memory
from .operators.plain import PLAIN_TYPES, is_plain
from .operators.sequence import CAUSAL_CONV1D, SILU, UPDATE, transformed
from .operators.sequence import _CausalConv1d as _Function
from .operators.sequence.composed import composed, composed_update, has_kernels

__all__ = ["causal_conv1d_fn", "causal_conv1d_update", "causal_conv1d_varlen_states", "install"]

__version__ = "1.6.0"  # of the interface, which others ask for

_CODES = {None: 0, "silu": SILU, "swish": SILU}
# Looked up once: plain eager calls are counted in microseconds.
_is_grad_enabled, _is_compiling = torch.is_grad_enabled, torch.compiler.is_compiling


def causal_conv1d_fn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    seq_idx: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    final_states_out: Tensor | None = None,
    activation: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """The causal depthwise convolution of sequences: each result is a weighted sum of its position and those before.

    Differentiable, to any order, in `x`, `weight`, `bias` and `initial_states`, also through the final states.

    Args:
        x: (batch, dim, seqlen), contiguous or a transposed (batch, seqlen, dim); other strides are copied.
        weight: (dim, width), the last tap that of the position itself. It and `bias` have the dtype of `x` or float32.
        bias: (dim,).
        seq_idx: (batch, seqlen) int32, which sequence a position belongs to: numbers that do not decrease along a row.
            No result looks at another sequence. Where the number is negative, the result is zero.
        initial_states: (batch, dim, width - 1), the positions before the first, of the first sequence; default zeros.
        return_final_states: whether to return the last width - 1 positions too, for the next call. Those of another
            sequence than the last are zero.
        final_states_out: (batch, dim, width - 1), what the final states are written to.
        activation: None, "silu" or "swish", which are the same.

    Returns:
        The output, (batch, dim, seqlen) with the strides' order and the dtype of `x`; with `return_final_states` also
        the final states, (batch, dim, width - 1).

    Raises:
        NotImplementedError: another `activation`.
        RuntimeError: sizes, dtypes or devices that do not fit, numbers of sequences that decrease.
    """
    output = convolve(x, weight, bias, initial_states, seq_idx, 1, _code(activation))
    if not return_final_states:
        return output
    states = final_states(x, weight.shape[1] - 1, initial_states, seq_idx)
    if final_states_out is not None:
        if final_states_out.shape != states.shape or final_states_out.dtype != x.dtype:
            raise RuntimeError(
                f"torch_dwconv: final_states_out must be {tuple(states.shape)} and of the dtype of x, got "
                f"{tuple(final_states_out.shape)}, {final_states_out.dtype}"
            )
        states = final_states_out.copy_(states)
    return output, states


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dilation: int,
    code: int,
) -> Tensor:
    """The output of `causal_conv1d_fn` with a dilation, of which initial_states has that many times the positions.

    `code` is the activation's, one of _CODES.
    """
    if weight.dtype != x.dtype:
        weight = _parameter(weight, x)
    if bias is not None and bias.dtype != x.dtype:
        bias = _parameter(bias, x)
    args = (x, weight, bias, initial_states, seq_idx, dilation, code)
    if weight.dim() == 2 and not has_kernels(weight.shape[1], dilation):
        return composed(*args)
    if is_plain(x, weight, bias) and (initial_states is None or is_plain(initial_states, weight)) and x.is_cpu:
        needs = (
            x.requires_grad
            or weight.requires_grad
            or (bias is not None and bias.requires_grad)
            or (initial_states is not None and initial_states.requires_grad)
        )
        differentiated = _is_grad_enabled() and needs
        return _Function.apply(*args, None) if differentiated else below_autograd(CAUSAL_CONV1D, *args)
    return CAUSAL_CONV1D(*args)


def _code(activation: str | None) -> int:
    if activation not in _CODES:
        raise NotImplementedError(f"activation must be None, silu, or swish, got {activation!r}")
    return _CODES[activation]


def _parameter(parameter: Tensor, x: Tensor) -> Tensor:
    """A weight or bias of another dtype than x: as it is where the kernels take it, else in the dtype of x."""
    if not x.is_floating_point() or not parameter.is_floating_point():
        raise RuntimeError(f"torch_dwconv: weight and bias must be floating-point as x, got {parameter.dtype}")
    if x.element_size() == 2:
        return parameter.float()
    return parameter.to(x.dtype)


def final_states(x: Tensor, reach: int, initial_states: Tensor | None, seq_idx: Tensor | None) -> Tensor:
    """The last `reach` positions of the states and x, dense in the order of the strides of x."""
    length = x.shape[2]
    if not isinstance(length, int):  # of a graph, which has to be right at lengths on both sides of `reach`
        before = x.new_zeros((*x.shape[:2], reach)) if initial_states is None else initial_states
        states = torch.cat([before, x], 2)[:, :, length:]
    else:
        states = x[:, :, max(length - reach, 0) :]
    if states.shape[2] < reach:
        if initial_states is None:
            states = torch.nn.functional.pad(states, (reach - length, 0))
        else:
            states = torch.cat([initial_states[:, :, length:], states], 2)
    if seq_idx is not None and length:
        numbers = seq_idx[:, max(length - reach, 0) :]
        numbers = torch.cat([seq_idx[:, :1].expand(-1, max(reach - length, 0)), numbers], 1)
        last = seq_idx[:, -1:]
        states = torch.where(((numbers == last) & (last >= 0))[:, None], states, 0)
    if x.stride(1) == 1 and x.stride(2) != 1:
        return states.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
    return states.clone(memory_format=torch.contiguous_format)


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    cache_seqlens: Tensor | None = None,
    conv_state_indices: Tensor | None = None,
) -> Tensor:
    """New positions of sequences that are under way: a step of decoding. Writes to `conv_state`; has no derivative.

    Args:
        x: (batch, dim) or (batch, dim, seqlen), the new positions.
        conv_state: (batch or more, dim, state_len) with state_len >= width - 1 and any strides, in the dtype of `x`:
            the positions so far. It is shifted, so that the new ones are the last. No two of its elements share memory.
        weight: (dim, width). It and `bias` have the dtype of `x` or float32.
        bias: (dim,).
        activation: None, "silu" or "swish".
        cache_seqlens: (batch,) int32: `conv_state` is a ring, and new positions are written from
            ``cache_seqlens % state_len`` on.
        conv_state_indices: (batch,) int32, which row of `conv_state` each sequence has, no row twice. A negative one is
            padding: the output is zero, and nothing is written.

    Returns:
        The output, of the sizes and the dtype of `x`.

    Raises:
        NotImplementedError: another `activation`.
        RuntimeError: sizes, dtypes or devices that do not fit, rows that do not exist or come twice, shared memory.
            Nothing has been written then.
    """
    code = _code(activation)
    dtype = x.dtype
    if weight.dtype != dtype:
        weight = _parameter(weight, x)
    if bias is not None and bias.dtype != dtype:
        bias = _parameter(bias, x)
    if _is_plain_step(x, conv_state, weight, bias):
        try:
            with _AutoDispatchBelowADInplaceOrView():
                output = UPDATE._op(x, conv_state, weight, bias, cache_seqlens, conv_state_indices, code)
        except RuntimeError as error:
            if not _is_too_wide(weight):
                raise_out_of_memory(error, UPDATE, (x, conv_state, weight, bias))
                raise
        else:
            count_write(conv_state)
            return output
    args = (x, conv_state, weight, bias, cache_seqlens, conv_state_indices, code)
    return composed_update(*args) if transformed() or _is_too_wide(weight) else UPDATE(*args)


def _is_plain_step(x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing looks on that would mind a call below autograd.

    There is no derivative, so that modes, tracers and other devices, which come after autograd, may look on: it takes
    less than is_plain (plain.py).
    """
    return (
        type(x) in PLAIN_TYPES
        and type(conv_state) in PLAIN_TYPES
        and type(weight) in PLAIN_TYPES
        and (bias is None or type(bias) in PLAIN_TYPES)
        and not transformed()
        and not _is_compiling()
    )


def _is_too_wide(weight: Tensor) -> bool:
    return weight.dim() == 2 and not has_kernels(weight.shape[1], 1)


def causal_conv1d_varlen_states(x: Tensor, cu_seqlens: Tensor, state_len: int) -> Tensor:
    """The last `state_len` positions of sequences that lie one behind the other, for `causal_conv1d_update`.

    Args:
        x: (total_tokens, dim).
        cu_seqlens: (sequences + 1,) integers that do not decrease, from 0 to total_tokens: where each sequence begins,
            and the last one ends.
        state_len (int): at least 0.

    Returns:
        (sequences, dim, state_len) with dim closest together, zeros before the first position of a sequence.

    Raises:
        RuntimeError: sizes or integers that do not fit.
    """
    if x.dim() != 2 or cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64) or state_len < 0:
        raise RuntimeError(
            "torch_dwconv: x must be (total_tokens, dim), cu_seqlens (sequences + 1,) integers and state_len not "
            f"negative, got {tuple(x.shape)}, {tuple(cu_seqlens.shape)} {cu_seqlens.dtype}, {state_len}"
        )
    begins, ends = cu_seqlens[:-1].long(), cu_seqlens[1:].long()
    if x.is_cpu and not torch.compiler.is_compiling() and not transformed():
        bounds = cu_seqlens.tolist()
        if not bounds or bounds[0] != 0 or bounds[-1] != x.shape[0] or bounds != sorted(bounds):
            raise RuntimeError(
                f"torch_dwconv: cu_seqlens must go from 0 to {x.shape[0]} and not decrease, got {bounds}"
            )
    places = ends[:, None] + torch.arange(-state_len, 0, device=x.device)
    inside = places >= begins[:, None]
    if not x.shape[0]:
        return x.new_zeros((len(begins), state_len, x.shape[1])).transpose(1, 2)
    states = x[places.clamp(min=0)]
    return torch.where(inside[:, :, None], states, 0).transpose(1, 2)


def install(force: bool = False) -> None:
    """Has ``import causal_conv1d`` find this module in this process, so that packages which ask for it find it here.

    Call it before they are imported: transformers and mamba-ssm look once. It also answers those that look for the
    module without importing it, by importlib.util.find_spec.

    Args:
        force: whether to take the place of the package itself where that is imported already.

    Raises:
        RuntimeError: the package itself is imported, and `force` is false.
    """
    module = sys.modules[__name__]
    present = sys.modules.get("causal_conv1d")
    if present is not None and present is not module and not force:
        raise RuntimeError("causal_conv1d is imported already: call install() first, or install(force=True)")
    for name in ("causal_conv1d", "causal_conv1d.causal_conv1d_interface", "causal_conv1d.causal_conv1d_varlen"):
        sys.modules[name] = module

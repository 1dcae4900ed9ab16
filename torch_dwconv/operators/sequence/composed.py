"""The operators of sequences in PyTorch's own: what they mean, and what is differentiated twice or transformed."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..checks import refuse
from ..schemas import FORWARD

# What the kernels of csrc/cpu/sequence are for: kMostTaps and kMostReach in csrc/kernel.h.
_MOST_TAPS, _MOST_REACH = 64, 512
_WIDE = {torch.bfloat16: torch.float32, torch.float16: torch.float32}


def has_kernels(width: int, dilation: int) -> bool:
    """Whether the operators compute this many taps on the CPU; if not, they are composed."""
    return width <= _MOST_TAPS and (width - 1) * dilation <= _MOST_REACH


def composed(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dilation: int,
    activation: int,
) -> Tensor:
    """The operator `causal_conv1d` (sequence/__init__.py), differentiable in every tensor, to any order."""
    width, length = weight.shape[1], x.shape[2]
    reach = (width - 1) * dilation
    wide = _WIDE.get(x.dtype, x.dtype)
    values, taps = x.to(wide), weight.to(wide)
    before = x.new_zeros((*x.shape[:2], reach)) if initial_states is None else initial_states
    values = torch.cat([before.to(wide), values], 2)
    if seq_idx is None and width > 8 and x.is_cpu:  # as a layer of one row, which has kernels for any number of taps
        geometry = (1, length, 1, 1, 0, 0, 1, dilation)
        output = FORWARD(values[:, :, None], taps[:, None, None], None, *geometry, False).squeeze(2)
    elif seq_idx is None:
        output = sum(taps[:, k, None] * values[:, :, k * dilation : k * dilation + length] for k in range(width))
    else:
        output = torch.zeros_like(values[:, :, reach:])
        numbers = torch.cat([seq_idx[:, :1].expand(-1, reach), seq_idx], 1)
        for k in range(width):
            source = slice(k * dilation, k * dilation + length)
            same = (numbers[:, source] == seq_idx)[:, None]
            output = output + torch.where(same, taps[:, k, None] * values[:, :, source], 0)
    if bias is not None:
        output = output + bias.to(wide)[:, None]
    if activation:
        output = F.silu(output)
    if seq_idx is not None:
        output = torch.where((seq_idx >= 0)[:, None], output, 0)
    return laid_out_as(x, output.to(x.dtype))


def laid_out_as(x: Tensor, output: Tensor) -> Tensor:
    """The output, dense in the order of the strides of x."""
    if x.stride(1) == 1 and x.stride(2) != 1:
        return output.transpose(1, 2).contiguous().transpose(1, 2)
    return output.contiguous()


def composed_backward(
    grad_output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    seq_idx: Tensor | None,
    dilation: int,
    activation: int,
) -> tuple[Tensor, ...]:
    """The operator `causal_conv1d_backward`."""
    with torch.enable_grad():
        own_x, own_weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        own_bias, own_states = (None if t is None else t.detach().requires_grad_() for t in (bias, initial_states))
        leaves = (own_x, own_weight, own_bias, own_states)
        output = composed(own_x, own_weight, own_bias, own_states, seq_idx, dilation, activation)
        wanted = [leaf for leaf in leaves if leaf is not None]
        grads = iter(torch.autograd.grad(output, wanted, grad_output))
    return tuple(x.new_empty(0) if leaf is None else next(grads).contiguous() for leaf in leaves)


def composed_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    cache_seqlens: Tensor | None,
    conv_state_indices: Tensor | None,
    activation: int,
) -> Tensor:
    """The operator `causal_conv1d_update`: writes to conv_state."""
    if x.dim() == 2:
        rest = (weight, bias, cache_seqlens, conv_state_indices, activation)
        return composed_update(x.unsqueeze(2), conv_state, *rest).squeeze(2)
    refuse(x.dim() != 3, f"x must have 2 or 3 dimensions, got {x.dim()}")
    batch, channels, count = x.shape
    reach = weight.shape[1] - 1
    fits = conv_state.dim() == 3 and conv_state.shape[1] == channels and conv_state.shape[2] >= reach
    refuse(
        not fits or (conv_state_indices is None and conv_state.shape[0] < batch),
        f"conv_state must be ({batch} or more, {channels}, {reach} or more), got {tuple(conv_state.shape)}",
    )
    length = conv_state.shape[2]
    rows = torch.arange(batch, device=x.device) if conv_state_indices is None else conv_state_indices.long()
    real = rows >= 0
    state = conv_state[rows.clamp(min=0)]
    if cache_seqlens is None:
        before = state[:, :, length - reach :]
        updated = torch.cat([state, x], 2)[:, :, count:]
    else:
        begins = cache_seqlens.long()[:, None]
        places = torch.remainder(begins + torch.arange(-reach, 0, device=x.device), length)
        before = state.gather(2, places[:, None].expand(-1, channels, -1))
        last = min(count, length)  # positions that no later one replaces
        places = torch.remainder(begins + torch.arange(count - last, count, device=x.device), length)
        updated = state.scatter(2, places[:, None].expand(-1, channels, -1), x[:, :, count - last :])
    output = composed(x.contiguous(), weight, bias, before, None, 1, activation)
    conv_state[rows[real]] = updated[real]
    return torch.where(real[:, None, None], output, 0)

"""Causal 1-D layers after the states of earlier positions, so that a long sequence may come piece by piece."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.utils import _single

from ..causal_conv1d import convolve, final_states
from ..functional.dispatch import autocast, native_reason
from ..operators.schemas import ACTIVATION_CODES, ACTIVATIONS
from .options import check_row

_FUSED = (None, "silu")  # the activations that the operator computes


def convolve_after(
    layer: nn.Conv1d,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_states: Tensor | None,
    return_final_states: bool,
):
    """The output of a causal layer, or (output, final states). Initial states that are None are zeros.

    Raises:
        RuntimeError: the layer is not causal, or the tensors do not fit it.
        TypeError: initial states that are no tensor.
    """
    reach = _reach(layer)
    activation: str | None = layer.activation  # type: ignore[assignment]  # mypy knows attributes of nn.Conv1d only
    if isinstance(input, torch.fx.Proxy) or torch.jit.is_tracing():
        return _composed(layer, input, weight, bias, initial_states, reach, return_final_states, activation)
    _check_tensors(layer, input, weight, initial_states, reach)
    input, weight, bias = autocast(input), autocast(weight), autocast(bias)
    if initial_states is not None:
        initial_states = autocast(initial_states)
        if initial_states.dtype != input.dtype or initial_states.device != input.device:
            raise RuntimeError(
                f"initial_states must be {input.dtype} on {input.device} as input is, got {initial_states.dtype} on "
                f"{initial_states.device}"
            )
    states_reason = None if initial_states is None else native_reason(initial_states, weight)
    if states_reason or native_reason(input, weight, bias):
        return _composed(layer, input, weight, bias, initial_states, reach, return_final_states, activation)
    single = input.dim() == 2
    if single:
        input, initial_states = input.unsqueeze(0), None if initial_states is None else initial_states.unsqueeze(0)
    input = input.contiguous()  # as in a call without states
    code = ACTIVATION_CODES[activation] if activation in _FUSED else 0
    output = convolve(input, weight.squeeze(1), bias, initial_states, None, _single(layer.dilation)[0], code)
    if activation not in _FUSED:
        output = ACTIVATIONS[activation](output)
    output = output.squeeze(0) if single else output
    if not return_final_states:
        return output
    states = final_states(input, reach, initial_states, None)
    return output, states.squeeze(0) if single else states


@torch.fx.wrap
def without_states(input: Tensor, initial_states: Tensor | None, return_final_states: bool) -> Tensor:
    """The input. In the trace of a layer by itself, whose arguments nobody knows: it is of a call without states."""
    if initial_states is not None or return_final_states:
        raise RuntimeError("this layer was traced without states: trace a module that calls it with them")
    return input


def _reach(layer: nn.Conv1d) -> int:
    """How many positions before its own a result depends on."""
    reach = _single(layer.dilation)[0] * (layer.kernel_size[0] - 1)
    if isinstance(layer.padding, str):
        sides = (reach // 2, reach - reach // 2) if layer.padding == "same" else (0, 0)
    else:
        padding = _single(layer.padding)
        sides = (padding[0], padding[-1])
    causal = sides == (reach, 0) and _single(layer.stride)[0] == 1 and layer.padding_mode == "zeros"
    if not causal or not layer.groups == layer.in_channels == layer.out_channels:
        raise RuntimeError(
            "initial_states and return_final_states are for causal layers: zeros as padding=(dilation * (kernel_size - "
            f"1), 0), a stride of 1, out_channels=in_channels; got {layer}"
        )
    return reach


def _check_tensors(layer: nn.Conv1d, input: Tensor, weight: Tensor, states: Tensor | None, reach: int) -> None:
    check_row(input)
    if input.shape[-2] != layer.in_channels:
        raise RuntimeError(f"input must have {layer.in_channels} channels, got {tuple(input.shape)}")
    expected = (layer.in_channels, 1, *layer.kernel_size)
    if weight.shape != expected:
        raise RuntimeError(f"weight must be {expected}, as the layer's attributes say, got {tuple(weight.shape)}")
    if states is None:
        return
    if not hasattr(type(states), "__torch_function__"):
        raise TypeError(f"initial_states must be a tensor or None, got {type(states).__name__}")
    expected = (*input.shape[:-1], reach)
    if states.shape != expected:
        raise RuntimeError(f"initial_states must be {expected}, got {tuple(states.shape)}")


def _composed(layer, input, weight, bias, initial_states, reach: int, return_final_states: bool, activation):
    """In PyTorch's functions, for what the operator does not take: what is traced, and other kinds of tensors."""
    sequence = F.pad(input, (reach, 0)) if initial_states is None else torch.cat([initial_states, input], -1)
    output = F.conv1d(sequence, weight, bias, 1, 0, layer.dilation, layer.groups)
    if activation is not None:
        output = ACTIVATIONS[activation](output)
    if not return_final_states:
        return output
    return output, (sequence[..., -reach:] if reach else sequence[..., :0]).clone()

"""batch_norm_act: BatchNorm and the activation behind it, as one operator forward and one backward."""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import handle_torch_function

from ..operators.batch_norm import BATCH_NORM, BATCH_NORM_EVAL, parameter_dtype
from ..operators.batch_norm.autograd import BatchNorm, BatchNormEval
from ..operators.calls import below_autograd
from ..operators.formats import suggests_channels_last
from ..operators.plain import is_plain
from ..operators.schemas import ACTIVATION_CODES, ACTIVATIONS, DTYPES
from . import rules, scripted
from .dispatch import opaque_reason
from .tracing import is_symbolic


def batch_norm_act(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: str | None = None,
) -> Tensor:
    """`F.batch_norm` followed by an activation, which saves the input and numbers of channels for the backward pass.

    The sums are float32 for 16-bit dtypes. What is not (N, C, H, W) in float32, float64, bfloat16 or float16 on a CPU
    is computed by F.batch_norm and the activation, and so is what torch.export captures and what torch.compile compiles
    without statistics of the batch: there the two become part of the convolution or of the loops around them.

    Args:
        input: (N, C, H, W).
        running_mean, running_var: (C,), or None with `training`; updated in place with it.
        weight, bias: (C,), or None.
        training: use the mean and the variance of the batch.
        momentum: share of the batch's in the new running ones.
        eps: is added to the variance.
        activation: None or one of relu, relu6, hardswish, silu, gelu, gelu_tanh.

    Returns:
        (N, C, H, W), in the dtype and memory format of the input.

    Raises:
        ValueError: there is no such activation; one value per channel in training.
        RuntimeError: as F.batch_norm.
    """
    tensors = (input, running_mean, running_var, weight, bias)
    if is_symbolic(*tensors):
        return handle_torch_function(batch_norm_act, tensors, *tensors, training, momentum, eps, activation)
    rules.check_activation(activation)
    if not _is_ours(input, running_mean, running_var, weight, bias, training):
        output = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return output if activation is None else ACTIVATIONS[activation](output)
    dtype = parameter_dtype(input)
    weight = weight if weight is None or weight.dtype == dtype else weight.to(dtype)
    bias = bias if bias is None or bias.dtype == dtype else bias.to(dtype)
    options = eps, ACTIVATION_CODES[activation], suggests_channels_last(input)
    if not training:
        mean, variance = (tensor.to(dtype) for tensor in (cast(Tensor, running_mean), cast(Tensor, running_var)))
        return _run(BATCH_NORM_EVAL, BatchNormEval, input, weight, bias, mean, variance, options)
    output, mean, variance = _run(BATCH_NORM, BatchNorm, input, weight, bias, options)
    if running_mean is not None and running_var is not None:
        count = input.numel() // input.shape[1]
        with torch.no_grad():
            _move(running_mean, mean, momentum)
            _move(running_var, variance * (count / (count - 1)), momentum)
    return output


batch_norm_act.__prepare_scriptable__ = lambda: scripted.batch_norm_act  # type: ignore[attr-defined]


def _run(op, function, input, weight, bias, *rest):
    """By the shortest way for plain tensors, by the dispatcher for others."""
    *statistics, options = rest
    if is_plain(input, input if weight is None else weight, bias) and all(is_plain(s, s) for s in statistics):
        if torch.is_grad_enabled() and torch._C._any_requires_grad(input, weight, bias, *statistics):
            if not any(s.requires_grad for s in statistics):
                return function.apply(input, weight, bias, *rest, below_autograd)
        else:
            return below_autograd(op, input, weight, bias, *statistics, *options)
    return op(input, weight, bias, *statistics, *options)


def _move(running: Tensor, of_batch: Tensor, momentum: float) -> None:
    """(1 - momentum) * running + momentum * of_batch, in place."""
    if running.dtype == of_batch.dtype:
        running.lerp_(of_batch, momentum)
    else:
        running.copy_(running.to(of_batch.dtype).lerp(of_batch, momentum))


def _is_ours(input, running_mean, running_var, weight, bias, training: bool) -> bool:
    """Whether the operators take this call; F.batch_norm says what is wrong with one that nobody takes."""
    of_channels = [tensor for tensor in (running_mean, running_var, weight, bias) if tensor is not None]
    if any(opaque_reason(input, tensor) for tensor in of_channels) or opaque_reason(input, input):
        return False
    if torch.compiler.is_exporting() or (torch.compiler.is_compiling() and not training):
        return False
    if input.dim() != 4 or input.dtype not in DTYPES or (running_mean is None) != (running_var is None):
        return False
    if running_mean is None and not training:
        return False
    channels = input.shape[1]
    same = {tensor.dtype for tensor in of_channels}
    return (
        not same - {input.dtype, parameter_dtype(input)}
        and len(same) <= 1
        and all(tensor.is_cpu and tensor.layout == torch.strided for tensor in (input, *of_channels))
        and all(tensor.dim() == 1 and tensor.shape[0] == channels for tensor in of_channels)
        and all(tensor.is_contiguous() for tensor in of_channels)
        and bool(input.numel() > channels)
    )

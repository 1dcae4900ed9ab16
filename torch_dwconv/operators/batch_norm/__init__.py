"""The operators of BatchNorm with the activation behind it, for training.

    batch_norm(input, weight?, bias?, epsilon, activation, channels_last) -> output, mean, variance
    batch_norm_eval(input, weight?, bias?, mean, variance, epsilon, activation, channels_last) -> output
    batch_norm_backward(grad_output, input, weight?, bias?, mean, variance, epsilon, activation, of_batch,
        wants_input, wants_parameters, channels_last) -> grad_input, grad_weight, grad_bias

input, output and their gradients (N, C, H, W) with N, H and W above 0, all else (C,), float32 where the input has 16
bits and of its dtype otherwise. variance divides by N*H*W. `activation` is a code of schemas.ACTIVATION_CODES and
`channels_last` the memory format of the result. batch_norm has mean and variance of the batch, through which
batch_norm_backward differentiates if `of_batch`; batch_norm_eval takes them as they are given. Gradients that are not
wanted are empty. What a transform differentiates, and second derivatives, are composed of PyTorch's operators
(composed.py).
"""

import torch
from torch import Tensor

from ..autograd import library
from ..checks import check_dtype, check_operand, check_size, refuse
from ..fake import fake_kernel
from ..schemas import activation_of
from ..vmap import fold, unfold
from . import composed

BATCH_NORM = torch.ops.torch_dwconv.batch_norm.default
BATCH_NORM_EVAL = torch.ops.torch_dwconv.batch_norm_eval.default
BATCH_NORM_BACKWARD = torch.ops.torch_dwconv.batch_norm_backward.default

for _name in ("batch_norm", "batch_norm_eval", "batch_norm_backward"):
    library.impl(_name, getattr(composed, _name), "CUDA")


def parameter_dtype(input) -> torch.dtype:
    """The dtype of weight, bias, mean and variance."""
    return torch.float64 if input.dtype == torch.float64 else torch.float32


def _empty(input, channels_last: bool):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty_like(input, memory_format=memory_format)


def _of_channels(input, size):
    return torch.empty((size,), dtype=parameter_dtype(input), device=input.device)


def _check(input, activation: int, **of_channels) -> None:
    check_operand("input", input, input, 4)
    check_dtype(input, input.shape)
    activation_of(activation)
    for name, tensor in of_channels.items():
        if tensor is None:
            continue
        fits = tensor.dim() == 1 and tensor.dtype == parameter_dtype(input)
        channels = input.shape[1]
        refuse(
            not fits or tensor.shape[0] != channels,
            f"{name} must be ({channels},), contiguous, and float32 or as float64 as the input",
        )


def _check_batch_norm(input, weight, bias, epsilon, activation, channels_last) -> None:
    _check(input, activation, weight=weight, bias=bias)
    refuse(input.numel() == 0, "nothing has a mean where input has no elements")


def _check_eval(input, weight, bias, mean, variance, epsilon, activation, channels_last) -> None:
    _check(input, activation, weight=weight, bias=bias, mean=mean, variance=variance)


def _check_backward(grad_output, input, weight, bias, mean, variance, epsilon, activation, *rest) -> None:
    _check(input, activation, weight=weight, bias=bias, mean=mean, variance=variance)
    check_operand("grad_output", grad_output, input, 4)
    check_size("grad_output", grad_output, tuple(input.shape))
    refuse(input.numel() == 0, "nothing has a gradient where input has no elements")


@fake_kernel(BATCH_NORM, _check_batch_norm)
def _batch_norm(input, weight, bias, epsilon, activation, channels_last):
    channels = input.shape[1]
    return _empty(input, channels_last), _of_channels(input, channels), _of_channels(input, channels)


@fake_kernel(BATCH_NORM_EVAL, _check_eval)
def _batch_norm_eval(input, weight, bias, mean, variance, epsilon, activation, channels_last):
    return _empty(input, channels_last)


@fake_kernel(BATCH_NORM_BACKWARD, _check_backward)
def _batch_norm_backward(grad_output, input, weight, bias, mean, variance, epsilon, activation, *rest):
    _, wants_input, wants_parameters, channels_last = rest
    grad_input = _empty(input, channels_last) if wants_input else input.new_empty(0)
    channels = input.shape[1] if wants_parameters else 0
    return grad_input, _of_channels(input, channels), _of_channels(input, channels)


def _register_vmap(op, of_images: int, of_channels: int) -> None:
    """Channels do not mix: a batch of problems is one with the batch folded into the channels.

    The operator takes so many tensors that have images, and then so many that have a number for each channel.
    """
    tensors = of_images + of_channels

    @torch.library.register_vmap(op)
    def batched(info, in_dims, *args):
        axes = (1,) * of_images + (0,) * of_channels
        operands = [
            None if tensor is None else fold(tensor, dim, info.batch_size, axis)
            for tensor, dim, axis in zip(args, in_dims, axes, strict=False)
        ]
        results = op(*operands, *args[tensors:])
        if isinstance(results, Tensor):
            return unfold(results, info.batch_size, 1), 1
        dims = [1 if result.dim() == 4 else 0 for result in results]
        return tuple(unfold(result, info.batch_size, dim) for result, dim in zip(results, dims, strict=True)), (*dims,)


_register_vmap(BATCH_NORM, 1, 2)
_register_vmap(BATCH_NORM_EVAL, 1, 4)
_register_vmap(BATCH_NORM_BACKWARD, 2, 4)

from . import autograd  # noqa: E402, F401  (the kernels at the Autograd key, which need the operators)

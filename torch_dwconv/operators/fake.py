"""Fake kernels: what the operators check and return for tensors without values, in torch.compile and torch.export."""

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from . import checks
from .schemas import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT, activation_of


def _empty(like: Tensor, size: tuple[int, ...], channels_last: bool = False) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)


FAKE_KERNEL: dict[torch._ops.OpOverload, Callable] = {}
EMPTY_RESULT: dict[torch._ops.OpOverload, Callable] = {}  # what each operator allocates for its result


@functools.cache
def _register_lowerings() -> None:
    from ..compile import lowerings

    lowerings.register()


def fake_kernel(op, check):
    """Registers a fake kernel: `check`, then the result. It tells Inductor about the operators once that is loaded.

    Every graph that Inductor compiles has been traced with fake tensors after Inductor was imported. So its lowerings
    are in time here, and a program that does not compile never waits for that import.
    """

    def register(empty):
        @functools.wraps(empty)
        def fake(*args):
            devices = {tensor.device for tensor in args if isinstance(tensor, Tensor)}
            if len(devices) > 1:  # with one operand on meta this runs, and would return memory that nobody has written
                raise RuntimeError(f"torch_dwconv: operands must be on one device, got {sorted(map(str, devices))}")
            check(*args)
            if "torch._inductor.lowering" in sys.modules:
                _register_lowerings()
            return empty(*args)

        torch.library.register_fake(op, fake)
        FAKE_KERNEL[op], EMPTY_RESULT[op] = fake, empty
        return empty

    return register


@fake_kernel(FORWARD, checks.check_forward)
def _forward(input, weight, bias, out_h, out_w, *rest):
    *_, channels_last, activation = rest if len(rest) == 8 else (*rest, 0)
    activation_of(activation)
    return _empty(input, (input.shape[0], weight.shape[0], out_h, out_w), channels_last)


@fake_kernel(GRAD_INPUT, checks.check_grad_input)
def _grad_input(grad_output, weight, in_channels, in_h, in_w, *geometry_and_format):
    return _empty(grad_output, (grad_output.shape[0], in_channels, in_h, in_w), geometry_and_format[-1])


@fake_kernel(GRAD_WEIGHT, checks.check_grad_weight)
def _grad_weight(input, grad_output, kernel_h, kernel_w, *geometry_and_format):
    *_, with_bias, channels_last = geometry_and_format
    out_channels = grad_output.shape[1]
    grad_weight = _empty(input, (out_channels, 1, kernel_h, kernel_w), channels_last)
    return grad_weight, _empty(input, (out_channels if with_bias else 0,))


@fake_kernel(BACKWARD, checks.check_backward)
def _backward(grad_output, input, weight, *geometry_and_formats):
    *_, with_bias, channels_last, weight_channels_last = geometry_and_formats
    grad_bias = _empty(input, (weight.shape[0] if with_bias else 0,))
    return _empty(input, input.shape, channels_last), _empty(input, weight.shape, weight_channels_last), grad_bias

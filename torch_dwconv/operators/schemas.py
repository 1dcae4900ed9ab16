"""The operators for everything but numbers: fake kernels, batching rules, and one rule for memory formats.

    forward(input, weight, bias?, out_h, out_w, *geometry, channels_last, activation=0) -> output
    grad_input(grad_output, weight, in_channels, in_h, in_w, *geometry, channels_last) -> grad_input
    grad_weight(input, grad_output, kernel_h, kernel_w, *geometry, with_bias, channels_last) -> grad_weight, grad_bias
    backward(grad_output, input, weight, *geometry, with_bias, channels_last, weight_channels_last)
        -> grad_input, grad_weight, grad_bias

input (N, C, H, W), weight (C*M, 1, kernel_h, kernel_w), bias (C*M,), output and grad_output (N, C*M, out_h, out_w);
geometry is stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w. Output row oh reads the input rows
oh*stride_h + kh*dilation_h - pad_top; rows outside the input are zero, so padding at the bottom is whatever out_h
reaches. `channels_last` is the memory format of the result. `activation` is one of ACTIVATION_CODES, what forward does
to its sums, bias included, before it rounds them. grad_bias is empty unless `with_bias`. backward is what the
derivative of forward calls on plain CUDA tensors: it returns what the two gradients would, by one kernel where there is
one for both, and has neither a derivative nor a batching rule; `weight_channels_last` is the format of grad_weight.

The schemas and CPU kernels are in csrc/binding/ops.cpp, the derivatives in autograd.py.
"""

import functools
import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from . import checks, native  # noqa: F401  (loading the library defines the operators)

FORWARD = torch.ops.torch_dwconv.forward.default
GRAD_INPUT = torch.ops.torch_dwconv.grad_input.default
GRAD_WEIGHT = torch.ops.torch_dwconv.grad_weight.default
BACKWARD = torch.ops.torch_dwconv.backward.default
GEOMETRY = ("stride_h", "stride_w", "pad_top", "pad_left", "dilation_h", "dilation_w")

# PyTorch's functions by our names for them, in the order of enum Activation in csrc/kernel.h, which begins with none.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
ACTIVATION_CODES = {None: 0} | {name: code for code, name in enumerate(ACTIVATIONS, 1)}


def activation_of(code: int):
    """PyTorch's function for an operator's `activation`, None for 0.

    Raises:
        RuntimeError: there is no such code.
    """
    if not 0 <= code <= len(ACTIVATIONS):
        raise RuntimeError(f"torch_dwconv: activation must be 0 (none) to {len(ACTIVATIONS)}, got {code}")
    return (None, *ACTIVATIONS.values())[code]


def suggests_channels_last(tensor: Tensor) -> bool:
    """Whether the strides of a 4-D tensor say channels_last: c10's is_channels_last_strides_2d, which F.conv2d follows.

    Strides decide, those of dimensions of size 1 too, where is_contiguous() would call both formats true: a tensor of
    size (N, C, 1, 1) is channels_last after .to(memory_format=torch.channels_last) and not before.
    """
    return strides_suggest_channels_last(tensor.shape, tensor.stride())


def strides_suggest_channels_last(shape, strides) -> bool:
    """suggests_channels_last for a tensor of this size and these strides."""
    stride_n, stride_c, stride_h, stride_w = strides
    _, channels, height, width = shape
    return (
        is_surely(channels * stride_c <= stride_w)  # first, because it settles the contiguous case
        and is_surely(stride_c != 0)
        and not any(is_surely(size == 0) for size in shape)
        and is_surely(width * stride_w <= stride_h)
        and is_surely(height * stride_h <= stride_n)
        and not is_surely(height * stride_h == stride_c)  # of (N, 1, 1, 1) the strides say nothing
    )


def is_surely(condition) -> bool:
    """Whether a condition holds; of sizes that are known only when a captured program runs, for all of them."""
    if condition is True or condition is False:
        return condition
    from torch.fx.experimental.symbolic_shapes import guard_or_false  # imports SymPy

    return guard_or_false(condition)


def _empty(like: Tensor, size: tuple[int, ...], channels_last: bool = False) -> Tensor:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=memory_format)


FAKE_KERNEL: dict[torch._ops.OpOverload, Callable] = {}


@functools.cache
def _register_lowerings() -> None:
    from ..compile import lowerings

    lowerings.register()


def _fake(op, check):
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
        FAKE_KERNEL[op] = fake
        return empty

    return register


@_fake(FORWARD, checks.check_forward)
def empty_forward(input, weight, bias, out_h, out_w, *rest):
    *_, channels_last, activation = rest if len(rest) == 8 else (*rest, 0)
    activation_of(activation)
    return _empty(input, (input.shape[0], weight.shape[0], out_h, out_w), channels_last)


@_fake(GRAD_INPUT, checks.check_grad_input)
def empty_grad_input(grad_output, weight, in_channels, in_h, in_w, *geometry_and_format):
    return _empty(grad_output, (grad_output.shape[0], in_channels, in_h, in_w), geometry_and_format[-1])


@_fake(GRAD_WEIGHT, checks.check_grad_weight)
def empty_grad_weight(input, grad_output, kernel_h, kernel_w, *geometry_and_format):
    *_, with_bias, channels_last = geometry_and_format
    out_channels = grad_output.shape[1]
    grad_weight = _empty(input, (out_channels, 1, kernel_h, kernel_w), channels_last)
    return grad_weight, _empty(input, (out_channels if with_bias else 0,))


@_fake(BACKWARD, checks.check_backward)
def empty_backward(grad_output, input, weight, *geometry_and_formats):
    *_, with_bias, channels_last, weight_channels_last = geometry_and_formats
    grad_bias = _empty(input, (weight.shape[0] if with_bias else 0,))
    return _empty(input, input.shape, channels_last), _empty(input, weight.shape, weight_channels_last), grad_bias


# What each operator allocates for its result.
EMPTY_RESULT = {
    FORWARD: empty_forward,
    GRAD_INPUT: empty_grad_input,
    GRAD_WEIGHT: empty_grad_weight,
    BACKWARD: empty_backward,
}


# vmap. Channels do not mix in a depthwise convolution, so a batch of problems is one problem with the batch folded into
# the channels; into N, with one filter for all of it, when only activations are batched.


def _fold(tensor: Tensor, in_dim: int | None, batch_size: int, dim: int) -> Tensor:
    """Merges the batch dimension into `dim`, as its outer part; a tensor without one is repeated."""
    tensor = tensor.expand(batch_size, *tensor.shape) if in_dim is None else tensor.movedim(in_dim, 0)
    return tensor.movedim(0, dim).flatten(dim, dim + 1)


def _unfold(tensor: Tensor, batch_size: int, dim: int) -> Tensor:
    return tensor.unflatten(dim, (batch_size, tensor.shape[dim] // max(batch_size, 1)))


@torch.library.register_vmap(FORWARD)
def _vmap_forward(info, in_dims, input, weight, bias, *sizes):
    batch_size = info.batch_size
    input_dim, weight_dim, bias_dim = in_dims[:3]
    if weight_dim is None and bias_dim is None:
        output = FORWARD(_fold(input, input_dim, batch_size, 0), weight, bias, *sizes)
        return _unfold(output, batch_size, 0), 0
    input = _fold(input, input_dim, batch_size, 1)
    weight = _fold(weight, weight_dim, batch_size, 0)
    bias = None if bias is None else _fold(bias, bias_dim, batch_size, 0)
    return _unfold(FORWARD(input, weight, bias, *sizes), batch_size, 1), 1


@torch.library.register_vmap(GRAD_INPUT)
def _vmap_grad_input(info, in_dims, grad_output, weight, in_channels, *sizes):
    batch_size = info.batch_size
    grad_output_dim, weight_dim = in_dims[:2]
    if weight_dim is None:
        grad_input = GRAD_INPUT(_fold(grad_output, grad_output_dim, batch_size, 0), weight, in_channels, *sizes)
        return _unfold(grad_input, batch_size, 0), 0
    grad_output = _fold(grad_output, grad_output_dim, batch_size, 1)
    weight = _fold(weight, weight_dim, batch_size, 0)
    return _unfold(GRAD_INPUT(grad_output, weight, in_channels * batch_size, *sizes), batch_size, 1), 1


@torch.library.register_vmap(GRAD_WEIGHT)
def _vmap_grad_weight(info, in_dims, input, grad_output, *sizes):
    batch_size = info.batch_size
    input = _fold(input, in_dims[0], batch_size, 1)
    grad_output = _fold(grad_output, in_dims[1], batch_size, 1)
    grad_weight, grad_bias = GRAD_WEIGHT(input, grad_output, *sizes)
    with_bias = sizes[-2]
    if with_bias:
        return (_unfold(grad_weight, batch_size, 0), _unfold(grad_bias, batch_size, 0)), (0, 0)
    return (_unfold(grad_weight, batch_size, 0), grad_bias), (0, None)

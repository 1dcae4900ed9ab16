"""The operators by name: their arguments, and the codes of their activations.

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

The schemas and CPU kernels are in csrc/binding/ops.cpp.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native  # noqa: F401  (the library that it loads defines the operators)

FORWARD = torch.ops.torch_dwconv.forward.default
GRAD_INPUT = torch.ops.torch_dwconv.grad_input.default
GRAD_WEIGHT = torch.ops.torch_dwconv.grad_weight.default
BACKWARD = torch.ops.torch_dwconv.backward.default

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)  # that the kernels take

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

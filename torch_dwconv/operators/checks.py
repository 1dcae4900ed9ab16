"""The rules of the operators' arguments, for fake tensors: those of csrc/binding/operators.h, in the same words.

A rule about symbolic sizes is broken here only if every value of them breaks it, so that tracing adds no guard; the
kernels check the numbers that come.
"""

import math

from torch import Tensor

from .schemas import DTYPES
from .symbolic import is_always

_LIMIT = 2**62


def refuse(condition, message: str) -> None:
    if is_always(condition):
        raise RuntimeError(f"torch_dwconv: {message}")


def check_operand(name: str, tensor: Tensor, first: Tensor, dim: int) -> None:
    refuse(tensor.dim() != dim, f"{name} must have {dim} dimensions, got {tensor.dim()}")
    refuse(tensor.dtype != first.dtype, f"{name} must have the dtype of the other operands")


def check_multiple(out_channels, in_channels) -> None:
    message = (
        f"the number of output channels must be a multiple of the {in_channels} input channels, got {out_channels}"
    )
    if is_always(in_channels == 0):
        refuse(out_channels != 0, message)
    elif is_always(in_channels > 0):
        refuse(out_channels % in_channels != 0, message)


def check_size(name: str, tensor: Tensor, expected: tuple) -> None:
    for got, wanted in zip(tensor.shape, expected, strict=True):
        refuse(got != wanted, f"{name} must be {tuple(expected)}, got {tuple(tensor.shape)}")


def check_geometry(input_size, out_channels, output_hw, kernel_hw, geometry) -> None:
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:6]
    for size in (*input_size, out_channels, *kernel_hw, *output_hw):
        refuse(size < 0, f"sizes must not be negative, got {size}")
    for axis in range(2):
        refuse(stride[axis] <= 0, f"stride must be positive, got {tuple(stride)}")
        refuse(dilation[axis] <= 0, f"dilation must be positive, got {tuple(dilation)}")
        refuse(padding[axis] < 0, f"padding must not be negative, got {tuple(padding)}")
        refuse(kernel_hw[axis] == 0, f"the kernel must not be empty, got {tuple(kernel_hw)}")
    products: list[tuple] = [
        (*input_size,),
        (input_size[0], out_channels, *output_hw),
        (out_channels, *kernel_hw),
        (padding[0],),
        (padding[1],),
    ]
    for axis in range(2):
        products += [(output_hw[axis], stride[axis]), (kernel_hw[axis], dilation[axis], stride[axis])]
    for factors in products:
        if all(isinstance(factor, int) for factor in factors):
            overflows = 8 * math.prod(max(factor, 1) for factor in factors) > _LIMIT
            refuse(overflows, "the sizes of this problem overflow 64-bit arithmetic")


def check_dtype(tensor: Tensor, results: tuple) -> None:
    """As the kernels do: nobody asks for the dtype of no numbers."""
    if tensor.dtype not in DTYPES and all(not is_always(size == 0) for size in results):
        raise RuntimeError("torch_dwconv: tensors must be float32, float64, bfloat16 or float16")


def check_forward(input, weight, bias, out_h, out_w, *rest) -> None:
    check_operand("input", input, input, 4)
    check_operand("weight", weight, input, 4)
    out_channels, channels = weight.shape[0], input.shape[1]
    check_multiple(out_channels, channels)
    check_geometry(input.shape, out_channels, (out_h, out_w), weight.shape[2:], rest[:6])
    check_size("weight", weight, (out_channels, 1, *weight.shape[2:]))
    if bias is not None:
        check_operand("bias", bias, input, 1)
        text = f"bias must have one value for each of the {out_channels} output channels, got {bias.shape[0]}"
        refuse(bias.shape[0] != out_channels, text)
    check_dtype(input, (input.shape[0], out_channels, out_h, out_w))


def check_grad_input(grad_output, weight, in_channels, in_h, in_w, *rest) -> None:
    check_operand("grad_output", grad_output, grad_output, 4)
    check_operand("weight", weight, grad_output, 4)
    refuse(in_channels < 0, f"in_channels must not be negative, got {in_channels}")
    out_channels, batch = weight.shape[0], grad_output.shape[0]
    check_multiple(out_channels, in_channels)
    input_size = (batch, in_channels, in_h, in_w)
    check_geometry(input_size, out_channels, grad_output.shape[2:], weight.shape[2:], rest[:6])
    check_size("weight", weight, (out_channels, 1, *weight.shape[2:]))
    check_size("grad_output", grad_output, (batch, out_channels, *grad_output.shape[2:]))
    check_dtype(grad_output, input_size)


def check_grad_weight(input, grad_output, kernel_h, kernel_w, *rest) -> None:
    check_operand("input", input, input, 4)
    check_operand("grad_output", grad_output, input, 4)
    out_channels = grad_output.shape[1]
    check_multiple(out_channels, input.shape[1])
    check_geometry(input.shape, out_channels, grad_output.shape[2:], (kernel_h, kernel_w), rest[:6])
    check_size("grad_output", grad_output, (input.shape[0], out_channels, *grad_output.shape[2:]))
    check_dtype(input, (out_channels, kernel_h, kernel_w))


def check_backward(grad_output, input, weight, *rest) -> None:
    check_operand("grad_output", grad_output, grad_output, 4)
    check_operand("input", input, grad_output, 4)
    check_operand("weight", weight, grad_output, 4)
    out_channels = weight.shape[0]
    check_multiple(out_channels, input.shape[1])
    check_geometry(input.shape, out_channels, grad_output.shape[2:], weight.shape[2:], rest[:6])
    check_size("weight", weight, (out_channels, 1, *weight.shape[2:]))
    check_size("grad_output", grad_output, (input.shape[0], out_channels, *grad_output.shape[2:]))
    check_dtype(input, weight.shape)

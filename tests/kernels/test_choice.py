"""Which CPU kernel is preferred of those that can compute a shape: the rows of csrc/cpu/*/choice.h, on both sides."""

import ctypes
import re

import pytest

from tests.kernels import harness
from tests.kernels.cases import random_cases
from tests.kernels.harness import KINDS, Kernel, all_kernels
from tests.kernels.shapes import EDGES, Shape
from torch_dwconv.operators import native

ISA = native.cpu_library.dwconv_isa().decode()
needs_avx512 = pytest.mark.skipif(ISA != "avx512", reason=f"the kernels in question are for AVX-512, in use is {ISA}")


def method(kernel: Kernel) -> str:
    """The method in a kernel's name: "rows" of "forward_nchw_f32_rows_avx512"."""
    return re.fullmatch(rf"{kernel.operation}_{kernel.layout}_{kernel.dtype}_(\w+?)(_{kernel.isa})?", kernel.name)[1]


def reasons(operation: str, dtype: str, layout: str, shape: Shape) -> dict[str, str | None]:
    """By method, for the best ISA: why the kernel does not run, None of those that would."""
    return {
        method(kernel): harness.refusal(index, shape)
        for index, kernel in enumerate(all_kernels())
        if kernel[1:4] == (operation, dtype, layout) and kernel.isa == ISA
    }


def chosen(operation: str, dtype: str, layout: str, shape: Shape) -> str:
    """The method of the kernel that runs."""
    return next(name for name, reason in reasons(operation, dtype, layout, shape).items() if reason is None)


def plane(channels: int, height: int, width: int, k: int = 3, stride: int = 1, dilation: int = 1) -> Shape:
    pad = dilation * (k // 2)
    out = [(size - 1) // stride + 1 for size in (height, width)]
    return Shape(1, channels, 1, height, width, k, k, *out, stride, stride, dilation, dilation, pad, pad)


def row(channels: int, length: int, taps: int) -> Shape:
    return Shape(1, channels, 1, 1, length, 1, taps, 1, length, 1, 1, 1, 1, 0, taps // 2)


# operation, dtype, shape, method: neighbours on both sides of a row's limit.
NCHW = [
    ("forward", "f32", plane(16, 7, 7), "transposed"),  # a vector of channels
    ("forward", "f32", plane(15, 7, 7), "planes"),
    ("forward", "f32", plane(2816, 7, 7)._replace(N=32), "planes"),  # beyond the caches
    ("forward", "bf16", plane(2816, 7, 7)._replace(N=32), "transposed"),
    ("forward", "f32", plane(64, 14, 14), "planes"),  # more than half a vector
    ("forward", "bf16", plane(64, 28, 28), "chains"),
    ("forward", "f32", plane(64, 28, 28), "rows"),
    ("forward", "f64", plane(64, 28, 28), "rows"),
    ("forward", "f32", plane(64, 28, 28, dilation=2), "chains"),
    ("forward", "bf16", plane(64, 5, 5), "transposed"),  # small
    ("forward", "bf16", plane(16, 64, 7), "transposed"),  # narrow, and a vector of channels
    ("forward", "bf16", plane(15, 64, 7), "chains"),
    ("forward", "f32", plane(16, 64, 7, 5), "transposed"),
    ("forward", "f32", plane(15, 64, 7, 5), "rows"),
    ("forward", "f32", plane(8, 5, 5), "transposed"),  # half a vector of channels
    ("forward", "f32", plane(7, 5, 5), "rows"),
    ("forward", "f32", plane(64, 17, 17, 5), "rows"),  # a plane of more than 400
    ("forward", "f32", plane(8, 4, 8, dilation=2), "transposed"),  # chains of two vectors
    ("forward", "f64", plane(8, 6, 6), "transposed"),
    ("forward", "f64", plane(8, 6, 7, 5), "rows"),  # more than 80
    ("forward", "f64", plane(8, 6, 7, 7), "transposed"),
    ("grad_input", "f32", plane(64, 9, 9, 7, stride=2), "rows"),  # at a stride
    ("grad_input", "bf16", plane(64, 9, 9, 7, stride=2), "transposed"),
    ("grad_input", "f32", plane(64, 7, 7, 7, stride=2), "transposed"),
    ("forward", "f32", row(64, 161, 3), "lines"),  # more than ten vectors
    ("forward", "f32", row(64, 160, 3), "transposed"),
    ("forward", "f64", row(64, 81, 3), "lines"),
    ("forward", "f32", row(64, 373, 31), "lines"),  # more than twelve results for each tap
    ("forward", "f32", row(64, 372, 31), "rows"),
    ("grad_input", "f32", row(64, 33, 3), "lines"),  # more than two vectors
    ("grad_weight", "f32", plane(64, 28, 28), "transposed3x3"),
    ("grad_weight", "f32", plane(5, 28, 28), "rows3x3"),  # less than a third of a vector
    ("grad_weight", "f32", plane(64, 29, 29), "rows3x3"),
    ("grad_weight", "f32", plane(64, 33, 33), "transposed3x3"),  # less than 3/4 of three vectors
    ("grad_weight", "f32", plane(6, 28, 28, 5), "transposed"),
    ("grad_weight", "f32", plane(5, 28, 28, 5), "rows"),
]


@needs_avx512
@pytest.mark.parametrize(("operation", "dtype", "shape", "expected"), NCHW)
def test_nchw(operation, dtype, shape, expected):
    assert chosen(operation, dtype, "nchw", shape) == expected, reasons(operation, dtype, "nchw", shape)


# The same with AVX2, where `phases` has no vectors of two rows.
NCHW_AVX2 = [
    ("forward", "f32", plane(64, 7, 9, stride=2), "phases"),  # more than half a vector
    ("forward", "f32", plane(64, 7, 8, stride=2), "transposed"),
    ("grad_input", "f32", plane(64, 7, 9, stride=2), "phases"),
    ("grad_input", "f32", plane(64, 7, 8, stride=2), "transposed"),
    ("forward", "f32", plane(64, 14, 17, 5, stride=2), "phases"),  # more than a vector
    ("forward", "f32", plane(64, 14, 16, 5, stride=2), "transposed"),
    ("grad_input", "f32", plane(64, 14, 16, 5, stride=2), "phases"),
    ("forward", "f64", plane(64, 14, 17, 5, stride=2), "phases"),
    ("forward", "f64", plane(64, 14, 16, 5, stride=2), "rows"),
    ("forward", "f64", plane(64, 7, 8, stride=2), "transposed"),
    ("grad_input", "f64", plane(64, 7, 7, stride=2), "phases"),
    ("forward", "f16", plane(64, 17, 18, stride=2), "transposed"),  # a plane of 387
    ("forward", "f16", plane(64, 18, 18, stride=2), "phases"),
    ("forward", "bf16", plane(64, 17, 18, stride=2), "phases"),
]


@pytest.mark.skipif(ISA != "avx2", reason=f"the kernels in question are for AVX2, in use is {ISA}")
@pytest.mark.parametrize(("operation", "dtype", "shape", "expected"), NCHW_AVX2)
def test_nchw_avx2(operation, dtype, shape, expected):
    assert chosen(operation, dtype, "nchw", shape) == expected, reasons(operation, dtype, "nchw", shape)


def test_a_vectorised_kernel_of_the_best_isa_is_left():
    """Whatever is passed over, for every shape within the limits that the reference kernels are for."""
    groups = {kernel[1:4] for kernel in all_kernels() if kernel.operation in KINDS["depthwise"]}
    for shape in (*EDGES.values(), *(case.shape for case in random_cases(60, "choice"))):
        if max(shape.stride_h, shape.stride_w) > 64 or max(shape.dilation_h, shape.dilation_w) > 1 << 16:
            continue
        if max(shape.pad_top, shape.pad_left) > 1 << 24:
            continue
        for group in groups:
            assert None in reasons(*group, shape).values(), (group, shape)


def test_explain_says_which_of_them_could():
    """Of a kernel that could compute the shape, with the words of the table."""
    kernel = next(k for k in all_kernels() if k[1:4] == ("grad_weight", "f32", "nchw") and method(k) == "transposed")
    index, shape = all_kernels().index(kernel), plane(1, 20, 20, 5)
    assert kernel.refusal(shape) is None
    numbers = (ctypes.c_int64 * len(shape))(*shape)
    said = native.cpu_library.dwconv_kernel_refusal(index, numbers).decode()
    assert said.startswith("supports, but: ") and "third of a vector" in said

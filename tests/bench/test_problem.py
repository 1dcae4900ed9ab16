"""What a cell costs at least, and the tensors that it is timed on."""

import pytest
import torch
from torch.nn import functional as F

from torch_dwconv.bench.layers import parse_layer
from torch_dwconv.bench.problem import DTYPES, LAYOUTS, OPERATIONS, Cell, Problem

LAYERS = ("1,3,7,9,3,1", "2,4,8,8,5,2", "2,3,12,7,1x11,1", "1,2,9,9,3,1,4,2", "1,2,17,9,4x2,3x2,2x1,3")


def problem(text, operation="forward", dtype="f32", layout="nchw"):
    batch, layer = parse_layer(text)
    return Problem(Cell(layer, batch, operation, dtype, layout, threads=1))


@pytest.mark.parametrize("text", LAYERS)
def test_flops_are_two_for_each_tap_inside_the_input(text):
    p = problem(text)
    ones = (torch.ones_like(tensor) for tensor in (p.input, p.weight))
    taps = F.conv2d(*ones, None, p.stride, p.padding, p.dilation, p.groups)
    assert taps.shape == p.grad_output.shape
    assert p.flops == 2 * taps.sum().item()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_have_the_dtype_and_layout_of_the_cell(dtype, layout):
    p = problem("2,3,8,7,3,1", dtype=dtype, layout=layout)
    for tensor in (p.input, p.grad_output, p.result_buffer()):
        assert tensor.dtype == DTYPES[dtype]
        assert tensor.is_contiguous(memory_format=LAYOUTS[layout])


def test_bytes_are_those_of_the_operands_and_the_result():
    x, w, y = 2 * 4 * 8 * 8, 4 * 5 * 5, 2 * 4 * 4 * 4  # elements
    expected = {"forward": (x + w, y), "grad_input": (y + w, x), "grad_weight": (x + y, w)}
    for operation in OPERATIONS:
        p = problem("2,4,8,8,5,2", operation, dtype="bf16")
        assert (p.bytes_read, p.bytes_written) == tuple(2 * elements for elements in expected[operation])


def test_the_result_buffer_is_written_before_it_is_timed():
    assert problem("1,3,7,9,3,1", "grad_input").result_buffer().isnan().all()

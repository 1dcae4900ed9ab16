"""The same bits whatever the number of threads, through the public API, on problems that are shared between them."""

import re
from pathlib import Path

import pytest
import torch

from tests.calls import DTYPES, FORMATS, Call
from torch_dwconv import depthwise_conv2d

# One for each way in which work is cut: rows of large planes, many small planes, blocks of channels, batches, lattices.
CALLS = (
    Call(1, 37, 1, (61, 59), (3, 3), padding=((1, 1), (1, 1))),
    Call(1, 320, 1, (14, 14), (5, 5), padding=((2, 2), (2, 2))),
    Call(32, 70, 1, (7, 7), (3, 3), padding=((1, 1), (1, 1))),
    Call(3, 40, 1, (57, 56), (3, 3), (2, 2), ((0, 1), (0, 1))),
    Call(2, 33, 2, (31, 29), (5, 3), (1, 2), ((2, 1), (1, 1))),
    Call(2, 48, 1, (33, 33), (3, 3), padding=((6, 6), (6, 6)), dilation=(6, 6)),
    Call(1, 24, 1, (28, 30), (13, 13), padding=((6, 6), (6, 6))),
)


def serial_work() -> int:
    source = Path(__file__).parents[2] / "csrc" / "binding" / "ops.cpp"
    return int(re.search(r"kSerialWork = (\d+)", source.read_text())[1])


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def multiply_adds(call, output) -> int:
    return output.numel() * call.kernel[0] * call.kernel[1]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_do_not_depend_on_the_number_of_threads(dtype, memory_format, call, threads):
    input, weight, bias = (tensor.requires_grad_() for tensor in call.tensors(dtype))
    input = input.detach().to(memory_format=memory_format).requires_grad_()
    results = {}
    for count in (1, 2, 3, 8):
        threads(count)
        output = depthwise_conv2d(input, weight, bias, **call.options)
        with torch.no_grad():
            fused = depthwise_conv2d(input, weight, bias, **call.options, activation="hardswish")
        gradients = torch.autograd.grad(output, (input, weight, bias), output.detach())
        results[count] = (output.detach(), fused, *gradients)
    assert multiply_adds(call, results[1][0]) >= serial_work()
    for count, other in results.items():
        assert all(map(torch.equal, results[1], other)), f"{count} threads"

"""Memory: it does not grow with calls, a training step needs no more than nn.Conv2d's, and sizes go beyond 2^31."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.calls import FORMATS, Call
from torch_dwconv import depthwise_conv2d
from torch_dwconv.operators.schemas import FORWARD, GRAD_INPUT, GRAD_WEIGHT

pytestmark = pytest.mark.serial

GROWTH = """
import torch
from pathlib import Path
from torch_dwconv import depthwise_conv2d

torch.set_num_threads(2)
shapes = [((2, 4, 9, 8), 1), ((1, 64, 56, 56), 1), ((1, 16, 7, 7), 2), ((3, 5, 20, 20), 3)]
leaves = [(torch.randn(s).requires_grad_(), torch.randn(s[1] * m, 1, 3, 3).requires_grad_()) for s, m in shapes]

def run(calls):
    for i in range(calls):
        input, weight = leaves[i % 4 if i % 50 < 4 else 0]
        format = torch.channels_last if i % 2 else torch.contiguous_format
        output = depthwise_conv2d(input.to(memory_format=format), weight, padding=1)
        torch.autograd.grad(output.sum(), (input, weight))

def pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

run(2000)
before = pages()
run(10000)
print(4096 * (pages() - before))
"""

# The peak of one training step of one layer, above what was there before, in bytes.
PEAK = """
import sys, torch
from pathlib import Path
from torch import nn
from torch_dwconv import DepthwiseConv2d

module, memory_format = sys.argv[1:]
torch.set_num_threads(1)

def layer(channels):
    options = dict(padding=1, groups=channels)
    return (DepthwiseConv2d if module == "ours" else nn.Conv2d)(channels, channels, 3, **options)

def step(layer, size):
    memory = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
    input = torch.ones(size).contiguous(memory_format=memory).requires_grad_()
    layer(input).square().mean().backward()

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

step(layer(8), (1, 8, 9, 9))
big = layer(64)
before = peak()
step(big, (8, 64, 160, 160))
print(peak() - before)
"""


def printed(program, *arguments) -> int:
    command = [sys.executable, "-c", program, *arguments]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.slow
def test_ten_thousand_calls_leave_nothing_behind():
    assert printed(GROWTH) < 2 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_training_step_needs_no_more_than_conv2ds(memory_format):
    """64 images' worth of 52 MB tensors: input, output, their gradients."""
    ours, theirs = (printed(PEAK, module, memory_format) for module in ("ours", "theirs"))
    assert ours > 100 * 2**20
    assert ours <= 1.02 * theirs


def available_bytes() -> int:
    return int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]) * 1024


LARGE = [
    pytest.param(name, memory_format, marks=pytest.mark.slow if in_check else pytest.mark.full)
    for name in ("forward", "grad_input", "grad_weight")
    for memory_format in FORMATS
    for in_check in [name != "grad_input" and memory_format is torch.contiguous_format]
]


@pytest.mark.parametrize(("name", "memory_format"), LARGE)
def test_more_than_two_to_the_31_elements(name, memory_format):
    """Everything is zero but the last corner, beyond element 2^31, which a small problem has too."""
    channels, side, corner = 3, 26760, 40
    assert channels * side * side > 2**31
    copies = {"grad_weight": 1}.get(name, 2) + (memory_format is torch.channels_last)
    needed = (copies * 2 * channels * side**2) + 2**30
    if available_bytes() < needed:
        pytest.skip(f"{needed / 2**30:.0f} GiB of memory are needed, {available_bytes() / 2**30:.0f} are free")
    call = Call(1, channels, 1, (corner, corner), (3, 3), padding=((0, 1), (0, 1)))
    small, weight, _ = call.tensors(torch.bfloat16, integers=True)
    channels_last = memory_format is torch.channels_last
    large = torch.zeros(1, channels, side, side, dtype=torch.bfloat16).contiguous(memory_format=memory_format)
    large[:, :, -corner:, -corner:] = small
    reach = slice(-corner + 2, None)  # rows and columns that see nothing outside the corner
    if name == "grad_weight":
        got, bias = GRAD_WEIGHT(large, large, 3, 3, 1, 1, 1, 1, 1, 1, True, False)
        padded = torch.nn.functional.pad(small.double(), (1, 1, 1, 1))
        windows = padded.unfold(2, corner, 1).unfold(3, corner, 1)
        right = (windows * small.double()[:, :, None, None]).sum((0, -1, -2))
        assert torch.equal(got[:, 0], right.to(torch.bfloat16))
        assert torch.equal(bias, small.double().sum((0, 2, 3)).to(torch.bfloat16))
        return
    geometry = (1, 1, 1, 1, 1, 1)
    if name == "forward":
        got = FORWARD(large, weight, None, side, side, *geometry, channels_last)
        right = FORWARD(small, weight, None, corner, corner, *geometry, channels_last)
    else:
        got = GRAD_INPUT(large, weight, channels, side, side, *geometry, channels_last)
        right = GRAD_INPUT(small, weight, channels, corner, corner, *geometry, channels_last)
    assert right.any()
    assert torch.equal(got[:, :, reach, reach], right[:, :, reach, reach])
    assert not got[:, :, : side // 2].any()


def test_the_small_problem_of_the_last_test_is_right():
    call = Call(1, 3, 1, (40, 40), (3, 3), padding=((1, 1), (1, 1)))
    small, weight, _ = call.tensors(torch.bfloat16, integers=True)
    right = torch.nn.functional.conv2d(small.double(), weight.double(), padding=1, groups=3)
    assert torch.equal(depthwise_conv2d(small, weight, padding=1), right.to(torch.bfloat16))

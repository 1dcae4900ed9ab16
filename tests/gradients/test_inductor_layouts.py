"""Inductor hands tensors to the kernels, and takes them, in whatever memory format it has chosen: nothing is converted.

On CPU it computes aten's convolutions in channels_last in any model, so a contiguous one shows whether ours follow.
"""

import re

import pytest
import torch
from torch import nn
from torch._inductor.async_compile import AsyncCompile
from torch._inductor.utils import run_and_get_code

from tests.calls import FORMATS
from torch_dwconv import convert

OPS = ("forward", "grad_input")  # whose last argument says whether the result is channels_last


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(16, 32, 1)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.project = nn.Conv2d(32, 16, 1)

    def forward(self, input):
        features = self.depthwise(self.expand(input).relu()).sigmoid()
        return input + self.project(features)


class Network(nn.Module):
    """An ordinary convolution, blocks round depthwise layers, two of them side by side, and a mean."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.blocks = nn.Sequential(Residual(), Residual())
        self.pair = nn.Sequential(
            nn.Conv2d(16, 32, 5, 2, 2, groups=16), nn.Conv2d(32, 32, 3, groups=32), nn.Hardswish()
        )

    def forward(self, input):
        return self.pair(self.blocks(self.stem(input).relu())).mean((2, 3))


def conversions(code: str) -> list[str]:
    """The generated kernels that compute nothing, and those that transpose while they compute."""
    kernels = re.findall(r"(\w+) = async_compile\.cpp_pybinding\(.*?r'''(.*?)'''", code, flags=re.DOTALL)
    assert kernels

    def converts(source):
        values = re.findall(r"auto tmp\d+ = (.*);", source)
        loads = [value for value in values if re.match(r"(at::vec::Vectorized<\w+>::loadu\(|in_ptr\d+\[)", value)]
        return "transpose_mxn" in source or len(loads) == len(values)

    return [name for name, source in kernels if converts(source)]


@pytest.fixture
def no_machine_code(monkeypatch):
    """Kernels are generated and not compiled, which takes a minute: they do nothing when they are called."""

    def generate_only(self, argtypes, source_code, *args, **keywords):
        return lambda *operands: None

    monkeypatch.setattr(AsyncCompile, "cpp_pybinding", generate_only)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_converted(memory_format, training, no_machine_code, fresh_compiler):
    model = convert(Network()).to(memory_format=memory_format)
    # Of a contiguous image only the first convolution, aten's, wants a channels_last copy.
    image = torch.randn(2, 3, 20, 20).to(memory_format=memory_format)
    compiled = torch.compile(model, fullgraph=True)

    def step():
        if not training:
            with torch.no_grad():
                return compiled(image)
        compiled(image).square().sum().backward()

    _, codes = run_and_get_code(step)
    assert len(codes) == 1 + training
    found = conversions(codes[0])
    assert len(found) == (memory_format is torch.contiguous_format), found
    # The backward of aten's convolutions asks for copies of its own; ours take what is there.
    call = r"= torch\.ops\.torch_dwconv\.%s\.default\(.*, (True|False)\)"
    channels_last = [re.findall(call % op, "".join(codes)) for op in OPS]
    assert channels_last == [["True"] * 4, ["True"] * 4 * training]


def test_conversions_are_noticed(no_machine_code, fresh_compiler):
    """Or the test above could not fail: a graph that returns its input in the other format, and one that also adds."""

    def convert_only(input):
        return input.contiguous(memory_format=torch.channels_last)

    def convert_and_add(input):
        return (input + 1).contiguous(memory_format=torch.channels_last)

    for function in (convert_only, convert_and_add):
        _, (code,) = run_and_get_code(torch.compile(function), torch.randn(2, 32, 16, 16))
        assert len(conversions(code)) == 1


@pytest.mark.slow
def test_what_leaves_the_graph_has_the_traced_strides(fresh_compiler):
    """Channels_last inside is Inductor's affair: eager mode's contiguous result is what comes out."""
    model = convert(nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=8)))
    image = torch.randn(2, 3, 9, 8)
    output = torch.compile(model, fullgraph=True)(image)
    assert output.stride() == model(image).stride()
    torch.testing.assert_close(output, model(image))

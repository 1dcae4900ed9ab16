"""torch.compile and torch.export: one graph, dynamic shapes, forward and backward, no copies, no recompilation."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._inductor.utils import run_and_get_code
from torch.nn import functional as F

from tests.calls import DTYPES, FORMATS, Call, assert_close
from torch_dwconv import depthwise_conv2d

SIZES = ((2, 4, 9, 8), (3, 4, 12, 7), (5, 4, 6, 15))


class Block(torch.nn.Module):
    """conv, activation and 'same' padding at a stride, with something for a compiler to fuse around them."""

    def __init__(self, convolution):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 4 * 9, dtype=torch.float64).view(4, 1, 3, 3))
        self.bias = torch.nn.Parameter(torch.linspace(-1, 1, 4, dtype=torch.float64))
        self.convolution = convolution

    def forward(self, input):
        features = self.convolution(input * 2, self.weight, self.bias, 1, 1).relu() + input
        return self.convolution(features, self.weight, None, 2, 0).sigmoid()


def ours(input, weight, bias, stride, padding):
    return depthwise_conv2d(input, weight, bias, stride, padding)


def theirs(input, weight, bias, stride, padding):
    return F.conv2d(input, weight, bias, stride, padding, groups=input.shape[1])


def step(model, input):
    input = input.detach().requires_grad_()
    model.zero_grad()
    output = model(input)
    output.square().sum().backward()
    return output.detach(), input.grad, *(p.grad for p in model.parameters())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_training_with_dynamic_shapes(backend, memory_format, fresh_compiler):
    compiled, plain = torch.compile(Block(ours), backend=backend, fullgraph=True, dynamic=True), Block(theirs)
    for i, size in enumerate(SIZES):
        input = torch.randn(size, dtype=torch.float64).to(memory_format=memory_format)
        with torch._dynamo.config.patch(error_on_recompile=i > 0):
            torch.testing.assert_close(step(compiled, input), step(plain, input))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_batch_sizes_compile_one_general_graph(memory_format, fresh_compiler):
    """As torch.compile does it unasked: the first batch size gets a graph, the second one for all that follow."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(Block(ours), backend=counter, fullgraph=True)
    for batch in (8, 4, 16, 3, 5, 32):
        step(compiled, torch.randn(batch, 4, 9, 8, dtype=torch.float64).to(memory_format=memory_format))
    assert counter.frame_count == 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(dtype, fresh_compiler):
    input, weight, bias = Call(2, 3, 1, (8, 7), (3, 3)).tensors(dtype)
    compiled = torch.compile(depthwise_conv2d, backend="aot_eager", fullgraph=True)
    assert_close(compiled(input, weight, bias), F.conv2d(input.double(), weight.double(), bias.double(), groups=3))


def test_options_in_a_graph(fresh_compiler):
    """The rules for padding and activation, autocast and the fallback, are all traced."""

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    def compiled(input, weight):
        with torch.autocast("cpu", torch.bfloat16):
            cast = depthwise_conv2d(input, weight, padding="same", stride=(2, 3), activation="hardswish")
        integers = depthwise_conv2d(input.long(), weight.long(), padding=((0, 1), (1, 0)))
        return cast, integers

    for size in SIZES:
        input, weight = 3 * torch.randn(size), 3 * torch.randn(4, 1, 3, 3)
        cast, integers = compiled(input, weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(cast, depthwise_conv2d(input, weight, None, (2, 3), "same", activation="hardswish"))
        assert torch.equal(integers, depthwise_conv2d(input.long(), weight.long(), padding=((0, 1), (1, 0))))


@pytest.mark.parametrize(
    ("memory_format", "pointwise"),
    # In contiguous models Inductor moves aten's convolutions to channels_last by itself, and converts around them.
    [(torch.contiguous_format, False), (torch.channels_last, False), (torch.channels_last, True)],
)
def test_inductor_inserts_no_copies(memory_format, pointwise, fresh_compiler):
    """The kernels take operands in either layout, so there is nothing to convert between them and their neighbours."""
    weight, bias, mix = torch.randn(8, 1, 3, 3), torch.randn(8), torch.randn(8, 8, 1, 1)

    def model(input):
        features = depthwise_conv2d(input, weight, bias, padding=1).relu()
        features = F.conv2d(features, mix) if pointwise else features
        return depthwise_conv2d(features, weight, bias, 2, 1)

    input = torch.randn(2, 8, 10, 10).to(memory_format=memory_format)
    with torch.no_grad():
        result, (code,) = run_and_get_code(torch.compile(model, fullgraph=True), input)
    assert result.is_contiguous(memory_format=memory_format)
    assert code.count("= torch.ops.torch_dwconv.forward.default(") == 2
    # The buffers are the results of the convolutions; relu works in place, and a copy would need another.
    assert "= empty_strided" not in code


@pytest.mark.parametrize("strict", [True, False])
def test_export_with_dynamic_shapes(strict):
    N, H, W = (torch.export.Dim(name, min=low, max=64) for name, low in (("N", 1), ("H", 5), ("W", 5)))
    example = (torch.randn(4, 4, 9, 8, dtype=torch.float64),)
    exported = torch.export.export(Block(ours), example, dynamic_shapes=({0: N, 2: H, 3: W},), strict=strict)
    convolutions = [str(node.target) for node in exported.graph.nodes if "conv" in str(node.target)]
    assert convolutions == ["torch_dwconv.forward.default"] * 2
    for size in SIZES:
        input = torch.randn(size, dtype=torch.float64)
        torch.testing.assert_close(exported.module()(input), Block(theirs)(input))


def test_compiled_autograd(fresh_compiler):
    """The eager shortcut's backward, traced by itself."""
    model, input = Block(ours), torch.randn(SIZES[0], dtype=torch.float64)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
        actual = step(model, input)
    torch.testing.assert_close(actual, step(Block(theirs), input))

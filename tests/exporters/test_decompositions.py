"""The operators in aten's terms: the same values and strides, in tables, in captured graphs, for quantisation tools."""

import random

import pytest
import torch
from torch import nn
from torch._decomp import get_decompositions

from tests.calls import FORMATS, Call
from tests.exporters.graphs import names
from torch_dwconv import DepthwiseConv2d, convert, decompositions, depthwise_conv2d, revert, to_aten
from torch_dwconv.operators.batch_norm import BATCH_NORM, BATCH_NORM_BACKWARD, BATCH_NORM_EVAL
from torch_dwconv.operators.block import BLOCK
from torch_dwconv.operators.formats import suggests_channels_last
from torch_dwconv.operators.schemas import ACTIVATION_CODES, BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT
from torch_dwconv.operators.sequence import CAUSAL_CONV1D

OPERATORS = (
    *(FORWARD, GRAD_INPUT, GRAD_WEIGHT, BACKWARD),
    BLOCK,
    *(BATCH_NORM, BATCH_NORM_EVAL, BATCH_NORM_BACKWARD),
    CAUSAL_CONV1D,
)
ASYMMETRIC = {"stride": 2, "padding": ((0, 1), (1, 2))}


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("memory_format", FORMATS)
def test_each_operator(seed, memory_format):
    call = Call.draw(random.Random(seed))
    input, weight, bias = (t.double() for t in call.tensors(torch.float64))
    input = input.to(memory_format=memory_format)
    output = depthwise_conv2d(input, weight, bias, **call.options)
    grad_output = torch.randn_like(output)
    (top, _), (left, _) = call.padding
    geometry = (*call.stride, top, left, *call.dilation)
    channels_last = suggests_channels_last(input)
    for op, args in (
        (FORWARD, (input, weight, bias, *output.shape[2:], *geometry, channels_last)),
        (GRAD_INPUT, (grad_output, weight, *input.shape[1:], *geometry, channels_last)),
        (GRAD_WEIGHT, (input, grad_output, *weight.shape[2:], *geometry, True, channels_last)),
        (GRAD_WEIGHT, (input, grad_output, *weight.shape[2:], *geometry, False, False)),
        (BACKWARD, (grad_output, input, weight, *geometry, True, channels_last, False)),
    ):
        for actual, expected in zip(_tensors(decompositions()[op](*args)), _tensors(op(*args)), strict=True):
            torch.testing.assert_close(actual, expected)
            assert actual.dim() != 4 or suggests_channels_last(actual) == suggests_channels_last(expected)


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("seq_idx", [None, [[0] * 5 + [1] * 4, [0] * 7 + [-1] * 2]], ids=["one", "many"])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("wide", [False, True])
def test_causal_conv1d(activation, seq_idx, states, wide):
    x = torch.randn(2, 3, 9, dtype=torch.bfloat16 if wide else torch.float64)
    weight, bias = torch.randn(3, 4, dtype=torch.float32 if wide else x.dtype), torch.randn(3).to(x.dtype)
    initial_states = torch.randn(2, 3, 6).to(x.dtype) if states else None
    numbers = None if seq_idx is None else torch.tensor(seq_idx, dtype=torch.int32)
    for operand in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        args = operand, weight, bias, initial_states, numbers, 2, ACTIVATION_CODES[activation]
        actual, expected = decompositions()[CAUSAL_CONV1D](*args), CAUSAL_CONV1D(*args)
        torch.testing.assert_close(actual, expected)
        assert actual.stride() == expected.stride()


def _tensors(result):
    return result if isinstance(result, tuple) else (result,)


def test_fewer_outputs_than_there_are():
    """Only a direct call of the operator can ask for them."""
    input, weight = torch.randn(1, 2, 9, 9), torch.randn(2, 1, 3, 3)
    args = (input, weight, None, 3, 7, 1, 1, 0, 0, 1, 1, False)
    torch.testing.assert_close(decompositions()[FORWARD](*args), FORWARD(*args))


@pytest.mark.parametrize("seed", range(20))
def test_sizes_that_no_call_has(seed):
    """The operators take any sizes: outputs beyond the input, fewer than there are, padding beyond the kernel, none."""
    rng = random.Random(seed)

    def pair(least, most):
        return rng.randint(least, most), rng.randint(least, most)

    input_hw, output_hw, kernel, pads = pair(0, 9), pair(0, 9), pair(1, 4), pair(0, 6)
    geometry = (*pair(1, 3), *pads, *pair(1, 3))
    multiplier, batch = rng.randint(1, 2), rng.choice((0, 2, 2, 2))
    input, weight, grad_output = (
        torch.randn(size, dtype=torch.float64)
        for size in ((batch, 3, *input_hw), (3 * multiplier, 1, *kernel), (batch, 3 * multiplier, *output_hw))
    )
    for op, args in (
        (GRAD_INPUT, (grad_output, weight, *input.shape[1:], *geometry, False)),
        (GRAD_WEIGHT, (input, grad_output, *kernel, *geometry, True, False)),
    ):
        for actual, expected in zip(_tensors(decompositions()[op](*args)), _tensors(op(*args)), strict=True):
            torch.testing.assert_close(actual, expected)


class Activated(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.weight, self.activation = nn.Parameter(torch.randn(4, 1, 3, 3)), activation

    def forward(self, input):
        return depthwise_conv2d(input, self.weight, padding=1, activation=self.activation)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh"])
def test_activations(activation):
    """The operator with an activation in it, decomposed and in a graph, is the same as the two after each other."""
    input, model = 3 * torch.randn(2, 4, 7, 6), Activated(activation)
    output = model(input).detach()
    code = ACTIVATION_CODES[activation]
    args = (input, model.weight.detach(), None, 7, 6, 1, 1, 1, 1, 1, 1, False, code)
    torch.testing.assert_close(decompositions()[FORWARD](*args), output)
    graph = torch.fx.Graph()
    values = [graph.placeholder("input"), graph.placeholder("weight")]
    for node, value in zip(values, args, strict=False):
        node.meta["val"] = value
    graph.output(graph.call_function(FORWARD, (*values, *args[2:])))
    module = to_aten(torch.fx.GraphModule({}, graph))
    assert "torch_dwconv" not in module.code
    torch.testing.assert_close(module(*args[:2]), output)


def test_pytorch_knows_them():
    assert get_decompositions(OPERATORS) == decompositions()


class Layers(nn.Module):
    """Padding alike on opposite sides, and not."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.even = DepthwiseConv2d(4, 8, 3, padding=1)
        self.uneven = DepthwiseConv2d(8, 8, 3, **ASYMMETRIC)

    def forward(self, input):
        return self.uneven(self.even(self.convolution(input)).relu())


@pytest.mark.parametrize("memory_format", FORMATS)
def test_run_decompositions(memory_format):
    model, input = Layers().to(memory_format=memory_format), torch.randn(2, 3, 8, 9).to(memory_format=memory_format)
    table = torch.export.default_decompositions()
    table.update(decompositions())
    program = torch.export.export(model, (input,)).run_decompositions(table)
    convolution = "aten::convolution"
    assert names(program) == [convolution, convolution, "aten::relu", "aten::constant_pad_nd", convolution]
    output = program.module()(input)
    torch.testing.assert_close(output, model(input))
    assert output.stride() == model(input).stride()


def test_run_decompositions_of_a_dynamic_graph():
    model = Layers()
    dynamic = {
        0: torch.export.Dim("N"),
        2: torch.export.Dim("H", min=6, max=64),
        3: torch.export.Dim("W", min=6, max=64),
    }
    program = torch.export.export(model, (torch.randn(2, 3, 8, 9),), dynamic_shapes=(dynamic,))
    program = program.run_decompositions(decompositions())
    assert not [name for name in names(program) if name.startswith("torch_dwconv")]
    for size in ((1, 3, 9, 7), (3, 3, 12, 13)):
        input = torch.randn(size)
        torch.testing.assert_close(program.module()(input), model(input))


def test_to_aten():
    model, input = Layers(), torch.randn(2, 3, 8, 9)
    program = torch.export.export(model, (input,))
    assert to_aten(program) is program
    assert names(program) == ["aten::conv2d", "aten::conv2d", "aten::relu", "aten::pad", "aten::conv2d"]
    torch.testing.assert_close(program.module()(input), model(input))
    module = torch.export.export(model, (input,)).module()
    assert to_aten(module) is module
    torch.testing.assert_close(module(input), model(input))


def test_to_aten_with_a_dynamic_size():
    batch = ({0: torch.export.Dim("N")},)
    program = to_aten(torch.export.export(Layers(), (torch.randn(2, 3, 8, 9),), dynamic_shapes=batch))
    assert "torch_dwconv::forward" not in names(program)
    assert program.module()(torch.randn(5, 3, 8, 9)).shape[0] == 5


def test_to_aten_refuses():
    with pytest.raises(TypeError, match="program must be an ExportedProgram or a GraphModule, got Layers"):
        to_aten(Layers())
    traced = torch.fx.Graph()
    operands = [traced.placeholder("input"), traced.placeholder("weight")]
    traced.output(traced.call_function(FORWARD, (*operands, None, 3, 3, 1, 1, 0, 0, 1, 1, False)))
    with pytest.raises(ValueError, match=r"needs meta\['val'\] of every node, .* input_1 has none"):
        to_aten(torch.fx.GraphModule({}, traced))


def test_eager_mode_quantisation():
    """torch.ao's eager flow looks for nn.Conv2d by its exact type: after revert it finds the depthwise layers."""
    if not torch.backends.quantized.supported_engines:
        pytest.fail("this PyTorch has no quantised engine")
    quantization = torch.ao.quantization
    model = nn.Sequential(quantization.QuantStub(), nn.Conv2d(8, 8, 3, groups=8), quantization.DeQuantStub())
    model = revert(convert(model)).eval()
    model.qconfig = quantization.get_default_qconfig("x86")
    input = torch.rand(2, 8, 9, 9)
    exact = model(input)
    prepared = quantization.prepare(model)
    prepared(input)
    quantised = quantization.convert(prepared)
    assert type(quantised[1]).__module__.startswith("torch.ao.nn.quantized")
    assert (quantised(input) - exact).norm() / exact.norm() < 0.05


FOLLOWING = {"relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU}


@pytest.mark.parametrize("activation", [None, *FOLLOWING])
def test_pt2e_quantisation(activation):
    """torchao's graph flow finds our layers, and quantises them and what follows as it does PyTorch's."""
    pytest.importorskip("torchao")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    depthwise = DepthwiseConv2d(8, 8, 3, groups=8, activation=activation)
    plain = nn.Conv2d(8, 8, 3, groups=8)
    plain.load_state_dict(depthwise.state_dict())
    following = [] if activation is None else [FOLLOWING[activation]()]
    pointwise, input = nn.Conv2d(8, 16, 1), torch.randn(4, 8, 12, 12)

    def quantised(*layers):
        captured = to_aten(torch.export.export(nn.Sequential(*layers).eval(), (input,))).module()
        config = x86.get_default_x86_inductor_quantization_config()
        prepared = prepare_pt2e(captured, x86.X86InductorQuantizer().set_global(config))
        prepared(input)
        return convert_pt2e(prepared)

    actual, expected = quantised(depthwise, pointwise), quantised(plain, *following, pointwise)
    assert "aten::conv2d" in names(expected) and "quantized_decomposed::quantize_per_tensor" in names(expected)
    assert names(actual) == names(expected)
    torch.testing.assert_close(actual(input), expected(input))

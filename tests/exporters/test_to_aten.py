"""Every operator, transposed layers and training steps in PyTorch's terms, at static and dynamic sizes."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.utils.source_matcher_utils import get_source_partitions

from tests.exporters.graphs import names
from torch_dwconv import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    decompositions,
    depthwise_conv2d,
    depthwise_conv_transpose2d,
    to_aten,
)
from torch_dwconv.operators.schemas import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT


def tensors(result):
    return result if isinstance(result, (tuple, list)) else (result,)


class Operator(nn.Module):
    """An operator with the sizes of a convolution of its first operand's; `options` are those of depthwise_conv2d."""

    def __init__(self, op, channels, multiplier, options, channels_last):
        super().__init__()
        self.op, self.options, self.channels_last = op, options, channels_last
        self.weight = nn.Parameter(torch.randn(channels * multiplier, 1, 3, 4))

    def forward(self, input, grad_output):
        weight, channels_last = self.weight, self.channels_last
        (top, _), (left, _) = self.options["padding"]
        stride = self.options["stride"]
        geometry = (stride, stride, top, left, 2, 2)
        args = {
            FORWARD: (input, weight, None, *grad_output.shape[2:], *geometry, channels_last),
            GRAD_INPUT: (grad_output, weight, *input.shape[1:], *geometry, channels_last),
            GRAD_WEIGHT: (input, grad_output, 3, 4, *geometry, True, channels_last),
            BACKWARD: (grad_output, input, weight, *geometry, False, channels_last, False),
        }
        return self.op(*args[self.op])


PADDINGS = {"alike": ((1, 1), (2, 2)), "apart": ((0, 1), (3, 1))}


@pytest.mark.parametrize("op", (FORWARD, GRAD_INPUT, GRAD_WEIGHT, BACKWARD), ids=lambda op: op.name())
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("multiplier, stride", [(1, 2), (2, 1)])
def test_to_aten_of_each_operator(op, padding, dynamic, multiplier, stride):
    channels_last = multiplier == 1
    options = {"stride": stride, "padding": PADDINGS[padding]}
    model = Operator(op, 3, multiplier, options, channels_last)

    def operands(*size):
        input = torch.randn(2, 3, *size)
        return input, torch.randn_like(depthwise_conv2d(input, model.weight, dilation=2, **options))

    auto = {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if dynamic else None
    program = torch.export.export(model, operands(12, 15), dynamic_shapes=(auto, auto) if dynamic else None)
    to_aten(program)
    program.validate()
    assert all(name.startswith("aten::") for name in names(program))
    for size in ((12, 15), (11, 20)) if dynamic else ((12, 15),):
        args = operands(*size)
        for actual, expected in zip(tensors(program.module()(*args)), tensors(model(*args)), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
            assert actual.stride() == expected.stride()
    for node in program.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            assert "val" in node.meta


class Streaming(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = DepthwiseConv1d(3, 3, 4, padding=(6, 0), dilation=2, activation="silu")

    def forward(self, input, states):
        return self.layer(input, states, return_final_states=True)


def test_to_aten_of_a_layer_with_states():
    model, states = Streaming(), torch.randn(2, 3, 6)
    shapes = {2: torch.export.Dim.AUTO}, None
    program = to_aten(torch.export.export(model, (torch.randn(2, 3, 9), states), dynamic_shapes=shapes))
    program.validate()
    assert {"aten::conv2d", "aten::silu"} <= set(names(program))
    assert all(name.startswith("aten::") for name in names(program))
    for size in (9, 20):
        input = torch.randn(2, 3, size)
        torch.testing.assert_close(program.module()(input, states), model(input, states), rtol=1e-4, atol=1e-5)


def test_a_program_stays_valid(tmp_path):
    """Its signature names the nodes that it returns."""
    input = torch.randn(1, 4, 8, 8)
    program = to_aten(torch.export.export(DepthwiseConv2d(4, 4, 3), (input,)))
    expected = program.module()(input)
    program.validate()
    torch.export.save(program, str(tmp_path / "program.pt2"))
    torch.testing.assert_close(torch.export.load(str(tmp_path / "program.pt2")).module()(input), expected)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "output_padding": 1}, {"padding": 3, "dilation": 2}]
)
@pytest.mark.parametrize("multiplier, bias, channels_last", [(1, False, True), (2, True, False), (2, True, True)])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_transposed_layer_is_pytorchs_node(options, multiplier, bias, channels_last, dynamic):
    """With the multiplier and the bias in it, and where it came from beside it, as quantisers want it."""
    ours = DepthwiseConvTranspose2d(4, 4 * multiplier, 3, bias=bias, **options)
    theirs = nn.ConvTranspose2d(4, 4 * multiplier, 3, groups=4, bias=bias, **options)
    theirs.load_state_dict(ours.state_dict())
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input, Dim = torch.randn(2, 4, 7, 8).to(memory_format=memory_format), torch.export.Dim
    shapes = ({0: Dim("N"), 2: Dim("H", min=4), 3: Dim("W", min=4)},) if dynamic else None
    programs = [torch.export.export(layer, (input,), dynamic_shapes=shapes) for layer in (ours, theirs)]
    to_aten(programs[0]).validate()
    for program in programs:
        assert [name for name in names(program) if "sym_size" not in name] == ["aten::conv_transpose2d.input"]
    (node,) = programs[0].graph.find_nodes(op="call_function", target=torch.ops.aten.conv_transpose2d.input)
    found = get_source_partitions(programs[0].graph, [nn.ConvTranspose2d])
    assert [partition.output_nodes for partition in found[nn.ConvTranspose2d]] == [[node]]
    for size in ((2, 4, 7, 8), (3, 4, 9, 5)) if dynamic else ((2, 4, 7, 8),):
        input = torch.randn(size).to(memory_format=memory_format)
        torch.testing.assert_close(programs[0].module()(input), programs[1].module()(input))


class Regions(nn.Module):
    """Layers in parts of the graph that are modules of their own."""

    def __init__(self):
        super().__init__()
        self.frozen = DepthwiseConv2d(4, 4, 3, padding=1)
        self.up, self.down = DepthwiseConvTranspose2d(4, 8, 3, padding=1), DepthwiseConv2d(4, 8, 3, padding=1)

    def forward(self, input):
        with torch.no_grad():
            input = self.frozen(input)
        return torch.cond(input.sum() > 0, self.up, self.down, (input,))


def test_operators_in_parts_of_a_graph():
    model = Regions()
    program = torch.export.export(model, (torch.randn(1, 4, 8, 8),))
    parts = [part for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    assert sum("torch_dwconv" in part.code for part in parts) == 3
    to_aten(program).validate()
    assert not any("torch_dwconv" in part.code for part in parts)
    for input in (torch.ones(1, 4, 8, 8), -torch.ones(1, 4, 8, 8)):
        torch.testing.assert_close(program.module()(input), model(input))


def test_a_sum_with_something_else_stays():
    """Only what is the bias of a layer is taken for one."""

    class Sum(nn.Module):
        def forward(self, input, weight, term):
            return depthwise_conv_transpose2d(input, weight) + term[:, None, None]

    args = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 3, 3), torch.randn(1)
    program = to_aten(torch.export.export(Sum(), args))
    assert names(program)[-1] == "aten::add.Tensor"
    torch.testing.assert_close(program.module()(*args), Sum()(*args))


class Decoder(nn.Module):
    def __init__(self, multiplier):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 1)
        self.first = DepthwiseConvTranspose2d(4, 4 * multiplier, 4, stride=2, padding=1)
        self.weight = nn.Parameter(torch.randn(4 * multiplier, 2, 3, 3))
        self.last = DepthwiseConvTranspose1d(8 * multiplier, 8 * multiplier, 3, padding=1)

    def forward(self, input):
        output = self.first(self.convolution(input)).relu()
        output = depthwise_conv_transpose2d(output, self.weight, None, 2, ((0, 1), (2, 1)), 1)
        return self.last(output.flatten(2))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_transposed_layers_in_every_term(dynamic, multiplier):
    """run_decompositions and to_aten leave no operator of ours; what comes out is the same, at other sizes too."""
    model = Decoder(multiplier)
    shapes = ({0: torch.export.Dim("N"), 2: torch.export.Dim("H"), 3: torch.export.Dim("W")},) if dynamic else None
    table = torch.export.default_decompositions()
    table.update(decompositions())
    program = torch.export.export(model, (torch.randn(2, 3, 8, 9),), dynamic_shapes=shapes)
    core = program.run_decompositions(table)
    assert names(core).count("aten::convolution") == 4 and "aten::convolution_backward" not in names(core)
    layers = to_aten(program)
    layers.validate()
    assert names(layers).count("aten::conv_transpose2d.input") == 3
    for program in (core, layers):
        assert not [name for name in names(program) if "torch_dwconv" in name]
        for size in ((2, 3, 8, 9), (3, 3, 5, 12)) if dynamic else ((2, 3, 8, 9),):
            input = torch.randn(size)
            output, expected = program.module()(input), model(input)
            torch.testing.assert_close(output, expected)
            assert output.stride() == expected.stride()


class OfDataSize(nn.Module):
    """A layer whose input has sizes that are data."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, sizes):
        height, width = sizes.tolist()
        return self.layer(torch.ones(1, 4, height, width))


@pytest.mark.parametrize(
    "layer",
    [
        DepthwiseConv2d(4, 4, 3, stride=2, padding="same"),
        DepthwiseConv2d(4, 8, 3, padding=((0, 1), (2, 1))),
        DepthwiseConvTranspose2d(4, 8, 3, stride=2, padding=1, output_padding=1),
    ],
    ids=repr,
)
def test_sizes_that_are_data(layer):
    table = torch.export.default_decompositions()
    table.update(decompositions())
    program = torch.export.export(OfDataSize(layer), (torch.tensor([7, 9]),))
    for lowered in (program.run_decompositions(table), to_aten(program)):
        assert not [name for name in names(lowered) if "torch_dwconv" in name]
        for height in (4, 11):
            sizes = torch.tensor([height, 6])
            torch.testing.assert_close(lowered.module()(sizes), OfDataSize(layer)(sizes))


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_a_training_graph_in_every_term(dynamic):
    """The joint graph that functionalisation makes has the gradients too."""
    model = nn.Sequential(
        DepthwiseConv2d(3, 6, 3, stride=2, padding=((0, 1), (1, 2))), DepthwiseConvTranspose2d(6, 6, 3, 2)
    )

    def step(input, *parameters):
        named = dict(zip(dict(model.named_parameters()), parameters, strict=True))
        loss = torch.func.functional_call(model, named, (input,)).square().sum()
        return torch.autograd.grad(loss, [input, *parameters])

    parameters = [parameter.detach().requires_grad_() for parameter in model.parameters()]
    input = torch.randn(2, 3, 9, 8, requires_grad=True)
    graph = make_fx(step, tracing_mode="symbolic" if dynamic else "fake")(input, *parameters)
    assert {GRAD_INPUT, GRAD_WEIGHT} <= {node.target for node in graph.graph.nodes}
    to_aten(graph)
    assert "torch_dwconv" not in graph.code
    for size in ((2, 3, 9, 8), (1, 3, 12, 7)) if dynamic else ((2, 3, 9, 8),):
        input = torch.randn(size, requires_grad=True)
        expected = step(input, *parameters)
        torch.testing.assert_close(graph(input, *parameters), expected)

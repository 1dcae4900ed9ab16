"""The pass that gives a following activation to the operator: what it takes, what it leaves, that it is optional."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch._inductor.custom_graph_pass import CustomGraphPass

from torch_dwconv import DepthwiseConv2d
from torch_dwconv.inductor import FuseActivations
from torch_dwconv.operators.schemas import ACTIVATION_CODES, FORWARD

ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
}


def compiled(model, graphs, then=None):
    """The model compiled for aot_eager with the pass, as Inductor applies it, and its graphs."""

    def backend(module, inputs):
        FuseActivations(then)(module.graph)
        module.recompile()
        graphs.append(module)
        return torch._dynamo.lookup_backend("aot_eager")(module, inputs)

    return torch.compile(model, backend=backend, fullgraph=True)


def fused(graph):
    nodes = graph.find_nodes(op="call_function", target=FORWARD)
    return [node.args[12] if len(node.args) > 12 else 0 for node in nodes]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation(name, fresh_compiler):
    model, input, graphs = nn.Sequential(DepthwiseConv2d(4, 4, 3), ACTIVATIONS[name]), torch.randn(2, 4, 9, 8), []
    run = compiled(model, graphs)
    with torch.no_grad():
        torch.testing.assert_close(run(4 * input), model(4 * input))
    (module,) = graphs
    assert fused(module.graph) == [ACTIVATION_CODES[name]]
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    assert [node.target for node in calls if node.target is not FORWARD] == []


def test_gradients(fresh_compiler):
    model, input = nn.Sequential(DepthwiseConv2d(4, 4, 3), nn.SiLU()), torch.randn(2, 4, 9, 8)
    compiled(model, [])(input).square().sum().backward()
    actual = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(input).square().sum().backward()
    torch.testing.assert_close(actual, [parameter.grad for parameter in model.parameters()])


def test_a_result_with_another_reader_stays(fresh_compiler):
    layer, graphs = DepthwiseConv2d(4, 4, 3, padding=1), []

    def residual(input):
        features = layer(input)
        return features.sigmoid() + torch.relu(features)

    input = torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(compiled(residual, graphs)(input), residual(input))
    assert fused(graphs[0].graph) == [0]


class Counting(CustomGraphPass):
    def __init__(self):
        self.calls = 0

    def __call__(self, graph):
        self.calls += 1

    def uuid(self):
        return "counting"


def test_another_pass_follows():
    other, graph = Counting(), torch.fx.Graph()
    both = FuseActivations(other)
    both(graph)
    assert other.calls == 1
    assert both.uuid() not in (None, FuseActivations().uuid()) and FuseActivations().uuid() == FuseActivations().uuid()
    assert FuseActivations(lambda graph: None).uuid() is None  # a pass without a name must not be cached


@pytest.mark.slow
def test_inductor(fresh_compiler):
    model, input = nn.Sequential(DepthwiseConv2d(4, 4, 3), nn.ReLU6()).eval(), torch.randn(2, 4, 9, 8)
    other = Counting()
    run = torch.compile(model, fullgraph=True, options={"pre_grad_custom_pass": FuseActivations(other)})
    with torch.no_grad():
        _, (code,) = torch._inductor.utils.run_and_get_code(run, input)
        torch.testing.assert_close(run(input), model(input))
    assert other.calls == 1
    assert f", {ACTIVATION_CODES['relu6']})" in code and "cpp_fused" not in code


def test_importing_the_package_changes_nothing():
    """Neither Inductor's settings nor its presence in a program that does not compile."""
    program = (
        "import torch, sys, torch_dwconv; assert 'torch._inductor.lowering' not in sys.modules\n"
        "from torch._inductor import config; before = config.save_config_portable()\n"
        "import torch_dwconv.inductor; assert config.save_config_portable() == before"
    )
    subprocess.run([sys.executable, "-c", program], check=True)

"""Layers in the hands of PyTorch's own tools: torch.fx, TorchScript, and those that make other layers of them."""

import copy
import importlib
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils import mkldnn

import torch_dwconv
from torch_dwconv import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    SeparableConv1d,
    SeparableConv2d,
    convert,
)

LAYERS = {
    "2-D": lambda: DepthwiseConv2d(3, 6, 3, padding=((1, 0), (0, 1)), activation="silu"),
    "2-D, same": lambda: DepthwiseConv2d(3, 6, 3, stride=2, padding="same", padding_mode="reflect"),
    "1-D": lambda: DepthwiseConv1d(3, 6, 3, padding=(2, 0)),
    "1-D, activation": lambda: DepthwiseConv1d(3, 6, 3, padding=(2, 0), activation="gelu"),
    "1-D, same": lambda: DepthwiseConv1d(3, 6, 3, stride=2, padding="same", padding_mode="circular"),
    "transposed 2-D": lambda: DepthwiseConvTranspose2d(3, 6, 3, stride=2, padding=1),
    "transposed 1-D": lambda: DepthwiseConvTranspose1d(3, 6, 3, stride=2, output_padding=1),
    "separable 2-D": lambda: SeparableConv2d(3, 5, 3, stride=2, padding="same"),
    "separable 1-D": lambda: SeparableConv1d(3, 5, 3, padding=(2, 0), bias=False),
}


def images(name):
    return [torch.randn(2, 3, *((size,) if "1-D" in name else (size, size + 1))) for size in (9, 12)]


@pytest.mark.parametrize("name", LAYERS)
def test_fx_keeps_a_layer_whole(name, tmp_path, monkeypatch):
    model, inputs = nn.Sequential(LAYERS[name](), nn.ReLU()), images(name)
    traced = torch.fx.symbolic_trace(model)
    calls = [(node.op, node.target) for node in traced.graph.nodes]
    assert calls == [("placeholder", "input"), ("call_module", "0"), ("call_module", "1"), ("output", "output")]
    name = f"saved_{list(LAYERS).index(name)}"
    traced.to_folder(tmp_path / name, "Saved")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "load", partial(torch.load, weights_only=False))  # what to_folder writes loads so
    loaded = importlib.import_module(name).Saved()
    for input in inputs:
        assert torch.equal(traced(input), model(input))
        assert torch.equal(loaded(input), model(input))


def test_nodes_of_a_converted_model_are_those_of_the_plain_one():
    plain = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1, groups=3)))
    names = [node.name for node in torch.fx.symbolic_trace(plain).graph.nodes]
    assert [node.name for node in torch.fx.symbolic_trace(convert(plain)).graph.nodes] == names


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("name", LAYERS)
def test_fx_runs_hooks_once(name, hook):
    model, inputs = nn.Sequential(LAYERS[name]()), images(name)
    getattr(model[0], hook)(lambda layer, args, *output: output[0] * 2 if output else (args[0] * 2,))
    traced = torch.fx.symbolic_trace(model)
    for input in inputs:
        torch.testing.assert_close(traced(input), model(input))


@pytest.mark.parametrize("name", [name for name in LAYERS if "separable" not in name])
def test_nodes_have_the_arguments_of_the_call(name):
    """A backward hook counts the inputs."""
    model = nn.Sequential(LAYERS[name]())
    traced = torch.fx.symbolic_trace(model)
    model[0].register_full_backward_hook(lambda layer, grad_input, grad_output: (grad_input[0] * 2,))
    for input in images(name):
        input.requires_grad_()
        results = [torch.autograd.grad(run(input).sum(), input)[0] for run in (traced, model)]
        torch.testing.assert_close(*results)


def test_fx_asks_the_tracer_for_leaves():
    class ToTheBottom(torch.fx.Tracer):
        def is_leaf_module(self, module, name):
            return False

    graph = ToTheBottom().trace(nn.Sequential(DepthwiseConv2d(3, 3, 3)))
    assert torch_dwconv.depthwise_conv2d in {node.target for node in graph.nodes}
    assert "call_module" not in {node.op for node in graph.nodes}


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 1, 3, 3))

    def forward(self, input):
        return torch_dwconv.depthwise_conv2d(input, self.weight, padding="same", stride=2)


@pytest.mark.parametrize("name", ["function", *LAYERS])
def test_fx_traces_a_function_and_a_layer_by_itself(name):
    model = Functional() if name == "function" else LAYERS[name]()
    traced = torch.fx.symbolic_trace(model)
    for input in images(name):  # 'same' must not have been fixed to one size
        assert torch.equal(traced(input), model(input))


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_scripts(name, tmp_path):
    layer = LAYERS[name]()
    scripted = torch.jit.script(layer)
    torch.jit.save(scripted, tmp_path / "layer.pt")
    for input in images(name):
        torch.testing.assert_close(scripted(input), layer(input))
        torch.testing.assert_close(torch.jit.load(tmp_path / "layer.pt")(input), layer(input))


def calls_functions(x: torch.Tensor, w: torch.Tensor, p: torch.Tensor):
    return (
        torch_dwconv.depthwise_conv2d(x, w),
        torch_dwconv.depthwise_conv2d(x, w, None, 2, "same", activation="gelu_tanh"),
        torch_dwconv.depthwise_conv2d(x, w, stride=(1, 2), padding=((1, 0), (0, 2)), dilation=[2, 1]),
        torch_dwconv.depthwise_conv2d(x, w, padding=[2, 1]),
        torch_dwconv.separable_conv2d(x, w, p, padding=1, stride=2),
    )


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_script_calls_the_functions():
    tensors = torch.randn(2, 3, 9, 9), torch.randn(6, 1, 3, 3), torch.randn(4, 6, 1, 1)
    scripted = torch.jit.script(calls_functions)
    for ours, expected in zip(scripted(*tensors), calls_functions(*tensors), strict=True):
        torch.testing.assert_close(ours, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind, norm_kind", [(DepthwiseConv2d, nn.BatchNorm2d), (DepthwiseConv1d, nn.BatchNorm1d)])
def test_an_activation_is_not_lost_by_tools_that_do_not_know_it(kind, norm_kind):
    layer, norm = kind(4, 4, 3, activation="relu").eval(), norm_kind(4).eval()
    with pytest.raises(RuntimeError, match="fuse_conv_bn_eval would put the BatchNorm before the activation of Depthw"):
        fuse_conv_bn_eval(layer, norm)
    with pytest.raises(RuntimeError, match=f"to_mkldnn would drop the activation of {kind.__name__}"):
        mkldnn.to_mkldnn(nn.Sequential(copy.deepcopy(layer)))
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))  # anybody else may set it
    assert list(layer.named_children()) == []


@pytest.mark.filterwarnings("ignore")
def test_tools_take_layers_without_an_activation():
    layer, norm = DepthwiseConv2d(4, 4, 3, padding=((1, 0), (0, 1))).eval(), nn.BatchNorm2d(4).eval()
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(1, 2)
    input = torch.randn(2, 4, 9, 9)
    torch.testing.assert_close(fuse_conv_bn_eval(layer, norm)(input), norm(layer(input)))
    layer = DepthwiseConv2d(4, 4, 3, padding=1).eval()
    output = mkldnn.to_mkldnn(copy.deepcopy(layer))(input.to_mkldnn()).to_dense()
    torch.testing.assert_close(output, layer(input))

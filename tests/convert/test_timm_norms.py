"""convert(blocks=True) on timm's BatchNormAct2d, written here as timm writes it; on timm itself: tests/ecosystem."""

import copy
import pickle
import subprocess
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dwconv
from torch_dwconv import convert, revert

from .test_blocks import gradients, reported


class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, num_features, act=None, drop=None, **options):
        super().__init__(num_features, **options)
        self.drop = nn.Identity() if drop is None else drop
        self.act = nn.Identity() if act is None else act

    def forward(self, x):
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats:  # noqa: SIM102  (TorchScript learns what is None from an if)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                if self.momentum is None:
                    factor = 1.0 / float(self.num_batches_tracked)
        of_batch = self.training or (self.running_mean is None and self.running_var is None)
        moves = not self.training or self.track_running_stats
        x = F.batch_norm(
            x,
            self.running_mean if moves else None,
            self.running_var if moves else None,
            self.weight,
            self.bias,
            of_batch,
            factor,
            self.eps,
        )
        return self.act(self.drop(x))


class SyncBatchNormAct(nn.SyncBatchNorm):
    pass


class FrozenBatchNormAct2d(nn.Module):
    pass


class Subclass(BatchNormAct2d):
    pass


class GELU(nn.Module):
    __module__ = "timm.layers.activations"

    def forward(self, x):
        return F.gelu(x)


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    layers = types.ModuleType("timm.layers")
    layers.BatchNormAct2d, layers.FrozenBatchNormAct2d = BatchNormAct2d, FrozenBatchNormAct2d
    monkeypatch.setitem(sys.modules, "timm.layers", layers)


def randomised(layer: BatchNormAct2d) -> BatchNormAct2d:
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer.double()


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 6, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def fused(model: nn.Module, monkeypatch) -> list[str | None]:
    """The activations that are computed with the BatchNorms in one call of a model."""
    found, method = [], torch_dwconv.BatchNormAct2d._normalised

    def seen(self, input, activation):
        found.append(activation)
        return method(self, input, activation)

    with monkeypatch.context() as patch:
        patch.setattr(torch_dwconv.BatchNormAct2d, "_normalised", seen)
        model(images())
    return found


ACTS = {
    "relu": nn.ReLU(inplace=True),
    "relu6": nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(inplace=True),
    "gelu": nn.GELU(),
    "gelu of timm": GELU(),
    "identity": nn.Identity(),
    "mish": nn.Mish(),
    "leaky": nn.LeakyReLU(),
}


@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
@pytest.mark.parametrize("act", ACTS)
def test_trains_and_evaluates_as_before(act, options, monkeypatch):
    layer = randomised(BatchNormAct2d(6, copy.deepcopy(ACTS[act]), **options))
    plain, keys = copy.deepcopy(layer), [*vars(layer)]
    model = nn.Sequential(layer)
    assert reported(model, blocks=True).swapped == ["0"] and model[0] is layer
    assert isinstance(layer, torch_dwconv.BatchNormAct2d) and isinstance(layer, BatchNormAct2d)
    assert [*layer.state_dict()] == [*plain.state_dict()] and [*vars(layer)] == keys
    for step in range(4):
        layer.train(step < 3), plain.train(step < 3)
        x, y = images(step).requires_grad_(), images(step).requires_grad_()
        results = [
            [output, *torch.autograd.grad(output.square().sum(), [image, *norm.parameters()])]
            for norm, image in ((layer, x), (plain, y))
            for output in [norm(image)]
        ]
        torch.testing.assert_close(*results)
        torch.testing.assert_close(layer.state_dict(), plain.state_dict())
    expected = None if act in ("identity", "mish", "leaky") else act.split()[0]
    assert fused(model, monkeypatch) == [expected]
    shown = f", activation={expected}" if expected else ""
    assert repr(layer) == repr(plain).replace("\n  (drop)", f"{shown}\n  (drop)")
    assert reported(model, revert).swapped == ["0"]
    assert type(layer) is BatchNormAct2d and repr(layer) == repr(plain) and [*vars(layer)] == keys


def test_a_drop_comes_between(monkeypatch):
    class Doubled(nn.Module):
        def forward(self, x):
            return 2 * x

    layer = randomised(BatchNormAct2d(6, nn.ReLU6(), Doubled()))
    plain = copy.deepcopy(layer)
    convert(layer, blocks=True)
    assert fused(layer, monkeypatch) == [None]
    layer.load_state_dict(plain.state_dict())
    torch.testing.assert_close(gradients(layer, images()), gradients(plain, images()))


@pytest.mark.parametrize("where", ["drop", "act", "all"])
def test_hooks_of_the_children_run(where, monkeypatch):
    layer, seen = convert(randomised(BatchNormAct2d(6, nn.ReLU())), blocks=True), []
    assert fused(layer, monkeypatch) == ["relu"]

    def hook(module, inputs, output):
        seen.append(type(module))
        return output + 1

    register = nn.modules.module.register_module_forward_hook if where == "all" else getattr(layer, where, None)
    handle = register(hook) if where == "all" else register.register_forward_hook(hook)
    plain = copy.deepcopy(layer)
    output = layer(images())
    called = {"drop": [nn.Identity], "act": [nn.ReLU], "all": [nn.Identity, nn.ReLU, type(layer)]}[where]
    assert seen == called
    torch.testing.assert_close(output, revert(plain)(images()))
    handle.remove()
    assert fused(layer, monkeypatch) == ["relu"]


def test_another_act_is_computed(monkeypatch):
    layer = convert(BatchNormAct2d(6, nn.ReLU()).double(), blocks=True)
    layer.act = nn.SiLU()
    assert fused(layer, monkeypatch) == ["silu"]
    layer.act = nn.Tanh()
    assert fused(layer, monkeypatch) == [None] and layer(images()).min() < -0.9
    layer.act = nn.ReLU()
    layer.act.forward = lambda x: x - 100
    assert layer(images()).max() < -90


def test_copies_pickles_scripts_and_traces():
    layer = convert(randomised(BatchNormAct2d(6, nn.ReLU())), blocks=True)
    layer.eval()
    others = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    for other in others:
        assert type(other) is type(layer) and type(revert(other)) is BatchNormAct2d
    model = nn.Sequential(layer)
    others += [torch.jit.script(layer), torch.jit.script(model), torch.jit.trace(layer, images())]
    graph = torch.fx.symbolic_trace(model)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    for other in [*others, graph]:
        torch.testing.assert_close(other(images()), layer(images()))
    assert b"torch_dwconv.models" in pickle.dumps(layer) and b"convert.timm_norms" not in pickle.dumps(layer)
    assert isinstance(layer, torch_dwconv.BatchNormAct2d)


def test_its_class_makes_layers_of_the_class_that_it_had():
    layer = convert(BatchNormAct2d(6, nn.ReLU()), blocks=True)
    assert type(type(layer)(3)) is BatchNormAct2d
    assert type(convert(BatchNormAct2d(5), blocks=True)) is type(layer)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("act", ["relu6", "mish"])
def test_compiles_whole(act, fresh_compiler):
    layer = randomised(BatchNormAct2d(6, copy.deepcopy(ACTS[act])))
    plain = copy.deepcopy(layer)
    compiled = torch.compile(convert(layer, blocks=True), backend="aot_eager", fullgraph=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(images()), plain(images()))


def test_subclasses_and_other_norms_stay_and_are_reported():
    replaced = BatchNormAct2d(4)
    replaced.forward = lambda x: x
    model = nn.ModuleList([Subclass(4), SyncBatchNormAct(4), FrozenBatchNormAct2d(), replaced])
    kept = [type(layer) for layer in model]
    report = reported(model, blocks=True)
    assert not report.swapped and [type(layer) for layer in model] == kept
    assert "Subclass, not nn.BatchNorm2d itself" in report.left["0"]
    assert "SyncBatchNormAct, not nn.BatchNorm2d itself" in report.left["1"]
    assert report.left["2"] == "FrozenBatchNormAct2d, whose statistics are constants"
    assert report.left["3"] == "its forward was replaced on the instance"


def test_an_activation_behind_stays_where_it_is():
    """Of a pair in an nn.Sequential: the layer has an activation of its own before it."""
    model = nn.Sequential(randomised(BatchNormAct2d(6, nn.SiLU())), nn.ReLU())
    plain = copy.deepcopy(model)
    report = reported(model, blocks=True)
    assert report.swapped == ["0"] and type(model[1]) is nn.ReLU
    torch.testing.assert_close(model(images()), plain(images()))
    assert reported(model, blocks=True).left == {"0": "already a BatchNormAct2d"}
    assert repr(revert(model)) == repr(plain)


def test_timm_is_not_imported_for_others():
    code = (
        "import sys, torch\nfrom torch import nn\nfrom torch_dwconv import convert, revert\n"
        "revert(convert(nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), blocks=True))\n"
        "assert not any(name.partition('.')[0] == 'timm' for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

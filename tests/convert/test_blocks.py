"""convert(blocks=True): BatchNorm2d with the activation behind it, and 1x1 convolutions."""

import copy
import pickle

import pytest
import torch
from torch import nn

from torch_dwconv import BatchNormAct2d, DepthwiseConv2d, PointwiseConv2d, convert, revert

ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
}


def block(activation: nn.Module | None = None) -> nn.Sequential:
    layers = [nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU6() if activation is None else activation]
    return nn.Sequential(*layers)


def reported(model, function=convert, **options):
    reports = []
    function(model, report=reports.append, **options)
    return reports[0]


def gradients(model, x):
    output = model(x)
    return [output, *torch.autograd.grad(output.square().sum(), [*model.parameters()])]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_pair_becomes_one_layer(name):
    model = block(copy.deepcopy(ACTIVATIONS[name])).double()
    plain, objects, keys = copy.deepcopy(model), [*map(id, model.modules())], [*model.state_dict()]
    report = reported(model, blocks=True)
    assert report.swapped == ["0", "1"] and not report.left
    assert type(model[0]).__mro__[1] is DepthwiseConv2d
    assert type(model[1]) is BatchNormAct2d and model[1].activation == name and type(model[2]) is nn.Identity
    assert [*map(id, model.modules())] == objects and [*model.state_dict()] == keys
    x = torch.randn(3, 4, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(gradients(model, x), gradients(plain, x))
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))
    assert reported(model, revert).swapped == ["0", "1"]
    assert repr(model) == repr(plain)
    assert [vars(layer).keys() for layer in model] == [vars(layer).keys() for layer in plain]


def test_a_copy_and_a_pickle_can_be_reverted():
    model = convert(block(), blocks=True)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other[1]) is BatchNormAct2d
        assert [type(layer) for layer in revert(other)] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU6]


def test_without_blocks_nothing_of_it_happens():
    model = convert(block())
    assert type(model[1]) is nn.BatchNorm2d and type(model[2]) is nn.ReLU6


def test_twice_changes_nothing():
    model = convert(block(), blocks=True)
    report = reported(model, blocks=True)
    assert not report.swapped and report.left["1"] == "already a BatchNormAct2d"
    assert model[1].activation == "relu6"


class Own(nn.Sequential):
    def forward(self, x):
        return self[1](x)


class NotABatchNorm(nn.BatchNorm2d):
    pass


def shared() -> nn.Module:
    activation = nn.ReLU()
    return nn.Sequential(nn.BatchNorm2d(4), activation, nn.BatchNorm2d(4), activation)


def hooked(index: int) -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    model[index].register_forward_hook(lambda *_: None)
    return model


def replaced() -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    model.forward = lambda x: model[0](x)
    return model


@pytest.mark.parametrize(
    "model",
    [
        Own(nn.BatchNorm2d(4), nn.ReLU()),
        nn.ModuleList([nn.BatchNorm2d(4), nn.ReLU()]),
        shared(),
        hooked(0),
        hooked(1),
        replaced(),
        nn.Sequential(nn.BatchNorm2d(4), nn.Hardtanh()),
        nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU()),
        nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU()),
        nn.Sequential(nn.BatchNorm2d(4)),
    ],
)
def test_where_nothing_says_what_follows_the_activation_stays(model):
    kept = [type(layer) for layer in model.modules() if not isinstance(layer, nn.BatchNorm2d)]
    convert(model, blocks=True)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert all(type(layer) is BatchNormAct2d and layer.activation is None for layer in norms)
    assert [type(layer) for layer in model.modules() if not isinstance(layer, nn.BatchNorm2d)] == kept
    revert(model)
    assert all(type(layer) is nn.BatchNorm2d for layer in norms)


def test_others_stay_and_are_reported():
    own_forward = nn.BatchNorm2d(4)
    own_forward.forward = lambda x: x
    model = nn.ModuleList([nn.SyncBatchNorm(4), NotABatchNorm(4), own_forward, nn.BatchNorm1d(4)])
    report = reported(model, blocks=True)
    assert not report.swapped and report.left.keys() == {"0", "1", "2"}
    assert "SyncBatchNorm, not nn.BatchNorm2d itself" in report.left["0"]
    assert "NotABatchNorm, not nn.BatchNorm2d itself" in report.left["1"]
    assert "replaced on the instance" in report.left["2"]


def test_revert_keeps_what_batch_norm_cannot_express():
    model = nn.Sequential(BatchNormAct2d(4, activation="relu"), BatchNormAct2d(4))
    report = reported(model, revert)
    assert report.swapped == ["1"] and "activation=relu" in report.left["0"]
    lost = convert(block(), blocks=True)
    lost[2] = nn.Identity()
    assert "activation=relu6" in reported(lost, revert).left["1"]


class NotAConv2d(nn.Conv2d):
    pass


def test_1x1_convolutions_become_ours_and_come_back():
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 1, bias=False, padding="same"), nn.Conv2d(1, 1, 1))
    plain = copy.deepcopy(model)
    assert not reported(copy.deepcopy(model)).swapped
    report = reported(model, blocks=True)
    assert report.swapped == ["0", "1", "2"] and not report.left
    assert all(type(layer) is PointwiseConv2d for layer in model)
    x = torch.randn(3, 4, 9, 9)
    torch.testing.assert_close(gradients(model[:2], x), gradients(plain[:2], x))
    assert reported(model, blocks=True).left == dict.fromkeys("012", "already a PointwiseConv2d")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
        assert reported(other, revert).swapped == ["0", "1", "2"]
        assert repr(other) == repr(plain) and all(type(layer) is nn.Conv2d for layer in other)
    assert [vars(layer).keys() for layer in model] == [vars(layer).keys() for layer in plain]


def test_other_convolutions_stay_and_are_reported():
    replaced, method = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    replaced.forward = lambda x: x
    method._conv_forward = lambda *_: None
    parametrised = nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 4, 1))
    others = [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 1, 2),
        nn.Conv2d(4, 4, 1, padding=1),
        NotAConv2d(4, 4, 1),
        parametrised,
    ]
    model = nn.ModuleList([replaced, method, *others])
    kept = [type(layer) for layer in model]
    report = reported(model, blocks=True)
    assert not report.swapped and [type(layer) for layer in model] == kept
    assert report.left["0"] == "its forward was replaced on the instance"
    assert report.left["1"] == "its _conv_forward was replaced on the instance"
    assert {report.left[name] for name in "23456"} == {"groups=1, an ordinary convolution"}


def test_a_subclass_of_ours_stays():
    class Own(PointwiseConv2d):
        pass

    report = reported(nn.Sequential(Own(4, 4), PointwiseConv2d(4, 4)), revert)
    assert report.swapped == ["1"] and "a subclass of PointwiseConv2d" in report.left["0"]


def test_a_model_of_torchvision_trains_the_same():
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    plain = torchvision.models.mobilenet_v3_small(weights=None, num_classes=7, dropout=0.0)
    model = convert(copy.deepcopy(plain), blocks=True)
    assert not any(
        type(layer) in (nn.BatchNorm2d, nn.Conv2d) and layer.groups > 1
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    )
    assert sum(type(layer) is nn.Identity for layer in model.modules()) >= 20
    assert sum(type(layer) is PointwiseConv2d for layer in model.modules()) >= 40
    x = torch.randn(4, 3, 64, 64)
    for one, other in zip(gradients(model.double(), x.double()), gradients(plain.double(), x.double()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(model.state_dict(), plain.state_dict())
    revert(model)
    assert repr(model) == repr(plain)

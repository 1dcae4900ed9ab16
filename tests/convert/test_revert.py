"""revert: undoes convert to the last attribute, and keeps what nn.Conv2d cannot express."""

import copy

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv2d, convert, revert


def attributes(model) -> dict:
    """Class and plain attributes of every module, by name."""
    internal = {"_parameters", "_modules", "_buffers"}
    return {
        name: (type(module), {k: v for k, v in vars(module).items() if k not in internal})
        for name, module in model.named_modules()
    }


def reversion_report(model):
    reports = []
    assert revert(model, report=reports.append) is model
    (report,) = reports
    return report


def test_undoes_convert(toy, toy_depthwise, image, run):
    before, expected = attributes(toy), run(copy.deepcopy(toy), image)
    report = reversion_report(convert(toy))
    assert report.swapped == toy_depthwise and report.left == {}
    assert attributes(toy) == before
    torch.testing.assert_close(run(toy, image), expected, rtol=0, atol=0)


def test_undoes_a_root_conversion():
    layer = nn.Conv2d(3, 3, 3, groups=3)
    assert type(revert(convert(layer))) is nn.Conv2d


def test_leaves_models_that_were_never_converted(toy):
    before = attributes(toy)
    report = reversion_report(toy)
    assert report.swapped == [] and report.left == {} and attributes(toy) == before


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("options", [{"padding": ((1, 1), (2, 2))}, {"padding": "same"}, {"padding": 1, "stride": 2}])
def test_a_layer_built_as_depthwise_becomes_conv2d(options, padding_mode):
    layer = DepthwiseConv2d(3, 6, (3, 4), padding_mode=padding_mode, dtype=torch.float64, **options)
    input = torch.randn(2, 3, 8, 9, dtype=torch.float64)
    expected = layer(input)
    assert reversion_report(layer).swapped == [""]
    assert type(layer) is nn.Conv2d
    torch.testing.assert_close(layer(input), expected)


class Scaled(DepthwiseConv2d):
    """A subclass that computes something else."""


def replaced_forward():
    layer = DepthwiseConv2d(3, 3, 3)
    layer.forward = layer.forward
    return layer


@pytest.mark.parametrize(
    "layer, reason",
    [
        (DepthwiseConv2d(3, 3, 3, padding=((1, 0), (1, 1))), "padding=((1, 0), (1, 1)) differs between opposite"),
        (DepthwiseConv2d(3, 3, 3, stride=2, padding="same"), "padding='same' with stride=(2, 2)"),
        (Scaled(3, 3, 3), "Scaled, a subclass of DepthwiseConv2d"),
        (replaced_forward(), "its forward was replaced on the instance"),
    ],
    ids=["sides", "same_stride", "subclass", "instance_forward"],
)
def test_leaves_and_says_why(layer, reason):
    cls = type(layer)
    report = reversion_report(nn.Sequential(layer))
    assert type(layer) is cls
    assert report.swapped == [] and reason in report.left["0"]


def test_a_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got str"):
        revert("model")


@pytest.mark.parametrize("cls, shape", [(nn.ConvTranspose2d, (1, 4, 5, 5)), (nn.ConvTranspose1d, (1, 4, 5))])
def test_a_wrapped_forward_of_a_transposed_layer_stays_whole(cls, shape):
    """It has kept our class's forward, which needs our class."""
    layer = convert(cls(4, 4, 3, groups=4))
    wrapped = layer.forward
    layer.forward = lambda *args: wrapped(*args) + 1
    expected, reports = layer(torch.ones(shape)), []
    revert(layer, report=reports.append)
    assert reports[0].left == {"": "its forward was replaced on the instance"}
    assert torch.equal(layer(torch.ones(shape)), expected)

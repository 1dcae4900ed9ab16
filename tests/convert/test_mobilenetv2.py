"""convert and revert on a whole network: MobileNetV2 of examples/, against itself with nn.Conv2d, in float64."""

import copy

import pytest
import torch
from mobilenetv2 import MobileNetV2
from torch import nn

from torch_dwconv import DepthwiseConv2d, convert, revert


@pytest.fixture
def plain() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2(num_classes=7, width=0.35, depthwise=nn.Conv2d).double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 40, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def depthwise_names(model) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups == module.in_channels
    ]


@pytest.mark.parametrize("channels_last", [False, True])
def test_logits_and_gradients(plain, images, run, channels_last):
    model = copy.deepcopy(plain)
    if channels_last:
        model, images = (value.to(memory_format=torch.channels_last) for value in (model, images))
    reports = []
    convert(model, report=reports.append)
    assert reports[0].swapped == depthwise_names(plain) and len(reports[0].swapped) == 17
    assert len(reports[0].left) == 35
    for network in (plain, model):
        network.classifier[0].p = 0.0  # dropout draws random numbers
    torch.testing.assert_close(run(model, images), run(plain, images), rtol=1e-8, atol=1e-9)


def test_state_dicts_load_in_both_directions(plain, images):
    built = MobileNetV2(num_classes=7, width=0.35).double()  # with DepthwiseConv2d from the start
    converted = convert(copy.deepcopy(plain))
    assert list(built.state_dict()) == list(plain.state_dict()) == list(converted.state_dict())
    expected = plain.eval()(images)
    for source, target in [(plain, built), (built, converted), (converted, revert(copy.deepcopy(plain)))]:
        target.load_state_dict(source.state_dict())
        torch.testing.assert_close(target.eval()(images), expected)


def test_revert_gives_back_the_plain_network(plain, images):
    expected = plain.eval()(images)
    model = revert(convert(plain))
    assert not any(isinstance(module, DepthwiseConv2d) for module in model.modules())
    assert torch.equal(model(images), expected)
    built = revert(MobileNetV2(num_classes=7, width=0.35))
    assert str(built) == str(plain)

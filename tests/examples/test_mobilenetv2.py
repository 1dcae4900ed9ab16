"""examples/mobilenetv2.py is torchvision's MobileNetV2 in names, shapes and initial statistics."""

import csv
from pathlib import Path

import pytest
import torch
from mobilenetv2 import MobileNetV2, round_channels

from torch_dwconv import DepthwiseConv2d

EXPECTED = Path(__file__).with_name("torchvision_mobilenet_v2.csv")  # of torchvision 0.29.1's mobilenet_v2()


@pytest.mark.parametrize("small_images", [False, True])
def test_state_dict_is_torchvisions(small_images):
    with EXPECTED.open(newline="") as file:
        expected = [(row["key"], row["shape"]) for row in csv.DictReader(file)]
    with torch.device("meta"):
        state = MobileNetV2(small_images=small_images).state_dict()
    assert [(key, "x".join(map(str, value.shape))) for key, value in state.items()] == expected


# torchvision's models at these widths, as printed by features[0][0], features[17].conv[1][0] and classifier[1].
@pytest.mark.parametrize("width, stem, last_depthwise, features", [(0.5, 16, 480, 1280), (1.4, 48, 1344, 1792)])
def test_width_multiplier(width, stem, last_depthwise, features):
    with torch.device("meta"):
        model = MobileNetV2(width=width)
    assert model.features[0][0].out_channels == stem
    assert model.features[17].conv[1][0].in_channels == last_depthwise
    assert model.classifier[1].in_features == features


def test_channels_round_to_eight_and_never_lose_a_tenth():
    assert [round_channels(c) for c in (1, 8, 11, 12, 16, 33.6)] == [8, 8, 16, 16, 16, 32]


@pytest.mark.parametrize("small_images, side", [(False, 2), (True, 8)])
def test_strides(small_images, side):
    model = MobileNetV2(num_classes=3, width=0.25, small_images=small_images).eval()
    images = torch.zeros(1, 3, 64, 64)
    assert model.features(images).shape[-2:] == (side, side)
    assert model(images).shape == (1, 3)


def test_every_depthwise_layer_is_ours_and_agrees_with_conv2d():
    torch.manual_seed(0)
    ours = MobileNetV2(num_classes=10, width=0.25, small_images=True)
    torch.manual_seed(0)
    plain = MobileNetV2(num_classes=10, width=0.25, small_images=True, depthwise=torch.nn.Conv2d)
    assert sum(isinstance(module, DepthwiseConv2d) for module in ours.modules()) == 17
    assert not any(isinstance(module, DepthwiseConv2d) for module in plain.modules())
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        assert torch.equal(mine, theirs), name
    images = torch.rand(4, 3, 16, 16).double()  # in float32 ReLU6 makes much of rounding
    for module in (ours, plain):
        module.double().eval()(images).square().sum().backward()
    torch.testing.assert_close(ours(images), plain(images), rtol=1e-9, atol=1e-10)
    for (name, mine), (_, theirs) in zip(ours.named_parameters(), plain.named_parameters(), strict=True):
        scale = theirs.grad.abs().max().item()
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=0, atol=1e-9 * scale, msg=name)

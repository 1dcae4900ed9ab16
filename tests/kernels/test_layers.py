"""The list of real layers, and what cropping one keeps."""

import pytest
import torch

from tests.layers import LAYERS, cropped, distinct_geometries


def test_every_row_is_read():
    assert len(LAYERS) == 44
    assert LAYERS[0].name == "mobilenet_v2-c32-112x112-k3x3-s1x1"
    assert LAYERS[-1].name == "odd-c5-17x9-k4x4-s3x2-d2x1-m3"
    assert {layer.model for layer in LAYERS} >= {"mobilenet_v2", "efficientnet_b0", "convnext_tiny", "replknet_31b"}


def test_distinct_geometries_keep_the_first_of_each():
    distinct = distinct_geometries()
    assert len({layer.name for layer in distinct}) == len(distinct) < len(LAYERS)
    assert {layer[1:-1] for layer in distinct} == {layer[1:-1] for layer in LAYERS}
    assert distinct[0] == LAYERS[0]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_output_size_is_that_of_conv2d(layer):
    conv = torch.nn.Conv2d(
        layer.channels,
        layer.channels * layer.multiplier,
        (layer.kernel_h, layer.kernel_w),
        (layer.stride_h, layer.stride_w),
        layer.padding,
        (layer.dilation_h, layer.dilation_w),
        groups=layer.channels,
        device="meta",
    )
    output = conv(torch.empty(1, layer.channels, layer.height, layer.width, device="meta"))
    assert tuple(output.shape[2:]) == layer.output_size
    assert output.numel() * layer.kernel_h * layer.kernel_w == layer.work


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_cropping_keeps_tiles_tails_and_geometry(layer):
    assert cropped(layer, layer.work) == layer
    small = cropped(layer, 500_000)
    assert cropped(small, 500_000) == small
    assert small._replace(height=layer.height, width=layer.width, channels=layer.channels) == layer
    for field, step in (("height", 28), ("width", 28), ("channels", 32)):
        size, cropped_size = getattr(layer, field), getattr(small, field)
        assert (size - cropped_size) % step == 0
        assert cropped_size >= min(size, step)
    smallest = all(
        getattr(small, field) < 2 * step for field, step in (("height", 28), ("width", 28), ("channels", 32))
    )
    assert small.work <= 500_000 or smallest

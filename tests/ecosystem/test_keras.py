"""Weights of Keras' depthwise and separable layers in our modules: the same output."""

import os

import pytest
import torch

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, SeparableConv1d, SeparableConv2d, weights

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # read when it is imported
keras = pytest.importorskip("keras", reason="the extra 'tensorflow' is not installed")

CASES = [(1, "same"), (1, "valid"), (2, "same"), (2, "valid")]


def output_of(layer, input) -> torch.Tensor:
    return torch.from_numpy(keras.ops.convert_to_numpy(layer(input.movedim(1, -1).numpy()))).movedim(-1, 1)


def built(cls, shape, *args, **options):
    layer = cls(*args, bias_initializer="random_normal", **options)
    layer.build((None, *shape[2:], shape[1]))
    return layer


@pytest.mark.parametrize("stride, padding", CASES)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise(stride, padding, multiplier, bias):
    options = {"depth_multiplier": multiplier, "use_bias": bias, "strides": stride, "padding": padding}
    for ours, theirs, shape in [
        (DepthwiseConv2d, keras.layers.DepthwiseConv2D, (2, 4, 12, 11)),
        (DepthwiseConv1d, keras.layers.DepthwiseConv1D, (2, 4, 12)),
    ]:
        source, input = built(theirs, shape, 3, **options), torch.randn(shape)
        layer = ours(4, 4 * multiplier, 3, stride, padding, bias=bias)
        layer.load_state_dict(weights.from_keras(source.get_weights()))
        torch.testing.assert_close(layer(input), output_of(source, input), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride, padding", CASES)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_separable(stride, padding, multiplier, bias):
    options = {"depth_multiplier": multiplier, "use_bias": bias, "strides": stride, "padding": padding}
    for ours, theirs, shape in [
        (SeparableConv2d, keras.layers.SeparableConv2D, (2, 4, 12, 11)),
        (SeparableConv1d, keras.layers.SeparableConv1D, (2, 4, 12)),
    ]:
        source, input = built(theirs, shape, 6, 3, **options), torch.randn(shape)
        layer = ours(4, 6, 3, stride, padding, bias=bias, channel_multiplier=multiplier)
        layer.load_state_dict(weights.from_keras(source.get_weights()))
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                torch.testing.assert_close(layer(input), output_of(source, input), rtol=1e-5, atol=1e-5)


def test_a_dilated_layer():
    source, input = built(keras.layers.DepthwiseConv2D, (1, 3, 14, 14), 3, dilation_rate=2), torch.randn(1, 3, 14, 14)
    layer = DepthwiseConv2d(3, 3, 3, dilation=2)
    layer.load_state_dict(weights.from_keras(source.get_weights()))
    torch.testing.assert_close(layer(input), output_of(source, input), rtol=1e-5, atol=1e-5)


def test_weights_go_back():
    source = built(keras.layers.DepthwiseConv2D, (1, 3, 8, 8), 3, depth_multiplier=2)
    kernel, bias = source.get_weights()
    layer = DepthwiseConv2d(3, 6, 3)
    layer.load_state_dict(weights.from_keras([kernel, bias]))
    source.set_weights([weights.to_tf(layer.weight.detach(), 2).numpy(), layer.bias.detach().numpy()])
    assert (source.get_weights()[0] == kernel).all()

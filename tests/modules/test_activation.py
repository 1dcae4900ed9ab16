"""DepthwiseConv2d(activation=): the function after the layer."""

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv2d, revert

ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_layer_has_an_activation(name):
    image = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    layer = DepthwiseConv2d(4, 8, 3, dtype=torch.float64, activation=name)
    plain = DepthwiseConv2d(4, 8, 3, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(image), ACTIVATIONS[name](plain(image)))
    assert repr(layer).endswith(f"activation={name})") and plain.activation is None


def test_the_layer_refuses_another_activation():
    with pytest.raises(ValueError, match=r"activation must be None or one of relu, .* got 'tanh'"):
        DepthwiseConv2d(4, 4, 3, activation="tanh")


def test_revert_leaves_a_layer_with_an_activation():
    reports = []
    revert(nn.Sequential(DepthwiseConv2d(4, 4, 3, activation="relu")), report=reports.append)
    assert reports[0].left == {"0": "activation=relu, which nn.Conv2d does not have"}

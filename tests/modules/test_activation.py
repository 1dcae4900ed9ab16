"""The layers' activation=: the function after the layer."""

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, convert, revert

ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU("tanh"),
}


LAYERS = {DepthwiseConv2d: nn.Conv2d, DepthwiseConv1d: nn.Conv1d}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_has_an_activation(kind, name):
    layer = kind(4, 8, 3, dtype=torch.float64, activation=name)
    plain = kind(4, 8, 3, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    sizes = (9, 8)[: layer.weight.dim() - 2]
    for shape in [(2, 4, *sizes), (4, *sizes)]:
        input = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        results = []
        for output in (layer(input), ACTIVATIONS[name](plain(input))):
            results.append([output, *torch.autograd.grad(output.square().sum(), input)])
        torch.testing.assert_close(*results)
        with torch.no_grad():
            torch.testing.assert_close(layer(input), ACTIVATIONS[name](plain(input)))
    assert repr(layer).endswith(f"activation={name})") and plain.activation is None


@pytest.mark.parametrize("kind", LAYERS)
def test_the_layer_refuses_another_activation(kind):
    with pytest.raises(ValueError, match=r"activation must be None or one of relu, .* got 'tanh'"):
        kind(4, 4, 3, activation="tanh")


@pytest.mark.parametrize("kind, plain", LAYERS.items())
def test_revert_leaves_a_layer_with_an_activation(kind, plain):
    reports = []
    revert(nn.Sequential(kind(4, 4, 3, activation="relu")), report=reports.append)
    assert reports[0].left == {"0": f"activation=relu, which nn.{plain.__name__} does not have"}


@pytest.mark.parametrize("kind, plain", LAYERS.items())
def test_convert_leaves_a_layer_that_has_something_else_of_that_name(kind, plain):
    layer, reports = plain(4, 4, 3, groups=4), []
    layer.activation = nn.Tanh()
    convert(nn.Sequential(layer), report=reports.append)
    assert type(layer) is plain and reports[0].left == {
        "0": f"its activation would mean something else in a {kind.__name__}"
    }

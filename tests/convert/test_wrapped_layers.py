"""convert and revert on layers that something else has already changed: parametrize, weight_norm, prune, timm."""

import copy
import pickle
import sys
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune

from torch_dwconv import DepthwiseConv2d, convert, revert


def depthwise(**options) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 6, 3, groups=3, dtype=torch.float64, **options)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight

    def right_inverse(self, weight):
        return weight / 2


def doubled(layer):
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


PARAMETRISATIONS = {
    "custom": doubled,
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "spectral_norm": nn.utils.parametrizations.spectral_norm,
    "two": lambda layer: doubled(nn.utils.parametrizations.weight_norm(layer)),
}


@pytest.mark.parametrize("apply", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS.keys())
def test_a_parametrised_layer_swaps_its_base_class(apply, image, run):
    layer = apply(depthwise()).eval()  # spectral_norm's power iteration must stand still to compare
    expected, keys = run(copy.deepcopy(layer), image), list(layer.state_dict())
    convert(layer)
    assert isinstance(layer, DepthwiseConv2d) and type(layer).__name__ == "ParametrizedDepthwiseConv2d"
    assert list(layer.state_dict()) == keys and parametrize.is_parametrized(layer, "weight")
    torch.testing.assert_close(run(layer, image), expected)

    revert(layer)
    assert parametrize.type_before_parametrizations(layer) is nn.Conv2d
    assert type(layer).__name__ == "ParametrizedConv2d"
    torch.testing.assert_close(run(layer, image), expected)


@pytest.mark.parametrize("apply", PARAMETRISATIONS.values(), ids=PARAMETRISATIONS.keys())
def test_a_parametrisation_can_be_removed_after_the_swap(apply, image):
    layer = apply(depthwise()).eval()
    expected = layer(image)
    parametrize.remove_parametrizations(convert(layer), "weight")
    assert isinstance(layer, DepthwiseConv2d) and isinstance(layer.weight, nn.Parameter)
    torch.testing.assert_close(layer(image), expected)


def test_a_converted_layer_can_be_parametrised_and_reverted(image):
    layer = doubled(convert(depthwise()))
    expected = layer(image)
    revert(layer)
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Conv2d
    torch.testing.assert_close(layer(image), expected)


def test_deep_copies_of_a_parametrised_layer_convert_one_by_one(image):
    layer = doubled(depthwise())
    twin = copy.deepcopy(layer)
    assert type(twin) is type(layer)  # they share the class that parametrize made
    expected = layer(image)
    convert(layer)
    assert not isinstance(twin, DepthwiseConv2d)
    torch.testing.assert_close(twin(image), expected)
    torch.testing.assert_close(copy.deepcopy(layer)(image), expected)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated:FutureWarning")
@pytest.mark.parametrize("apply", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_the_hook_based_norms(apply, image, run):
    layer = apply(depthwise()).eval()
    expected = run(layer, image)
    convert(layer)
    assert isinstance(layer, DepthwiseConv2d)
    torch.testing.assert_close(run(layer, image), expected)


def test_pruning_before_and_after(image, run):
    layer = depthwise()
    prune.random_unstructured(layer, "weight", amount=0.4)
    expected = run(layer, image)
    convert(layer)
    assert isinstance(layer, DepthwiseConv2d) and prune.is_pruned(layer)
    torch.testing.assert_close(run(layer, image), expected)

    prune.ln_structured(layer, "weight", amount=2, n=2, dim=0)
    assert (layer(image) - layer.bias[:, None, None]).abs().amax((0, 2, 3)).eq(0).sum() >= 2
    prune.remove(layer, "weight")
    assert layer.weight.eq(0).any() and type(revert(layer)) is nn.Conv2d


@pytest.fixture
def conv2d_same(monkeypatch) -> type[nn.Conv2d]:
    """timm's Conv2dSame as timm writes it: TensorFlow's SAME, computed in forward, with `padding` kept at 0."""

    class Conv2dSame(nn.Conv2d):
        def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1):
            super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups)

        def forward(self, x):
            pads = []
            for size, k, s, d in zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True):
                total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
                pads = [total // 2, total - total // 2, *pads]
            return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)

    module = types.ModuleType("timm.layers.conv2d_same")
    module.Conv2dSame = Conv2dSame
    Conv2dSame.__module__, Conv2dSame.__qualname__ = module.__name__, "Conv2dSame"
    for name in ("timm", "timm.layers"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return Conv2dSame


@pytest.mark.parametrize("kernel_size, stride, dilation", [(3, 2, 1), ((5, 3), (2, 3), 1), (4, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("parametrised", [False, True])
def test_timm_conv2d_same(conv2d_same, image, run, kernel_size, stride, dilation, parametrised):
    layer = conv2d_same(3, 6, kernel_size, stride, dilation=dilation, groups=3).double()
    if parametrised:
        doubled(layer)
    expected = run(copy.deepcopy(layer), image)
    convert(layer)
    assert isinstance(layer, DepthwiseConv2d) and layer.padding == "same"
    torch.testing.assert_close(run(layer, image), expected)
    layer = copy.deepcopy(layer)  # what revert needs travels with the layer
    revert(layer)
    assert parametrize.type_before_parametrizations(layer) is conv2d_same and layer.padding == (0, 0)
    torch.testing.assert_close(run(layer, image), expected)
    assert not any("converted" in name for name in vars(layer))


def test_timm_conv2d_same_pickles_converted(conv2d_same):
    twin = pickle.loads(pickle.dumps(convert(conv2d_same(3, 3, 3, 2, groups=3))))
    assert isinstance(twin, DepthwiseConv2d) and type(revert(twin)) is conv2d_same


def test_a_padding_given_after_conversion_is_not_lost_in_revert(conv2d_same, image):
    layer = convert(conv2d_same(3, 3, 3, 2, groups=3).double())
    layer.padding = (1, 1)
    expected = layer(image)
    assert type(revert(layer)) is nn.Conv2d
    torch.testing.assert_close(layer(image), expected)

"""PointwiseConv2d is an nn.Conv2d with a 1x1 kernel."""

import pytest
import torch
from torch import nn

from torch_dwconv import PointwiseConv2d
from torch_dwconv.operators import pointwise as operators

from .drop_in import assert_exports_in_torchs_operators, assert_leaf_for_fx, assert_same_error, copies, trained

OPTIONS = (
    {},
    {"bias": False},
    {"stride": 2},
    {"padding": 1},
    {"padding": "same"},
    {"padding": "valid"},
    {"padding": 2, "padding_mode": "reflect"},
    {"dilation": 3},
    {"dtype": torch.float64},
    {"dtype": torch.bfloat16},
)


def pair(**options):
    torch.manual_seed(3)
    ours, plain = PointwiseConv2d(48, 40, **options), nn.Conv2d(48, 40, 1, **options)
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def images(dtype=torch.float32, seed=0):
    return torch.randn(4, 48, 9, 14, generator=torch.Generator().manual_seed(seed)).to(dtype)


def calls(layer, monkeypatch) -> int:
    """How many convolutions of a training step our operator computes."""
    count = 0
    below = operators.below_autograd

    def counted(op, *args):
        nonlocal count
        count += 1
        return below(op, *args)

    with monkeypatch.context() as patch:
        patch.setattr(operators, "below_autograd", counted)
        layer(images(layer.weight.dtype).requires_grad_()).sum().backward()
    return count


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_trains_as_conv2d(options, monkeypatch):
    ours, plain = pair(**options)
    results = []
    for model in (ours, plain):
        results.append(trained(model, images(options.get("dtype", torch.float32))))
    torch.testing.assert_close(
        *results, rtol=1e-4 if "dtype" not in options else None, atol=1e-3 if "dtype" not in options else None
    )
    taken = not {"stride", "dtype"} & options.keys() and options.get("padding") in (None, "same", "valid")
    assert calls(ours, monkeypatch) == (3 if taken else 0)


def test_state_repr_and_constructor_are_conv2ds():
    ours, plain = pair()
    assert isinstance(ours, nn.Conv2d)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert repr(ours) == repr(plain).replace("Conv2d", "PointwiseConv2d")
    torch.manual_seed(0)
    one = PointwiseConv2d(8, 3).weight
    torch.manual_seed(0)
    assert torch.equal(one, nn.Conv2d(8, 3, 1).weight)
    with pytest.raises(ValueError, match="kernel_size must be 1, got 3"):
        PointwiseConv2d(8, 8, 3)
    with pytest.raises(ValueError, match="groups must be 1, got 2"):
        PointwiseConv2d(8, 8, groups=2)


@pytest.mark.parametrize(
    "x", [torch.ones(4, 48), torch.ones(4, 47, 9, 14), images().double(), images().long(), images()[None]]
)
def test_errors_are_conv2ds(x):
    assert_same_error(*pair(), x)


def test_an_image_without_a_batch():
    ours, plain = pair()
    torch.testing.assert_close(ours(images()[0]), plain(images()[0]))


def test_pickles_copies_and_scripts():
    ours, plain = pair()
    right = plain(images())
    for each in (*copies(ours), torch.jit.trace(ours, images())):
        torch.testing.assert_close(each(images()), right, rtol=1e-4, atol=1e-5)


def test_is_a_leaf_for_fx():
    assert_leaf_for_fx(nn.Sequential(pair()[0]), images())


def test_exports_in_torchs_operators():
    ours, plain = pair()
    assert_exports_in_torchs_operators(ours, plain, images(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_compiles():
    torch._dynamo.reset()
    ours, plain = pair()
    compiled = torch.compile(ours, fullgraph=True)
    for model in (compiled, plain):
        model(images()).sin().sum().backward()
    torch.testing.assert_close(
        [p.grad for p in ours.parameters()], [p.grad for p in plain.parameters()], rtol=1e-3, atol=1e-3
    )


def test_under_autocast_as_conv2d():
    ours, plain = pair()
    with torch.autocast("cpu", torch.bfloat16):
        a, b = ours(images()), plain(images())
    assert a.dtype == b.dtype == torch.bfloat16
    assert torch.equal(a, b)


def test_a_parametrisation_is_computed_once_a_call():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return 2 * weight

    ours, _ = pair(stride=2)
    counted = Counted()
    nn.utils.parametrize.register_parametrization(ours, "weight", counted)
    before = counted.calls
    ours(images())
    assert counted.calls == before + 1

"""BatchNormAct2d is an nn.BatchNorm2d followed by an activation."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import BatchNormAct2d

from .drop_in import assert_exports_in_torchs_operators, assert_leaf_for_fx, assert_same_error, copies, trained

OPTIONS = (
    {},
    {"eps": 1e-2, "momentum": 0.3},
    {"momentum": None},
    {"affine": False},
    {"track_running_stats": False},
    {"affine": False, "track_running_stats": False},
    {"dtype": torch.float64},
)


def images(dtype=torch.float32, seed=0):
    return torch.randn(4, 6, 9, 7, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pair(activation="relu6", **options):
    torch.manual_seed(3)
    ours, plain = BatchNormAct2d(6, activation=activation, **options), nn.BatchNorm2d(6, **options)
    if options.get("affine", True):
        for parameter in plain.parameters():
            nn.init.normal_(parameter)
    ours.load_state_dict(plain.state_dict())
    return ours, nn.Sequential(plain, nn.ReLU6())


@pytest.mark.parametrize("options", OPTIONS)
def test_trains_and_evaluates_as_batch_norm(options):
    """Three steps in training, and then in evaluation, with the same running statistics throughout."""
    ours, plain = pair(**options)
    for step in range(4):
        ours.train(step < 3), plain.train(step < 3)
        results = []
        for model in (ours, plain):
            results.append(trained(model, images(options.get("dtype", torch.float32), step)))
        torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(dict(ours.state_dict()), dict(plain[0].state_dict()))


def test_state_repr_and_constructor_are_batch_norms():
    ours, plain = BatchNormAct2d(6, activation="silu"), nn.BatchNorm2d(6)
    assert isinstance(ours, nn.BatchNorm2d)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert repr(ours) == repr(plain).replace("BatchNorm2d", "BatchNormAct2d").replace(")", ", activation=silu)")
    assert repr(BatchNormAct2d(6)) == repr(plain).replace("BatchNorm2d", "BatchNormAct2d")
    with pytest.raises(ValueError, match="activation must be None or one of relu"):
        BatchNormAct2d(6, activation="tanh")


@pytest.mark.parametrize("x", [torch.ones(4, 6), torch.ones(4, 6, 3), torch.ones(1, 6, 1, 1), torch.ones(4, 5, 3, 3)])
def test_errors_are_batch_norms(x):
    assert_same_error(*pair(), x)


def test_pickles_copies_and_scripts():
    ours, plain = pair()
    right = plain.eval()(images())
    for each in copies(ours):
        torch.testing.assert_close(each.eval()(images()), right)


def test_a_script_trains():
    ours, plain = pair(momentum=None)
    script = torch.jit.script(ours)
    for seed in range(2):
        torch.testing.assert_close(script(images(seed=seed)), plain(images(seed=seed)))
    torch.testing.assert_close(dict(script.state_dict()), dict(plain[0].state_dict()))


def test_is_a_leaf_for_fx():
    assert_leaf_for_fx(nn.Sequential(BatchNormAct2d(6, activation="relu")).eval(), images())


@pytest.mark.parametrize("training", [True, False])
def test_exports_in_torchs_operators(training):
    ours, plain = pair()
    ours.train(training), plain.train(training)
    assert_exports_in_torchs_operators(ours, plain, images())


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles(channels_last):
    torch._dynamo.reset()
    ours, plain = pair("relu6")
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    model = nn.Sequential(nn.Conv2d(6, 6, 3), ours)
    compiled, right = torch.compile(model, fullgraph=True), nn.Sequential(copy.deepcopy(model[0]), plain)
    for _ in range(2):
        x = images().contiguous(memory_format=memory_format).requires_grad_()
        y = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        a, b = compiled(x), right(y)
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        for one, other in zip(
            torch.autograd.grad(a.sin().sum(), [x, *compiled.parameters()]),
            torch.autograd.grad(b.sin().sum(), [y, *right.parameters()]),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(dict(ours.state_dict()), dict(plain[0].state_dict()))


def test_under_autocast_as_batch_norm():
    ours, plain = pair()
    conv = nn.Conv2d(6, 6, 1)
    with torch.autocast("cpu", torch.bfloat16):
        a, b = (F.avg_pool2d(model(conv(images())), 2) for model in (ours, plain))
    assert a.dtype == b.dtype
    torch.testing.assert_close(a, b)

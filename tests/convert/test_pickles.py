"""Pickles of whole models: what they name stays where it is, wherever the package keeps its files."""

import io
import pickle
import pickletools

import pytest
import torch
from torch import nn

import torch_dwconv
from torch_dwconv import convert, fuse


class Subclass(nn.Conv2d):
    pass


def named_by(model: nn.Module) -> set[str]:
    """What of this package a pickle of the model names, as "module name"."""
    saved = io.BytesIO()
    pickle.dump(model, saved, protocol=2)  # which names things by one opcode
    named = {argument for opcode, argument, _ in pickletools.genops(saved.getvalue()) if opcode.name == "GLOBAL"}
    return {name for name in named if name.startswith("torch_dwconv")}


BUILT = {
    "DepthwiseConv2d": (4, 4, 3),
    "DepthwiseConv1d": (4, 4, 3),
    "DepthwiseConvTranspose2d": (4, 4, 3),
    "DepthwiseConvTranspose1d": (4, 4, 3),
    "SeparableConv2d": (4, 6, 3),
    "SeparableConv1d": (4, 6, 3),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_layer_is_named_by_the_package(name):
    layer = getattr(torch_dwconv, name)(*BUILT[name])
    assert named_by(layer) == {f"torch_dwconv {name}"}
    assert type(pickle.loads(pickle.dumps(layer))) is type(layer)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (nn.Conv2d, "DepthwiseConv2d"),
        (nn.Conv1d, "DepthwiseConv1d"),
        (nn.ConvTranspose2d, "DepthwiseConvTranspose2d"),
        (nn.ConvTranspose1d, "DepthwiseConvTranspose1d"),
        (Subclass, "DepthwiseConv2d"),
    ],
)
def test_a_converted_layer_too(make, name):
    layer = convert(make(4, 4, 3, groups=4))
    assert named_by(layer) == {f"torch_dwconv {name}", "torch_dwconv.models rebuild_layer"}
    assert type(pickle.loads(pickle.dumps(layer))) is type(layer)


def test_a_fused_model_and_its_report_too():
    reports = []
    fused = fuse(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)).eval(), torch.randn(1, 4, 8, 8), report=reports.append)
    assert {name.split()[0] for name in named_by(fused)} == {"torch_dwconv.models"}
    assert named_by(reports[0]) == {"torch_dwconv.models FuseReport"}
    convert(nn.Conv2d(4, 4, 3, groups=4), report=reports.append)
    assert named_by(reports[1]) == {"torch_dwconv.models Report"}


def test_public_names_say_where_they_are_found():
    for name in torch_dwconv.__all__:
        thing = getattr(torch_dwconv, name)
        assert getattr(thing, "__module__", "torch_dwconv") == "torch_dwconv", name

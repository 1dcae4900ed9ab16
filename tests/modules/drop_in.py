"""What holds of a layer of ours and the layer of PyTorch that it stands for, whichever they are."""

import copy
import io
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import nn


def trained(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """The output, and the gradients of images and parameters."""
    images = images.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(images)
    return [output, *torch.autograd.grad(output.square().sum(), [images, *model.parameters()])]


def assert_same_error(ours: nn.Module, plain: nn.Module, x: torch.Tensor) -> None:
    """The same class and the same words."""
    with pytest.raises(Exception) as right:
        plain(x)
    with pytest.raises(type(right.value)) as raised:
        ours(x)
    assert str(raised.value) == str(right.value)


def copies(layer: nn.Module) -> Iterator[nn.Module]:
    """A copy, one from a pickle and one from a file, which names no file of this package; and TorchScript's."""
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    assert b"torch_dwconv.layers" not in pickle.dumps(layer)
    yield copy.deepcopy(layer)
    yield pickle.loads(pickle.dumps(layer))
    yield torch.load(saved, weights_only=False)
    yield torch.jit.script(layer)


def assert_leaf_for_fx(model: nn.Sequential, images: torch.Tensor) -> None:
    graph = torch.fx.symbolic_trace(model)
    assert [node.op for node in graph.graph.nodes] == ["placeholder", "call_module", "output"]
    torch.testing.assert_close(graph(images), model(images))


def assert_exports_in_torchs_operators(ours: nn.Module, plain: nn.Module, images: torch.Tensor, **tolerance) -> None:
    program = torch.export.export(ours, (images,))
    assert not any("torch_dwconv" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(images), plain(images), **tolerance)

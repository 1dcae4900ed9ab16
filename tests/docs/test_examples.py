"""The Python of the pages for users runs, block after block. That of docs/clients.md runs in tests/clients."""

import importlib
import re
import sys
import types

import pytest
import torch
from torch import nn

from .test_docs import text_of

PAGES = ("README.md", "docs/getting-started.md", "docs/migrating.md", "docs/deployment.md")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text_of(page), flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def small_torchvision(monkeypatch):
    """Models of one depthwise layer for those that the pages take of torchvision, which need not be installed."""

    def model(*, weights=None) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten())

    models = types.SimpleNamespace(mobilenet_v2=model, convnext_tiny=model)
    monkeypatch.setitem(sys.modules, "torchvision", types.SimpleNamespace(models=models))


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, tmp_path, monkeypatch):
    if "torch.onnx.export" in text_of(page):
        pytest.importorskip("onnxscript")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    assert blocks(page)
    for block in blocks(page):
        exec(compile(block, page, "exec"), names)


def test_the_readme_converts_and_explains(capsys):
    first, second, _ = blocks("README.md")
    names: dict = {}
    exec(first, names)
    assert "swapped" in capsys.readouterr().out
    assert all(parameter.grad is not None for parameter in names["model"].parameters())
    exec(second, names)
    assert "forward_nhwc_f32_" in capsys.readouterr().out
    assert names["y"].shape == (8, 32, 28, 28) and names["y"].is_contiguous(memory_format=torch.channels_last)


def test_the_readme_installs_the_module_of_sequences(monkeypatch):
    for name in ("causal_conv1d", "causal_conv1d.causal_conv1d_interface", "causal_conv1d.causal_conv1d_varlen"):
        monkeypatch.setitem(sys.modules, name, None)  # so that it is as before afterwards
        del sys.modules[name]
    exec(blocks("README.md")[2], {})
    assert importlib.import_module("causal_conv1d") is importlib.import_module("torch_dwconv.causal_conv1d")

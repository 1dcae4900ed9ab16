"""Runs the blocks of docs/clients.md in an empty folder, offline."""

import functools

import pytest
import torch

from torch_dwconv.operators.schemas import FORWARD
from torch_dwconv.operators.sequence import CAUSAL_CONV1D, UPDATE

from . import page


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No client asks a hub for anything, or writes beside the sources."""
    for name, value in {
        "HF_HUB_OFFLINE": "1",
        "YOLO_OFFLINE": "1",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(tmp_path / "ultralytics"),
        "DO_NOT_TRACK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module", autouse=True)
def one_thread(one_torch_thread):
    """Small models."""


@pytest.fixture
def three_blocks(monkeypatch):
    """torchvision's mobilenet_v2 is one of three blocks: 11 convolutions, 3 of them depthwise."""
    models = pytest.importorskip("torchvision").models
    setting = [[1, 16, 1, 1], [6, 24, 2, 2]]  # expansion, channels, layers, stride
    made = functools.partial(models.MobileNetV2, inverted_residual_setting=setting)
    monkeypatch.setattr(models, "mobilenet_v2", made)


@pytest.fixture
def recipe(three_blocks):
    """recipe(heading, number) runs a block of the page and returns its names; skips where a package is missing."""
    found = page.blocks(page.PAGE.read_text())

    def run(heading: str, number: int = 0) -> dict:
        code = found[heading, number]
        for package in page.packages(code):
            pytest.importorskip(package)
        names: dict = {"__name__": "recipe"}
        exec(compile(code, f"{page.PAGE.name}, {heading} {number}", "exec"), names)
        return names

    return run


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Counts the calls of this package's operators that compute a layer's output."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (FORWARD, CAUSAL_CONV1D, UPDATE)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def calls_of_ours():
    """calls_of_ours(model, *args): how many layers of this package computed, whatever the modules' classes say."""

    def count(model, *args, **kwargs) -> int:
        with torch.no_grad(), Calls() as calls:
            model(*args, **kwargs)
        return calls.count

    return count

"""Every contestant that is installed computes what we compute, or says why not."""

from importlib.util import find_spec

import pytest

from benchmarks.contestants import CONTESTANTS, onednn
from torch_dwconv.bench.cells import measure
from torch_dwconv.bench.contestants import load, ours
from torch_dwconv.bench.layers import parse_layer
from torch_dwconv.bench.problem import OPERATIONS, Cell
from torch_dwconv.bench.timing import Options

PACKAGES = {
    "torch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorflow": "tensorflow",
    "litert": "ai_edge_litert",
}
INSTALLED = [name for name, package in PACKAGES.items() if find_spec(package)]
if onednn.prefix():
    INSTALLED.append(pytest.param("onednn", marks=pytest.mark.slow))  # compiled when it is first used
LAYERS = ("1,32,14,14,3,1", "2,32,15,14,5,2", "1,6,12,7,1x5,1,1,2", "1,16,12,12,3,1,2")
GRADIENTS = ("torch", "compile", "onednn", "tensorflow")
pytestmark = pytest.mark.usefixtures("own_signal_stack")
# What somebody may refuse of the layers above.
REASONS = {"no dilation", "strides must be equal", "no gradients"}


@pytest.mark.parametrize("text", LAYERS)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", INSTALLED)
def test_an_installed_contestant_agrees(name, operation, text):
    check(name, operation, text)


@pytest.mark.parametrize("operation", ["forward", "grad_input"])
def test_torch_compile_agrees(operation, fresh_compiler):
    check("compile", operation, LAYERS[1])


def check(name, operation, text):
    batch, layer = parse_layer(text)
    module, _ = load(CONTESTANTS[name])
    cell = Cell(layer, batch, operation, "f32", "nhwc", threads=1)
    record = measure(cell, {"ours": ours, name: module}, Options(samples=1, min_seconds=1e-6))
    if name in record["refused"]:
        assert record["refused"][name] in REASONS
        assert record["refused"][name] != "no gradients" or (name not in GRADIENTS and operation != "forward")
    else:
        assert record["times"][name]

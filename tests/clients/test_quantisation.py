"""As many quantisers in a converted model as in the plain one."""

from collections import Counter

import pytest
import torch
from torch import nn

from torch_dwconv import convert, revert

from .models import layers_of_ours, small

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).sin().reshape(2, 3, 16, 16)


def quantisers(graph: torch.fx.GraphModule) -> int:
    return sum("quantize" in str(node.target) for node in graph.graph.nodes)


def plain():
    return pytest.importorskip("torchvision").models.mobilenet_v2().eval()


def test_pt2e(recipe):
    names = recipe("Quantisation: PT2E, NNCF, torchao, torch.ao", 0)
    inputs, quantizer = names["inputs"], names["quantizer"]

    def prepared(model):
        return names["prepare_pt2e"](torch.export.export(model, inputs).module(), quantizer)

    def observers(graph):
        return sum("activation_post_process" in str(node.target) for node in graph.graph.nodes)

    expected = prepared(plain())
    assert observers(expected) > observers(prepared(convert(plain())))  # what the page warns of
    expected(*inputs)
    assert quantisers(names["quantized"]) == quantisers(names["convert_pt2e"](expected)) > 30


def test_nncf(recipe):
    names = recipe("Quantisation: PT2E, NNCF, torchao, torch.ao", 1)
    nncf, input = names["nncf"], names["input"]
    graph = torch.export.export(plain(), (input,)).module()
    expected = quantisers(nncf.quantize(graph, nncf.Dataset([input]), subset_size=1))
    assert quantisers(names["quantized"]) == expected > 20


def test_torch_ao(recipe):
    names = recipe("Quantisation: PT2E, NNCF, torchao, torch.ao", 2)
    quantized = Counter(type(module).__module__ for module in names["quantized"].modules())
    assert not any(isinstance(module, nn.Conv2d) for module in names["quantized"].modules()), quantized
    assert sum(len(m.weight().shape) == 4 for m in names["quantized"].modules() if hasattr(m, "scale")) == 10


@pytest.mark.parametrize("fuse", [True, False])
def test_eager_modules_of_torch_ao(fuse):
    """fuse_modules and prepare_qat look layers up by their class."""
    from torch.ao.quantization import fuse_modules, get_default_qat_qconfig, prepare_qat

    classes = []
    for model in (small(), revert(convert(small()))):
        if fuse:
            model = fuse_modules(model, [["dw", "bn", "act"]])
        else:
            model.train().qconfig = get_default_qat_qconfig("x86")
            model = prepare_qat(model)
        classes.append([type(module) for module in model.modules()])
    assert classes[0] == classes[1]


def test_torchao_weights():
    quantization = pytest.importorskip("torchao.quantization")
    models = small(), convert(small())
    for model in models:
        quantization.quantize_(model, quantization.Int8WeightOnlyConfig())
    torch.testing.assert_close(*(model(IMAGE) for model in models), rtol=1e-5, atol=1e-6)
    assert len(layers_of_ours(models[1])) == 2

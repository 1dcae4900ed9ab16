"""What the page's last table says of PyTorch's own tools."""

import importlib
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, prune

from torch_dwconv import DepthwiseConv2d, convert, revert

from .models import distance, layers_of_ours, small

IMAGE = torch.linspace(-1, 1, 2 * 3 * 16 * 16).sin().reshape(2, 3, 16, 16)


def test_traced_layers_are_leaves():
    graphs = [torch.fx.symbolic_trace(model).graph for model in (small(), convert(small()))]
    nodes = [[(node.op, node.target) for node in graph.nodes] for graph in graphs]
    assert nodes[0] == nodes[1]


def test_feature_extractors():
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    names = [extraction.get_graph_node_names(model) for model in (small(), convert(small()))]
    assert names[0] == names[1]
    features = [extraction.create_feature_extractor(m, ["dw2"])(IMAGE)["dw2"] for m in (convert(small()), small())]
    assert distance(features[0], features[1].detach()) < 1e-6


def test_to_folder(tmp_path, monkeypatch):
    graph = torch.fx.symbolic_trace(convert(small()))
    graph.to_folder(tmp_path / "written_model", "Written")
    monkeypatch.syspath_prepend(tmp_path)
    written = importlib.import_module("written_model").Written().eval()
    sys.modules.pop("written_model")
    assert distance(written(IMAGE), small()(IMAGE).detach()) < 1e-6


def test_fx_fuse():
    from torch.fx.experimental.optimization import fuse

    assert any(isinstance(module, nn.BatchNorm2d) for module in fuse(convert(small())).modules())  # the page says so
    fused = convert(fuse(revert(convert(small()))))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert len(layers_of_ours(fused)) == 2
    assert distance(fused(IMAGE), small()(IMAGE).detach()) < 1e-5


def test_fuse_conv_bn_eval(calls_of_ours):
    model, features = convert(small()), torch.randn(1, 8, 9, 9)
    folded = fuse_conv_bn_eval(model.dw, model.bn)
    assert isinstance(folded, DepthwiseConv2d) and calls_of_ours(folded, features) == 1
    assert distance(folded(features), model.bn(model.dw(features)).detach()) < 1e-6


def test_mkldnn():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch without oneDNN")
    from torch.utils.mkldnn import to_mkldnn

    layer, features = convert(small()).dw2, torch.randn(1, 16, 9, 9)
    output = to_mkldnn(layer)(features.to_mkldnn()).to_dense()
    assert distance(output, layer(features).detach()) < 1e-6


TRANSFORMS = {
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "prune rows": lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, 0),
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "hooked weight_norm": lambda layer: nn.utils.weight_norm(layer),
    "hooked spectral_norm": lambda layer: nn.utils.spectral_norm(layer),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("before", [True, False], ids=["before convert", "after convert"])
def test_transforms_of_weights(name, before, calls_of_ours):
    models = small(), small() if before else convert(small())
    for model in models:
        torch.manual_seed(1)
        TRANSFORMS[name](model.dw2)
        model.eval()
    if before:
        convert(models[1])
    assert calls_of_ours(models[1], IMAGE) == 2
    assert distance(models[1](IMAGE), models[0](IMAGE).detach()) < 1e-6

"""The reports of convert name every depthwise convolution that stays, also where it is no layer of torch.nn."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from torch_dwconv import DepthwiseConv2d, convert, revert

from .test_convert import conversion_report

SCRIPT = "compiled by TorchScript: convert the model before torch.jit.script or torch.jit.trace"

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning")


def blocks():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)))


def test_scripts():
    scripted = torch.jit.script(blocks())
    report = conversion_report(scripted)
    assert report.swapped == [] and report.left == {"": SCRIPT, "0": SCRIPT, "2.0": SCRIPT}
    assert str(report).splitlines() == ["swapped: 0", "left: 3", f"  {SCRIPT}: (the model), 0, 2.0"]


def test_a_script_inside_a_model():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), torch.jit.trace(blocks(), torch.randn(1, 4, 9, 9)))
    report = conversion_report(model)
    assert report.swapped == ["0"] and report.left == {"1": SCRIPT}


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 1, 3, 3))
        self.layer = nn.Conv2d(4, 4, 3, groups=4)

    def forward(self, x):
        x = F.conv2d(x, self.weight, groups=4)
        x = F.conv2d(x, torch.ones(4, 4, 1, 1))
        return F.conv_transpose2d(self.layer(x), self.weight, None, 1, 0, 0, 4)


def test_functions_in_a_graph():
    graph = torch.fx.symbolic_trace(nn.Sequential(Functional()))
    report = conversion_report(graph)
    assert report.swapped == ["0.layer"]
    reason = "its graph calls a convolution with groups, a function and no layer (conv2d, conv_transpose2d)"
    assert report.left == {"": reason}


def test_functions_in_an_exported_graph():
    graph = torch.export.export(Functional(), (torch.randn(1, 4, 9, 9),)).module()
    (reason,) = conversion_report(graph).left.values()
    assert reason.endswith("a function and no layer (conv2d, conv2d_2, conv_transpose2d)")


def test_a_quantised_layer():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    conv.qconfig = torch.ao.quantization.get_default_qat_qconfig("fbgemm")
    trained = torch.ao.nn.qat.Conv2d.from_float(conv)
    report = conversion_report(nn.Sequential(trained))
    assert report.swapped == [] and report.left["0"].startswith("its forward calls its FusedMovingAvgObsFakeQuantize")
    quantised = torch.ao.nn.quantized.Conv2d(4, 4, 3, groups=4)
    assert conversion_report(nn.Sequential(quantised)).left == {
        "0": "torch.ao.nn.quantized.modules.conv.Conv2d, not a convolution of torch.nn"
    }


@pytest.mark.parametrize("lazy", [nn.LazyConv1d, nn.LazyConv2d, nn.LazyConvTranspose2d])
def test_lazy_layers(lazy):
    assert "has no channels yet" in conversion_report(nn.Sequential(lazy(4, 3, groups=4))).left["0"]


def test_layers_that_occur_twice_are_named_once():
    layer, other = nn.Conv2d(4, 4, 3, groups=4), nn.Conv3d(4, 4, 3, groups=4)
    report = conversion_report(nn.ModuleList([layer, other, layer, other]))
    assert report.swapped == ["0"] and list(report.left) == ["1"]


def test_a_compiled_model_is_converted_inside():
    compiled = torch.compile(blocks(), backend="eager")
    report = conversion_report(compiled)
    assert report.swapped == ["_orig_mod.0", "_orig_mod.2.0"] and report.left == {}
    assert isinstance(compiled._orig_mod[0], DepthwiseConv2d)


def test_a_layer_whose_weight_is_parametrised_by_its_shape():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 8, 3, groups=4))
    assert conversion_report(nn.Sequential(layer)).swapped == ["0"] and parametrize.is_parametrized(layer)


def test_a_patched_forward_of_pytorch_is_not_lost(monkeypatch):
    plain = nn.Conv2d._conv_forward
    monkeypatch.setattr(nn.Conv2d, "_conv_forward", lambda self, *arguments: 2 * plain(self, *arguments))
    layer = nn.Conv2d(4, 4, 3, groups=4)
    assert "nn.Conv2d._conv_forward has been replaced" in conversion_report(nn.Sequential(layer)).left["0"]
    monkeypatch.undo()
    assert isinstance(convert(layer), DepthwiseConv2d)


class Branches(nn.Module):
    """As MobileOne's blocks: branches that become one layer."""

    def __init__(self, groups):
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1, groups=groups) for _ in range(2))

    def reparameterize(self):
        raise NotImplementedError


def test_modules_that_may_rebuild_their_layers():
    model = nn.Sequential(nn.Sequential(Branches(4)), Branches(1), nn.Conv2d(4, 4, 3, groups=4))
    reports = []
    convert(model, report=reports.append)
    convert(model, report=reports.append)  # swaps nothing, so nothing of it can be lost
    revert(model, report=reports.append)
    assert [list(report.rebuilt) for report in reports] == [["0.0"], [], []]
    assert "may be rebuilt: 1\n  its reparameterize() may put PyTorch's layers in place of ours" in str(reports[0])
    assert "rebuilt" not in str(reports[2])


def test_a_model_that_may_rebuild_itself():
    model = Branches(4)
    reports = []
    convert(model, report=reports.append)
    assert list(reports[0].rebuilt) == [""] and str(reports[0]).endswith("convert after it: (the model)")

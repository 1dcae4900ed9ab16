"""TorchScript, saved programs and AOTInductor packages of models with depthwise layers."""

import io
import warnings

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, convert


def layers():
    """Every form of padding that nn.Conv2d has, and those it has not."""
    forms = [
        {},
        {"padding": 1, "stride": 2, "bias": False},
        {"padding": (1, 0), "dilation": 2},
        {"padding": "valid"},
        {"padding": "same"},
        {"padding": "same", "stride": 2},
        {"padding": ((0, 1), (2, 1))},
        {"padding": 1, "activation": "relu6"},
        {"padding": 1, "activation": "gelu_tanh"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": ((0, 1), (2, 1)), "padding_mode": "replicate"},
        {"padding": "same", "padding_mode": "circular"},
        {"padding": "same", "stride": 2, "padding_mode": "circular"},
    ]
    return [DepthwiseConv2d(4, 8, 3, **form) for form in forms]


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
@pytest.mark.parametrize("layer", layers(), ids=lambda layer: layer.extra_repr())
def test_script(layer):
    """TorchScript knows PyTorch's operators only, so this is F.conv2d with our padding."""
    scripted = save_and_load(torch.jit.script(layer))
    for size in ((2, 4, 9, 8), (1, 4, 12, 7), (4, 6, 11)):
        input = torch.randn(size)
        torch.testing.assert_close(scripted(input), layer(input))


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
@pytest.mark.parametrize(
    "form", [{}, {"padding": (2, 0)}, {"padding": "same", "stride": 2}, {"padding": "valid"}], ids=str
)
def test_script_in_one_dimension(form):
    layer, input = DepthwiseConv1d(4, 8, 3, **form), torch.randn(2, 4, 10)
    torch.testing.assert_close(save_and_load(torch.jit.script(layer))(input), layer(input))


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_script_of_a_converted_model():
    model = convert(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.ReLU(), nn.Conv2d(4, 4, 1))).eval()
    scripted, input = save_and_load(torch.jit.script(model)), torch.randn(2, 4, 9, 8)
    torch.testing.assert_close(scripted(input), model(input))
    assert isinstance(model[0], DepthwiseConv2d)  # scripting leaves the model as it was
    frozen = torch.jit.freeze(torch.jit.script(model))
    torch.testing.assert_close(frozen(input), model(input))


@pytest.mark.filterwarnings("ignore:.*torch.jit.:DeprecationWarning")
def test_trace():
    model = nn.Sequential(DepthwiseConv2d(4, 4, 3, padding=((0, 1), (2, 1))), DepthwiseConv2d(4, 8, 3, padding="same"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = save_and_load(torch.jit.trace(model, torch.randn(2, 4, 9, 8)))
    input = torch.randn(3, 4, 9, 8)
    torch.testing.assert_close(traced(input), model(input))


def save_and_load(scripted):
    file = io.BytesIO()
    torch.jit.save(scripted, file)
    file.seek(0)
    return torch.jit.load(file)


def test_a_saved_program(tmp_path):
    model, input = nn.Sequential(nn.Conv2d(4, 4, 1), DepthwiseConv2d(4, 4, 3)), torch.randn(2, 4, 9, 8)
    torch.export.save(torch.export.export(model, (input,)), tmp_path / "model.pt2")
    torch.testing.assert_close(torch.export.load(tmp_path / "model.pt2").module()(input), model(input))


@pytest.mark.slow
def test_aot_inductor_package(tmp_path):
    model = nn.Sequential(nn.Conv2d(4, 8, 1), DepthwiseConv2d(8, 8, 3, padding=1), nn.ReLU6()).eval()
    batch = torch.export.Dim("N", max=64)
    program = torch.export.export(model, (torch.randn(2, 4, 9, 8),), dynamic_shapes=({0: batch},))
    path = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    compiled = torch._inductor.aoti_load_package(path)
    for size in (2, 5):
        input = torch.randn(size, 4, 9, 8)
        with torch.no_grad():
            torch.testing.assert_close(compiled(input), model(input), rtol=1e-4, atol=1e-5)

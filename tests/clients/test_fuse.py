"""fuse on models of other libraries: their outputs, with every BatchNorm and depthwise layer accounted for."""

import pytest
import torch

from torch_dwconv import fuse

from .models import distance, lively

IMAGES = torch.linspace(-1, 1, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64).double()


def of_transformers():
    package = pytest.importorskip("transformers")
    return package.MobileNetV2Model(package.MobileNetV2Config(image_size=64))


def of_efficientnet_pytorch():
    return pytest.importorskip("efficientnet_pytorch").EfficientNet.from_name("efficientnet-b0")


def of_ultralytics():
    return pytest.importorskip("ultralytics").YOLO("yolo11n.yaml").model


@pytest.mark.parametrize(
    "made, convolutions", [(of_transformers, 52), (of_efficientnet_pytorch, 49), (of_ultralytics, 81)]
)
def test_models(made, convolutions):
    """And the model stays as it was."""
    model = lively(made(), IMAGES)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reports = []
    fused = fuse(model, IMAGES[:1], report=reports.append)
    assert len(reports[0].fused) == convolutions
    with torch.no_grad():
        expected, actual = model(IMAGES)[0], fused(IMAGES)[0]
    assert distance(actual, expected) < 1e-9
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)

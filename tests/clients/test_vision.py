"""timm, ultralytics, segmentation_models_pytorch and efficientnet_pytorch."""

import copy

import numpy as np
import pytest
import torch

from torch_dwconv import convert, revert

from .models import distance, layers_of_ours, lively

IMAGE = torch.linspace(-1, 1, 2 * 3 * 64 * 64).sin().reshape(2, 3, 64, 64).double()


def test_the_introduction(recipe):
    names = recipe("Inside other projects")
    assert names["layers"] == layers_of_ours(names["model"]) and len(names["layers"]) == 3


def test_timm_reparameterised(recipe, calls_of_ours):
    names = recipe("timm")
    assert calls_of_ours(names["model"].double(), IMAGE) == len(layers_of_ours(names["model"])) == 21


@pytest.mark.parametrize(
    "name, before, after", [("mobileone_s0", 105, 21), ("fastvit_t8", 40, 25), ("repvit_m0_9", 49, 26)]
)
def test_timm_reparameterised_in_either_order(name, before, after):
    """The values are right in both. What is lost when convert comes first is known, and the page says so."""
    timm = pytest.importorskip("timm")
    from timm.utils import reparameterize_model

    plain = lively(timm.create_model(name, pretrained=False), IMAGE)
    reports = []
    ours = convert(copy.deepcopy(plain), report=reports.append)
    assert len(layers_of_ours(ours)) == before
    assert reports[0].rebuilt and "() may put PyTorch's layers" in str(reports[0])
    last, first = convert(reparameterize_model(plain)).double(), reparameterize_model(ours).double()
    lost = {name for name in reports[0].swapped if name not in layers_of_ours(first)}
    assert all(any(name.startswith(f"{above}.") for above in reports[0].rebuilt) for name in lost)
    assert len(layers_of_ours(last)) == after > len(layers_of_ours(first))
    with torch.no_grad():
        expected = plain(IMAGE)
        # Some of timm's new layers are float32.
        assert distance(last(IMAGE), expected) < 1e-4 and distance(first(IMAGE), expected) < 1e-4


def test_timm_features_and_averages(calls_of_ours):
    timm = pytest.importorskip("timm")
    from timm.models import create_feature_extractor
    from timm.utils import ModelEmaV3

    plain = lively(timm.create_model("mobilenetv3_small_050", pretrained=False), IMAGE)
    ours = convert(copy.deepcopy(plain))
    with torch.no_grad():
        for a, b in zip(*(m.forward_intermediates(IMAGE, intermediates_only=True) for m in (ours, plain)), strict=True):
            assert distance(a, b) < 1e-9
        features = [create_feature_extractor(m, ["blocks.2"])(IMAGE)["blocks.2"] for m in (ours, plain)]
        assert distance(*features) < 1e-9
        average = ModelEmaV3(ours)
        average.update(ours)
        assert calls_of_ours(average.module, IMAGE) == 11
        assert distance(average(IMAGE), plain(IMAGE)) < 1e-9


def test_ultralytics_predict(recipe, calls_of_ours):
    names = recipe("ultralytics", 0)
    yolo, picture = names["yolo"], np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    plain = revert(copy.deepcopy(yolo.model)).double().eval()
    assert len(layers_of_ours(yolo.model)) == 7
    yolo.predict(picture, imgsz=64, verbose=False)
    folded = yolo.predictor.model.backend.model.double()  # without BatchNorm
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert calls_of_ours(folded, IMAGE) == len(layers_of_ours(folded)) == 7
    with torch.no_grad():
        assert distance(folded(IMAGE)[0], plain(IMAGE)[0]) < 1e-9


def test_ultralytics_train(recipe, tmp_path):
    """Four pictures, one epoch: the layers are there when the training begins, and afterwards."""
    yolo = recipe("ultralytics", 1)["yolo"]
    cv2 = pytest.importorskip("cv2")
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    random = np.random.default_rng(0)
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"images/{index}.jpg"), random.integers(0, 255, (64, 64, 3), dtype=np.uint8))
        (tmp_path / f"labels/{index}.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: {{0: thing}}\n")
    counts = []

    def count(trainer):
        counts.append((len(layers_of_ours(trainer.model)), len(layers_of_ours(trainer.ema.ema))))

    yolo.add_callback("on_train_start", count)
    options = {"workers": 0, "device": "cpu", "plots": False, "amp": False, "project": str(tmp_path / "runs")}
    yolo.train(data=str(tmp_path / "data.yaml"), epochs=1, imgsz=64, batch=2, verbose=False, **options)
    assert counts == [(7, 7)]
    assert len(layers_of_ours(yolo.model)) == 7


@pytest.mark.parametrize("format", ["torchscript", "openvino"])
def test_ultralytics_export(format, tmp_path):
    ultralytics = pytest.importorskip("ultralytics")
    if format == "openvino":
        pytest.importorskip("openvino")
    yolo = ultralytics.YOLO("yolo11n.yaml")
    convert(yolo.model)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    exported = ultralytics.YOLO(yolo.export(format=format, imgsz=64, verbose=False), task="detect")
    exported.predict(picture, imgsz=64, verbose=False)


def test_segmentation_models(recipe, calls_of_ours):
    names = recipe("segmentation_models_pytorch and efficientnet_pytorch")
    model = lively(names["model"], IMAGE)
    assert calls_of_ours(model, IMAGE) == 17
    model.float().save_pretrained("segmentation")
    loaded = convert(names["smp"].from_pretrained("segmentation")).double().eval()
    assert len(layers_of_ours(loaded)) == 17
    with torch.no_grad():
        assert distance(loaded(IMAGE), model.double()(IMAGE)) < 1e-9


@pytest.mark.parametrize(
    "encoder, layers", [("efficientnet-b0", 16), ("mobileone_s0", 105), ("timm-efficientnet-b0", 16)]
)
def test_encoders(encoder, layers, calls_of_ours):
    smp = pytest.importorskip("segmentation_models_pytorch")
    plain = lively(smp.Unet(encoder, encoder_weights=None), IMAGE)
    ours = convert(copy.deepcopy(plain))
    assert calls_of_ours(ours, IMAGE) == layers
    with torch.no_grad():
        assert distance(ours(IMAGE), plain(IMAGE)) < 1e-9


@pytest.mark.parametrize("image_size", [65, None], ids=["static", "dynamic"])
def test_efficientnet_pytorch(image_size, calls_of_ours):
    """Its SAME of one image size, and that of any."""
    package = pytest.importorskip("efficientnet_pytorch")
    plain = lively(package.EfficientNet.from_name("efficientnet-b0", image_size=image_size), IMAGE)
    classes = [type(module) for module in plain.modules()]
    ours = convert(copy.deepcopy(plain))
    for size in (65, 64, 49):
        image = IMAGE.repeat(1, 1, 2, 2)[..., :size, :size]
        assert calls_of_ours(ours, image) == 16
        with torch.no_grad():
            assert distance(ours(image), plain(image)) < 1e-9
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert [type(module) for module in revert(ours).modules()] == classes

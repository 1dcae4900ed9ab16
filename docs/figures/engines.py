"""The figure of whole models: milliseconds in each engine, from the newest published results of benchmarks.engines."""

import json
import statistics
from pathlib import Path

from picture import LIGHT, Picture

FOLDER = Path(__file__).parents[2] / "benchmarks/results"
MODELS = {
    "mobilenet_v2": "MobileNetV2",
    "mobilenetv3_large_100": "MobileNetV3-Large",
    "efficientnet_b0": "EfficientNet-B0",
    "mobilenetv4_conv_medium": "MobileNetV4-Conv-M",
    "convnext_tiny": "ConvNeXt-T",
}
# Each engine with the forms of the benchmark that it has, of which the fastest counts, and its colour.
ENGINES = {
    "PyTorch, eager": (("plain", "plain-nhwc"), LIGHT[6]),
    "ONNX Runtime": (("onnxruntime",), LIGHT[0]),
    "OpenVINO": (("openvino",), LIGHT[3]),
    "torch_dwconv, fused": (("fused",), LIGHT[1]),
}


def published(folder: Path = FOLDER) -> Path | None:
    """The newest, by the date that its name begins with; None before the first is published."""
    return max(folder.glob("????-??-??-engines.json"), default=None)


def milliseconds(results: dict, model: str, engine: str) -> float:
    """float32, batch 1, one thread; the median of several runs.

    Raises:
        ValueError: it was not measured.
    """
    forms, _ = ENGINES[engine]
    found = []
    for record in results["models"]:
        same = (record["model"], record["dtype"], record["batch"], record["threads"]) == (model, "f32", 1, 1)
        times = [record["times"][form]["median"] for form in forms if form in record["times"]]
        if same and times:
            found.append(1e3 * min(times))
    if not found:
        raise ValueError(f"{model} was not measured in {engine}")
    return statistics.median(found)


def engines() -> Picture:
    path = published()
    assert path is not None
    return picture_of(json.loads(path.read_text()))


def picture_of(results: dict) -> Picture:
    """A group of bars a model, each group to a scale of its own: its slowest engine has the longest bar."""
    bar, gap, left, longest, top = 14, 16, 170, 560, 44
    group = len(ENGINES) * bar + gap
    picture = Picture(
        860, top + len(MODELS) * group + 8, "Milliseconds for one image: each model to a scale of its own"
    )
    for number, (engine, (_, colour)) in enumerate(ENGINES.items()):
        picture.rectangle(left + 160 * number, 12, 14, 14, colour, "none")
        picture.text(left + 22 + 160 * number, 19, engine, 12, "start", bold=number == len(ENGINES) - 1)
    for row, (model, name) in enumerate(MODELS.items()):
        times = {engine: milliseconds(results, model, engine) for engine in ENGINES}
        y = top + row * group
        picture.text(left - 12, y + len(ENGINES) * bar / 2, name, 12, "end")
        for number, (engine, time) in enumerate(times.items()):
            width = longest * time / max(times.values())
            last = number == len(ENGINES) - 1
            picture.rectangle(left, y + bar * number, width, bar, ENGINES[engine][1], "none")
            picture.text(left + width + 6, y + bar * number + bar / 2, f"{time:.3g} ms", 11, "start", bold=last)
        picture.line(left, y - 3, left, y + len(ENGINES) * bar + 3)
    return picture

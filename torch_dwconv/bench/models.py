"""Whole models: an inference and a training step, plain against converted and other forms."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from .contestants import Refused
from .forms import FORMS, Form, Step, forms_of
from .layers import read_layers
from .problem import DTYPES, LAYOUTS
from .timing import Options, Run, threads, time_in_turns

STEPS = ("inference", "training")
_EXAMPLES = Path(__file__).parents[2] / "examples"  # in a checkout

# What ||form - plain|| / ||plain|| of the logits may be: tens of layers, each with the rounding of its dtype.
_TOLERANCE = {"f32": 1e-3, "f64": 1e-10, "bf16": 0.2, "f16": 0.05}


class Model(NamedTuple):
    """A model by name, a function that makes one with random weights, and (C, H, W) of its input if not an image."""

    name: str
    make: Callable[[], nn.Module]
    input_size: tuple[int, int, int] | None = None


class ModelCell(NamedTuple):
    """What is timed: a step ("inference", "training") of a model on `batch` inputs, square images if it takes those."""

    model: Model
    batch: int
    image_size: int
    step: str
    dtype: str
    layout: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.model.name} N{self.batch} {self.step} {self.dtype} {self.layout} t{self.threads}"


def find_model(name: str) -> Model:
    """The model of that name in timm, torchvision, or, for "mobilenet_v2" in a checkout, examples/mobilenetv2.py.

    "replknet_31b_stage1" is the depthwise part of a stage: the first row of that model in layers.csv, as many of it in
    a sequence as the model has.

    Raises:
        ValueError: none of those that are there has it.
    """
    if stage := _stage(name):
        return stage
    searched = []
    for source, find in {"timm": _from_timm, "torchvision": _from_torchvision, "examples": _from_examples}.items():
        try:
            make = find(name)
        except (ImportError, RuntimeError):  # RuntimeError: a torchvision that was built for another PyTorch
            continue
        if make is not None:
            return Model(name, make)
        searched.append(source)
    raise ValueError(f"no model {name!r} in {', '.join(searched) or 'timm or torchvision, which are not installed'}")


def _stage(name: str) -> Model | None:
    model, _, number = name.rpartition("_stage")
    rows = [layer for layer in read_layers() if layer.model == model]
    if not number.isdigit() or not 1 <= int(number) <= len(rows):
        return None
    layer = rows[int(number) - 1]
    if layer.output_size != (layer.height, layer.width) or layer.multiplier != 1:
        raise ValueError(f"the layers of {name} do not follow one another: their output is not like their input")

    def make() -> nn.Module:
        kernel, dilation = (layer.kernel_h, layer.kernel_w), (layer.dilation_h, layer.dilation_w)
        channels = layer.channels
        return nn.Sequential(
            *(nn.Conv2d(channels, channels, kernel, 1, layer.padding, dilation, channels) for _ in range(layer.count))
        )

    return Model(name, make, (layer.channels, layer.height, layer.width))


def _from_timm(name: str) -> Callable[[], nn.Module] | None:
    import timm

    return (lambda: timm.create_model(name, pretrained=False)) if timm.is_model(name) else None


def _from_torchvision(name: str) -> Callable[[], nn.Module] | None:
    from torchvision import models

    return (lambda: models.get_model(name, weights=None)) if name in models.list_models() else None


def _from_examples(name: str) -> Callable[[], nn.Module] | None:
    path = _EXAMPLES / "mobilenetv2.py"
    if not path.exists():
        raise ImportError(f"{path} is missing: this is not a checkout")
    if name != "mobilenet_v2":
        return None
    spec = importlib.util.spec_from_file_location("torch_dwconv_bench_mobilenetv2", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda: module.MobileNetV2(depthwise=nn.Conv2d)


def measure(cell: ModelCell, forms: Mapping[str, Form], options: Options) -> dict:
    """Times one cell and returns its record, plain data for JSON; times are in seconds for one step.

    Args:
        forms: of the model, by name; "plain" is always there, those that cannot do the step are not.

    Raises:
        AssertionError: the output of a form differs from the plain model's by more than rounding.
    """
    with threads(cell.threads):
        return _measure(cell, forms_of(cell.step, {"plain": FORMS["plain"], **forms}), options)


def _measure(cell: ModelCell, forms: Mapping[str, Form], options: Options) -> dict:
    torch.manual_seed(0)
    torch._dynamo.reset()  # graphs of earlier cells count against the limit of recompilations
    dtype, memory_format = DTYPES[cell.dtype], LAYOUTS[cell.layout]
    plain = cell.model.make().to(dtype)
    plain.to(memory_format=memory_format)  # type: ignore[call-overload]  # documented, but not in its stub
    size = cell.model.input_size or (3, cell.image_size, cell.image_size)
    images = torch.randn(cell.batch, *size).to(dtype, memory_format=memory_format)
    models, refused = {}, {}
    for name, form in forms.items():
        try:
            models[name] = form.make(plain, images)
        except (ImportError, Refused) as error:
            refused[name] = str(error)
    differences = _differences(models, images, _TOLERANCE[cell.dtype])
    step = _inference if cell.step == "inference" else _training
    runs = {name: Run(step(model, images), pool=forms[name].pool) for name, model in models.items()}
    timings = time_in_turns(runs, options, cell.threads)
    return {
        "model": cell.model.name,
        "batch": cell.batch,
        "image_size": cell.image_size,
        "step": cell.step,
        "dtype": cell.dtype,
        "layout": cell.layout,
        "threads": cell.threads,
        "differences": differences,
        "refused": refused,
        "times": {name: timing._asdict() for name, timing in timings.items()},
    }


def _differences(models: dict[str, Step], images: torch.Tensor, tolerance: float) -> dict[str, float]:
    with torch.inference_mode():
        plain, *others = (model(images).double() for model in models.values())
    differences = {
        name: ((other - plain).norm() / plain.norm()).item() for name, other in zip([*models][1:], others, strict=True)
    }
    for name, difference in differences.items():
        assert difference <= tolerance, f"the output of the {name} model differs by {difference:.1e}"
    return differences


def _inference(model: Step, images: torch.Tensor) -> Callable[[], object]:
    def infer():
        with torch.inference_mode():
            return model(images)

    return infer


def _training(model: Step, images: torch.Tensor) -> Callable[[], object]:
    assert isinstance(model, nn.Module)
    model.train()
    labels = torch.arange(len(images))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # the weights must stay finite, however often it runs

    def train():
        optimizer.zero_grad(set_to_none=True)
        output = model(images).float()
        loss = F.cross_entropy(output, labels) if output.dim() == 2 else output.square().mean()
        loss.backward()
        optimizer.step()

    return train

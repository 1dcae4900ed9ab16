"""A model by name: of timm, torchvision or examples/, or the depthwise layers of a stage of a model in layers.csv."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch import nn

from ..layers import read_layers

_EXAMPLES = Path(__file__).parents[3] / "examples"  # in a checkout


class Model(NamedTuple):
    """A model by name, a function that makes one with random weights, and (C, H, W) of its input if not an image."""

    name: str
    make: Callable[[], nn.Module]
    input_size: tuple[int, int, int] | None = None


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
    if not _EXAMPLES.exists():
        raise ImportError(f"{_EXAMPLES} is missing: this is not a checkout")
    return example_mobilenet_v2 if name == "mobilenet_v2" else None


def example_mobilenet_v2(**options) -> nn.Module:
    """The plain model of examples/mobilenetv2.py, with what its class takes as `options`.

    Raises:
        ImportError: this is not a checkout.
    """
    path = _EXAMPLES / "mobilenetv2.py"
    if not path.exists():
        raise ImportError(f"{path} is missing: this is not a checkout")
    spec = importlib.util.spec_from_file_location("torch_dwconv_bench_mobilenetv2", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MobileNetV2(depthwise=nn.Conv2d, **options)

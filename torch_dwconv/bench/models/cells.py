"""A step of a whole model: its outputs in every form are compared, then inference or a training step is timed."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..contestants import Refused
from ..problem import DTYPES, LAYOUTS
from ..timing import Options, Run, threads, time_in_turns
from .find import Model
from .forms import FORMS, Form, Step, forms_of

STEPS = ("inference", "training")

# What ||form - plain|| / ||plain|| of the logits may be: tens of layers, each with the rounding of its dtype.
_TOLERANCE = {"f32": 1e-3, "f64": 1e-10, "bf16": 0.2, "f16": 0.05}


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

"""A step of a whole model: its outputs in every form are compared, then inference or a training step is timed."""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from .. import limit
from ..contestants import Refused
from ..problem import DTYPES, LAYOUTS
from ..timing import Options, Run, fastest, threads, time_in_turns
from .find import Model
from .forms import FORMS, Form, Step, forms_of
from .values import fill

STEPS = ("inference", "training")

# What ||form - right|| / ||right|| of the logits may be: tens of layers, each with the rounding of its dtype. Layers
# without training may make errors grow, so twice the plain model's own is allowed too.
_TOLERANCE = {"f32": 1e-3, "f64": 1e-10, "bf16": 0.2, "f16": 0.05}
_FMA = "FMA peak"  # among the names of forms


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

    Outputs are compared with the plain model's, in float32 where that has a 16-bit dtype, before anything is timed, and
    so is the loss of the first step of training, which is of the same weights and random numbers. The record has the
    FLOPs of an inference of the plain model, None for training, and the machine's FMA peak, measured in the same
    rounds: in float32 for the 16-bit dtypes, as everywhere in this benchmark.

    Args:
        forms: of the model, by name; "plain" is always there, those that cannot do the step are not.

    Raises:
        AssertionError: the output or the loss of a form of ours is wrong by more than rounding.
    """
    with threads(cell.threads):
        return _measure(cell, forms_of(cell.step, {"plain": FORMS["plain"], **forms}), options)


def _measure(cell: ModelCell, forms: Mapping[str, Form], options: Options) -> dict:
    torch.manual_seed(0)
    torch._dynamo.reset()  # graphs of earlier cells count against the limit of recompilations
    dtype = DTYPES[cell.dtype]
    size = cell.model.input_size or (3, cell.image_size, cell.image_size)
    model = cell.model.make()
    fill(model, size)
    model.to(dtype).to(memory_format=LAYOUTS[cell.layout])  # type: ignore[call-overload]  # documented, not in its stub
    images = torch.randn(cell.batch, *size).to(dtype, memory_format=LAYOUTS[cell.layout])
    right, flops = _right_and_flops(model, images)
    step = _inference if cell.step == "inference" else training_step
    runs: dict[str, Run] = {}
    differences: dict[str, float] = {}
    loss: float | None = None  # of the plain model
    refused: dict[str, str] = {}
    for name, form in forms.items():
        try:
            offered, difference = _offered(cell, form, model, images, right)
            tolerance = max(_TOLERANCE[form.precision or cell.dtype], 2 * differences.get("plain", 0.0))
            if difference > tolerance:
                raise AssertionError(f"the output of the {name} model differs by {difference:.1e}")
            steps = {layout: step(*made) for layout, made in offered.items()}
            if cell.step == "training":
                loss = _same_loss(name, steps.values(), loss, tolerance)
        except (ImportError, Refused) as error:
            refused[name] = str(error)
        except Exception as error:  # somebody else's: it must not end a long run
            if not form.package:
                raise
            refused[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            candidates = {layout: Run(call, pool=form.pool, note=layout) for layout, call in steps.items()}
            runs[name] = fastest(candidates, options.min_seconds)[1]
            differences[name] = difference
    fma = limit.fma_run(dtype, cell.threads)
    timings = time_in_turns({**runs, _FMA: fma}, options, cell.threads)
    peak = limit.fma_peak(dtype, cell.threads, timings.pop(_FMA))
    return {
        "model": cell.model.name,
        "batch": cell.batch,
        "image_size": cell.image_size,
        "step": cell.step,
        "dtype": cell.dtype,
        "layout": cell.layout,
        "threads": cell.threads,
        "flops": flops if cell.step == "inference" else None,
        "fma_flops_per_second": peak,
        "differences": differences,
        "refused": refused,
        "times": {name: timing._asdict() | {"note": runs[name].note} for name, timing in timings.items()},
    }


def _right_and_flops(plain: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The output of the plain model, computed in float32 at least; and two FLOPs for each multiply-add of its layers,
    taps in the padding too."""
    if images.element_size() == 2:
        plain, images = copy.deepcopy(plain).float(), images.float()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = plain(images)
    return output.double(), counter.get_total_flops()


def _offered(
    cell: ModelCell, form: Form, plain: nn.Module, images: torch.Tensor, right: torch.Tensor
) -> tuple[dict[str, tuple[Step, torch.Tensor]], float]:
    """The model in that form and its images, by their layout; and how far an output is from the right one."""
    offered, differences = {}, [0.0]
    for layout in form.layouts or (cell.layout,):
        given = images.contiguous(memory_format=LAYOUTS[layout])
        model = form.make(plain, given)
        with torch.inference_mode():
            difference = ((model(given).double() - right).norm() / right.norm()).item()
        differences.append(math.inf if math.isnan(difference) else difference)
        offered[layout] = model, given
    return offered, max(differences)


def _same_loss(name: str, steps: Iterable[Callable[[], object]], right: float | None, tolerance: float) -> float:
    """The loss of the plain model, `right` unless that is the form; each form's own first one must be near it.

    Dropout and the like draw the same numbers in all of them.
    """
    for step in steps:
        torch.manual_seed(0)
        loss = float(step())  # type: ignore[arg-type]
        right = loss if right is None else right
        if not abs(loss - right) <= tolerance * abs(right):
            raise AssertionError(f"the loss of the {name} model is {loss:.6g}, that of the plain one {right:.6g}")
    assert right is not None
    return right


def _inference(model: Step, images: torch.Tensor) -> Callable[[], object]:
    def infer():
        with torch.inference_mode():
            return model(images)

    return infer


def training_step(model: Step, images: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A function that does one step of training: forward, backward, SGD; it returns the loss.

    The model's weights change very little.
    """
    assert isinstance(model, nn.Module)
    model.train()
    labels = torch.arange(len(images))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # the weights must stay finite, however often it runs

    def train():
        optimizer.zero_grad(set_to_none=True)
        output = model(images).float()
        loss = F.cross_entropy(output, labels % output.shape[1]) if output.dim() == 2 else output.square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train

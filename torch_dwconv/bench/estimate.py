"""About how long a run will take, so that nobody starts an hour unawares. Rough: from figures of 2-core machines."""

from collections.abc import Collection, Mapping

from .contestants import Contestant
from .models.cells import ModelCell
from .models.forms import Form, forms_of
from .problem import Cell
from .timing import FEWEST, Options

_CELL_S = 0.1  # to make a cell's tensors and check everybody
_ELEMENT_S = 15e-9  # for each element of input or output and each contestant: fresh memory, comparison in float64
# FLOPs a second of one thread, of somebody slow: of PyTorch, most often, by operation; a 16-bit gradient is slower yet.
_SPEED = {"forward": 10e9, "grad_input": 10e9, "grad_weight": 2e9}
_SPEED_16_BIT = 1e9
_PROBES = 4
_COMPILE_MODEL_S = 25  # one with tens of layers
_CONVERT_MODEL_S = 5  # by another engine
_IMAGE_S = 0.15  # a training step of a mobile network on one image of 224 x 224


def _samples_seconds(call: float, options: Options) -> float:
    """Finding the number of repeats, and the samples."""
    sample = max(call, options.min_seconds)
    affordable = options.samples if options.samples * sample <= options.max_seconds else FEWEST
    return (2 + min(options.samples, affordable)) * sample


def cell_seconds(cell: Cell, contestants: Collection[Contestant], options: Options) -> float:
    """Seconds for one cell; `contestants` has ours too, which is timed twice."""
    flops = 2 * cell.layer.work * cell.batch
    speed = _SPEED[cell.operation] if cell.dtype in ("f32", "f64") else _SPEED_16_BIT
    out_h, out_w = cell.layer.output_size
    pixels = max(cell.layer.height * cell.layer.width, cell.layer.multiplier * out_h * out_w)
    seconds = _CELL_S + _ELEMENT_S * cell.batch * cell.layer.channels * pixels * (1 + len(contestants))
    for contestant in contestants:
        call = flops / (speed if contestant.slow else 50e9)
        seconds += contestant.setup_seconds + _samples_seconds(call, options)
    return seconds + (1 + _PROBES) * _samples_seconds(flops / 100e9, options)


def model_seconds(cell: ModelCell, forms: Mapping[str, Form], options: Options) -> float:
    """Seconds for one step of a model in each of the forms that can do it."""
    call = _IMAGE_S * cell.batch * (cell.image_size / 224) ** 2 * (1 if cell.step == "training" else 0.3)
    able = forms_of(cell.step, forms)
    to_compile = _COMPILE_MODEL_S * sum(form.compiles for form in able.values())
    to_compile += _CONVERT_MODEL_S * sum(len(form.layouts) for form in able.values() if form.package)
    return 1 + to_compile + len(able) * _samples_seconds(call, options)

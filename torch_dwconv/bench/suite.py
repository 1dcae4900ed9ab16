"""What a command line may ask for.

``python -m torch_dwconv.bench`` runs `SUITE`. In a checkout ``python -m benchmarks`` runs a suite that has more, by the
same runner.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .contestants import OTHERS, Contestant
from .models.forms import FORMS, Form
from .timing import Options

Table = tuple[str, list[str], list[list]]  # title, headers, rows


class Extra(NamedTuple):
    """Something else to time, asked for by an option of its own.

    Attributes:
        help: of the option.
        measure: times it and returns records, plain data for JSON.
        table: shows those records.
    """

    help: str
    measure: Callable[[Options], list[dict]]
    table: Callable[[list[dict]], Table]


@dataclass(frozen=True)
class Suite:
    """Everything that the options of one program can choose from.

    Attributes:
        program: how it is called.
        epilog: the end of its --help.
        contestants: by name in --against; this library always takes part.
        forms: of a model, by name in --forms.
        presets: lists of command lines, by name in --preset; no such option without any.
        extras: by the name of their option.
        summary: a last table of a whole result, if there is to be one.
    """

    program: str
    epilog: str
    contestants: Mapping[str, Contestant] = field(default_factory=lambda: OTHERS)
    forms: Mapping[str, Form] = field(default_factory=lambda: FORMS)
    presets: Mapping[str, Sequence[list[str]]] = field(default_factory=dict)
    extras: Mapping[str, Extra] = field(default_factory=dict)
    summary: Callable[[dict], Table] | None = None


SUITE = Suite(
    "python -m torch_dwconv.bench",
    """examples:
  python -m torch_dwconv.bench                                   MobileNetV2's layers against PyTorch
  python -m torch_dwconv.bench --layer 1,96,56,56,7,1 --operations forward
  python -m torch_dwconv.bench --layers all --threads 1,2 --layouts nchw --output runs/bench
  python -m torch_dwconv.bench --model mobilenet_v2 --forms converted,fused,compiled-converted
docs/benchmark.md says how to read the result. `python -m benchmarks` in a checkout of the sources has the same options
and more: other engines, tiny calls, and the run whose figures are published.""",
)

"""``python -m benchmarks.training``: training steps and BatchNorm against PyTorch, beside the targets.

Everybody takes turns, on the same weights and images. Steps run on two threads, BatchNorm on one.
"""

import argparse
import copy
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from torch_dwconv.bench import report, runner
from torch_dwconv.bench.models import cells
from torch_dwconv.bench.models.forms import FORMS
from torch_dwconv.bench.problem import LAYOUTS
from torch_dwconv.bench.timing import Options

from .. import command
from . import curves, norms, tables, targets
from .memory import peak_bytes

PROGRAM = "python -m benchmarks.training"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=str(__doc__).partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""examples:
  {PROGRAM} --output runs/training                   the whole table
  {PROGRAM} --models demo --layouts nchw --no-compiled
  {PROGRAM} --curves 200 --output runs/curves        the loss over 200 steps, plain and with blocks
docs/benchmark.md says how to read the result.""",
    )
    add = parser.add_argument
    add(
        "--models",
        type=partial(command.words, allowed=targets.CASES),
        default=list(targets.CASES),
        metavar="NAME,...",
        help=f"among {','.join(targets.CASES)}, or '' for none; default: all",
    )
    add(
        "--layouts",
        type=partial(command.words, allowed=targets.LAYOUTS),
        default=list(targets.LAYOUTS),
        metavar="LAYOUT,...",
        help="nchw, nhwc; default: both",
    )
    add(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="torch.compile of the plain model takes part, by default: minutes of compilation for each row",
    )
    add("--samples", type=int, default=9, metavar="N", help="for each time; default: 9")
    add("--max-s", type=float, default=20.0, metavar="S", help="for the samples of a time; default: 20")
    add("--curves", type=int, metavar="STEPS", help="train instead, and write the losses to --output")
    command.add_files(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(arguments)
    if options.curves:
        return curves.main(options.curves, options.output or Path("runs/curves"))
    command.report(options, measured, document, [*PROGRAM.split(), *arguments])
    return 0


def measured(options: argparse.Namespace, line: str) -> dict:
    results = runner.new_results(line, "memory", "norms")
    names = ["plain", "converted", targets.OURS, *(["compiled-plain"] if options.compiled else [])]
    forms = {name: FORMS[name] for name in names}
    how = Options(options.samples, max_seconds=options.max_s)
    work = []
    for layout in options.layouts:
        for norm in targets.NORMS:
            work.append(runner.Work(str(norm), "norms", partial(_one, norms.measure, norm, layout, how), 2))
        for case in map(targets.CASES.__getitem__, options.models):
            cell = case.cell(layout)
            work.append(runner.Work(cell.name, "models", partial(_one, cells.measure, cell, forms, how), 60))
            work.append(runner.Work(f"{cell.name}, memory", "memory", partial(_one, memory_of, cell), 10))
    runner.run(work, results, options.output)
    return results


def _one(measure, *arguments) -> list[dict]:
    return [measure(*arguments)]


def memory_of(cell: cells.ModelCell) -> dict:
    """The record of a cell's memory: the peak of a step, in bytes, plain and with blocks."""
    torch.manual_seed(0)
    memory_format = LAYOUTS[cell.layout]
    plain = cell.model.make().to(memory_format=memory_format)  # type: ignore[call-overload]
    size = cell.model.input_size or (3, cell.image_size, cell.image_size)
    images = torch.randn(cell.batch, *size).to(memory_format=memory_format)
    found = {}
    for name in ("plain", targets.OURS):
        model = FORMS[name].make(copy.deepcopy(plain), images)
        found[name] = peak_bytes(cells.training_step(model, images))
    return {"model": cell.model.name, "layout": cell.layout, "bytes": found}


def document(results: dict, style: str) -> Iterator[str]:
    """The report, part by part; `style` as for `report.render`."""
    yield "\n".join(report.machine_lines(results["machine"])) + "\n"
    for table in tables.tables(results):
        yield report.render(table, style)


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks.sequences``: causal 1-D convolutions and layers of sequences, beside their targets.

Figures are shares of what a copy of the same bytes takes, or multiples of what PyTorch takes: F.conv1d and F.silu, and
in decoding the roll and the sum of products by which transformers did it. Longer and dilated filters are compared with
the machine's limit. One thread.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial

from torch_dwconv.bench import cells, report, runner
from torch_dwconv.bench.contestants import ours
from torch_dwconv.bench.layers import read_layers
from torch_dwconv.bench.problem import LAYOUTS, OPERATIONS, Cell
from torch_dwconv.bench.timing import Options

from .. import command
from . import measure, tables, targets

PROGRAM = "python -m benchmarks.sequences"
KINDS = ("causal", "steps", "layers")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=str(__doc__).partition("\n\n")[2], epilog="docs/benchmark.md says how to read it."
    )
    add = parser.add_argument
    add("--kinds", type=partial(command.words, allowed=KINDS), default=list(KINDS), help=f"of {','.join(KINDS)}")
    add(
        "--dtypes",
        type=partial(command.words, allowed=targets.DTYPES),
        default=list(targets.DTYPES),
        metavar="DTYPE,...",
        help=f"of {','.join(targets.DTYPES)}, for causal ones; default: all",
    )
    add("--sizes", type=int, default=len(targets.SIZES), metavar="N", help="the first ones only, of everything")
    add("--samples", type=int, default=7, metavar="N", help="for each time; default: 7")
    add("--min-ms", type=float, default=2.0, metavar="MS", help="that a sample lasts; default: 2")
    command.add_files(parser)
    return parser


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    command.report(parser().parse_args(arguments), measured, document, [*PROGRAM.split(), *arguments])
    return 0


def measured(options: argparse.Namespace, line: str) -> dict:
    results = runner.new_results(line, "sequences", "steps")
    how = Options(options.samples, options.min_ms * 1e-3)
    work = [
        *(_causal(options, how) if "causal" in options.kinds else ()),
        *(_steps(options, how) if "steps" in options.kinds else ()),
        *(_layers(options, how) if "layers" in options.kinds else ()),
    ]
    runner.run(work, results, options.output)
    return results


def _causal(options: argparse.Namespace, how: Options) -> Iterator[runner.Work]:
    for dtype in options.dtypes:
        for layout in targets.LAYOUTS:
            for size in targets.SIZES[: options.sizes]:
                yield _work(size.name, "sequences", 2, measure.measure, size, dtype, layout, how)


def _steps(options: argparse.Namespace, how: Options) -> Iterator[runner.Work]:
    for dtype in options.dtypes:
        for batch, channels in targets.STEPS[: options.sizes]:
            yield _work(f"{batch}x{channels}", "steps", 0.2, measure.measure_step, batch, channels, dtype, how)


def _layers(options: argparse.Namespace, how: Options) -> Iterator[runner.Work]:
    layers = [layer for layer in read_layers() if layer.model in targets.LAYERS]
    for layout in LAYOUTS:
        for layer in layers[: options.sizes]:
            for operation in OPERATIONS:
                cell = Cell(layer, 1, operation, "f32", layout, 1)
                yield _work(cell.name, "cells", 1, cells.measure, cell, {"ours": ours}, how)


def _work(name: str, kind: str, seconds: float, function, *arguments) -> runner.Work:
    return runner.Work(name, kind, lambda: [function(*arguments)], seconds)


def document(results: dict, style: str) -> Iterator[str]:
    """The report, part by part; `style` as for `report.render`."""
    yield "\n".join(report.machine_lines(results["machine"])) + "\n"
    for table in tables.tables(results):
        yield report.render(table, style)


if __name__ == "__main__":
    sys.exit(main())

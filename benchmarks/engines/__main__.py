"""``python -m benchmarks.engines``: whole models against ONNX Runtime and OpenVINO, beside the targets.

Each cell is a model, a dtype, a batch and a number of threads. In it everybody takes turns, on the same weights and
images. Images are float32 or bfloat16 of 224 x 224, and lie in memory in the layout that suits the engine.
"""

import argparse
import sys
from collections.abc import Iterator
from functools import partial

from torch_dwconv.bench import estimate, report, runner
from torch_dwconv.bench.models import cells
from torch_dwconv.bench.models.cells import ModelCell
from torch_dwconv.bench.timing import Options

from .. import command
from ..forms import FORMS
from . import models, tables, targets

PROGRAM = "python -m benchmarks.engines"
BOTH_LAYOUTS = {
    **FORMS,
    **{name: FORMS[name]._replace(layouts=("nchw", "nhwc")) for name in (targets.OURS, "backend")},
}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=str(__doc__).partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"""examples:
  {PROGRAM} --output runs/engines                       the whole table
  {PROGRAM} --models mobilenet_v2 --columns 1x1 --dtypes f32
  {PROGRAM} --pytorch --output runs/pytorch             20 models of timm against PyTorch's best form
  TORCH_DWCONV_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 {PROGRAM}
docs/benchmark.md says how to read the result.""",
    )
    parser.add_argument("--pytorch", action="store_true", help="timm models against PyTorch's forms, not engines")
    parser.add_argument(
        "--models", type=command.words, metavar="NAME,...", help="default: all with targets; all of --pytorch"
    )
    parser.add_argument(
        "--columns",
        type=partial(command.words, allowed=targets.COLUMNS),
        metavar="BATCHxTHREADS,...",
        help=f"among {','.join(targets.COLUMNS)}; default: all, with --pytorch 1x1",
    )
    parser.add_argument(
        "--dtypes",
        type=partial(command.words, allowed=("f32", "bf16")),
        metavar="DTYPE,...",
        help="f32, bf16; default: both, with --pytorch f32",
    )
    parser.add_argument(
        "--forms",
        type=partial(command.words, allowed=FORMS),
        default=[],
        metavar="FORM,...",
        help=f"that take part too: {','.join(FORMS)}",
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="times that everything is done; default: 1")
    parser.add_argument("--samples", type=int, default=9, metavar="N", help="for each time; default: 9")
    parser.add_argument("--max-s", type=float, default=2.0, metavar="S", help="for the samples of a time; default: 2")
    parser.add_argument("--image-size", type=int, default=224, metavar="N", help="default: 224")
    command.add_files(parser)
    return parser


def cells_of(options: argparse.Namespace) -> list[ModelCell]:
    """All that are asked for, once; models that are not installed are left out with a word."""
    names = options.models or (models.TIMM if options.pytorch else targets.MODELS)
    columns = options.columns or (["1x1"] if options.pytorch else targets.COLUMNS)
    found = []
    for name in names:
        try:
            found.append(models.model_of(name))
        except ValueError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
    return [
        ModelCell(model, column.batch, options.image_size, "inference", dtype, "nchw", column.threads)
        for dtype in options.dtypes or (["f32"] if options.pytorch else ["f32", "bf16"])
        for column in map(targets.COLUMNS.__getitem__, columns)
        for model in found
    ]


def forms_of(options: argparse.Namespace) -> list[str]:
    """Names of the forms that take part."""
    others = targets.PYTORCH if options.pytorch else ("plain-nhwc", *targets.OTHERS)
    return list(dict.fromkeys([targets.OURS, *others, *options.forms]))


def main(arguments: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    results = command.report(parser().parse_args(arguments), measured, document, [*PROGRAM.split(), *arguments])
    return 1 if results["failures"] else 0


def measured(options: argparse.Namespace, line: str) -> dict:
    """Times what the options ask for. A cell in which one of our forms is wrong, or raises, is a failure."""
    results = runner.new_results(line, "failures")
    forms = {name: BOTH_LAYOUTS[name] for name in forms_of(options)}
    results["machine"]["contestants"] = runner.versions_of(forms)
    how = Options(options.samples, max_seconds=options.max_s)

    def measure(cell: ModelCell) -> list[dict]:
        try:
            return [cells.measure(cell, forms, how)]
        except Exception as error:  # it must not end a long run
            reason = next(iter(str(error).splitlines()), "")
            results["failures"].append(f"{cell.name}: {type(error).__name__}: {reason}")
            return []

    work = [
        runner.Work(cell.name, "models", partial(measure, cell), estimate.model_seconds(cell, forms, how))
        for cell in cells_of(options) * options.repeat
    ]
    runner.run(work, results, options.output)
    return results


def document(results: dict, style: str) -> Iterator[str]:
    """The report, part by part; `style` as for `report.render`."""
    yield "\n".join(report.machine_lines(results["machine"])) + "\n"
    for table in tables.tables(results):
        yield report.render(table, style)
    yield from report.not_timed(results["models"])
    if failures := results["failures"]:
        yield "\n".join(["FAILED:", "", *(f"- {failure}" for failure in failures)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

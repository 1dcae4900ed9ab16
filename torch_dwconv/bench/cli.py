"""The command line: its options, and the cells that they ask for."""

import argparse
import sys
from pathlib import Path

from .layers import parse_layer, select_layers
from .models.cells import STEPS, ModelCell
from .models.find import find_model
from .problem import DTYPES, LAYOUTS, OPERATIONS, Cell
from .suite import Suite


def _choices(allowed):
    """A parser of comma-separated words, all of which must be among `allowed`."""

    def parse(text: str) -> list[str]:
        words = text.split(",")
        if unknown := [word for word in words if word not in allowed]:
            raise argparse.ArgumentTypeError(f"must be among {','.join(allowed)}; got {','.join(unknown)}")
        return list(dict.fromkeys(words))

    return parse


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise argparse.ArgumentTypeError(f"must be positive whole numbers, separated by commas; got {text!r}")
    return list(dict.fromkeys(counts))


def _checked(parse):
    """A type for argparse that shows the text of a ValueError."""

    def checked(text: str):
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return checked


def _positive(number):
    """A type for argparse: a `number` (int or float) above zero."""

    def parse(text: str):
        value = number(text)
        if value <= 0:
            raise ValueError
        return value

    parse.__name__ = f"positive {number.__name__}"  # argparse's message names it
    return parse


def add_cell_options(what) -> None:
    """Adds to a parser, or a group of one, the options that `cells_of` reads."""
    what.add_argument(
        "--layers",
        type=_checked(select_layers),
        metavar="NAME|CSV",
        help="a model in layers.csv, all of them (all), or a CSV file with the same columns (default: mobilenet_v2)",
    )
    what.add_argument(
        "--layer",
        type=_checked(parse_layer),
        action="append",
        metavar="N,C,H,W,k,s[,d[,m]]",
        help="one layer: batch, channels, height, width, kernel, stride, dilation, multiplier; k, s, d may be HxW; "
        "may be repeated",
    )
    what.add_argument(
        "--operations",
        type=_choices(OPERATIONS),
        default=list(OPERATIONS),
        metavar="OPERATION,...",
        help="default: all three",
    )
    what.add_argument("--dtypes", type=_choices(DTYPES), default=["f32"], metavar="DTYPE,...", help="default: f32")
    what.add_argument(
        "--layouts", type=_choices(LAYOUTS), default=list(LAYOUTS), metavar="LAYOUT,...", help="default: nchw,nhwc"
    )
    what.add_argument("--threads", type=_counts, default=[1], metavar="N,...", help="default: 1")
    what.add_argument("--batch", type=_counts, default=[1], metavar="N,...", help="of --layers and --model; default: 1")


def parser(suite: Suite) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=suite.program,
        description="Times depthwise convolution layers, or whole models, against others and the machine's limit.",
        epilog=suite.epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to time")
    add_cell_options(what)
    what.add_argument(
        "--model",
        type=_checked(find_model),
        action="append",
        metavar="NAME",
        help="a whole model of timm, torchvision or examples/: inference and training step; "
        "NAME_stageI times the depthwise layers of stage I of a model in layers.csv",
    )
    what.add_argument(
        "--forms",
        type=_choices(suite.forms),
        default=["plain", "converted"],
        metavar="FORM,...",
        help=f"of --model: {','.join(suite.forms)} (default: plain,converted)",
    )
    for name, extra in suite.extras.items():
        what.add_argument(f"--{name}", dest="extras", action="append_const", const=name, default=[], help=extra.help)
    if suite.presets:
        what.add_argument(
            "--preset",
            choices=suite.presets,
            help="a whole run of several command lines; options beside it replace theirs",
        )
    what.add_argument("--image-size", type=_positive(int), default=224, metavar="N", help="for --model; default: 224")
    what.add_argument(
        "--against",
        type=_choices(suite.contestants),
        default=["torch"],
        metavar="NAME,...",
        help=f"{','.join(suite.contestants)} (default: torch); those not installed are left out",
    )
    how = parser.add_argument_group("how")
    how.add_argument("--samples", type=_positive(int), default=9, metavar="N", help="samples for each time; default: 9")
    how.add_argument(
        "--min-ms", type=_positive(float), default=2.0, metavar="MS", help="of a sample, at least; default: 2"
    )
    how.add_argument(
        "--max-s",
        type=_positive(float),
        default=2.0,
        metavar="S",
        help="for the samples of one time: longer calls give fewer of them, at least 3; default: 2",
    )
    how.add_argument("--output", type=Path, metavar="DIR", help="write results.json, results.md and the plots there")
    how.add_argument("--read", type=Path, metavar="JSON", help="show an earlier results.json instead of timing")
    return parser


def parts_of(suite: Suite, words: list[str]) -> list[argparse.Namespace]:
    """The command lines that `words` stand for: themselves, or those of the preset that they name, each with `words`
    after its own."""
    options = parser(suite).parse_args(words)
    preset = getattr(options, "preset", None)
    if preset is None:
        return [options]
    parts = (_with_models_that_there_are(part) for part in suite.presets[preset])
    return [parser(suite).parse_args([*part, *words]) for part in parts if part]


def _with_models_that_there_are(part: list[str]) -> list[str]:
    """A preset's command line without the models that are not installed, each with a word on stderr; empty if all."""
    if "--model" not in part:
        return part
    rest, names = list(part), []
    while "--model" in rest:
        position = rest.index("--model")
        names.append(rest[position + 1])
        del rest[position : position + 2]
    found = []
    for name in names:
        try:
            find_model(name)
            found += ["--model", name]
        except ValueError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
    return [*found, *rest] if found else []


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """All combinations, in an order that changes the number of threads least: some contestants keep their first."""
    layers = [(batch, layer) for layer in arguments.layers or () for batch in arguments.batch]
    layers += arguments.layer or ()
    if not layers and not arguments.model and not getattr(arguments, "extras", ()):
        layers = [(batch, layer) for layer in select_layers("mobilenet_v2") for batch in arguments.batch]
    return [
        Cell(layer, batch, operation, dtype, layout, threads)
        for threads in arguments.threads
        for dtype in arguments.dtypes
        for layout in arguments.layouts
        for operation in arguments.operations
        for batch, layer in layers
    ]


def model_cells_of(arguments: argparse.Namespace) -> list[ModelCell]:
    """All combinations that --model asks for."""
    return [
        ModelCell(model, batch, arguments.image_size, step, dtype, layout, threads)
        for threads in arguments.threads
        for dtype in arguments.dtypes
        for layout in arguments.layouts
        for step in STEPS
        for batch in arguments.batch
        for model in arguments.model or ()
    ]

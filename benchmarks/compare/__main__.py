"""Times two builds of the library against each other: ``python -m benchmarks.compare BEFORE [AFTER]``.

BEFORE and AFTER are checkouts, each with its own torch_dwconv/lib; AFTER is this one unless it is given. Each build has
a process of its own. The two work in turn, sample by sample, so that a slow moment of the machine meets both, and the
shortest sample counts. A round is one pair of processes over all calls; the next round has a new pair, whose memory
lies elsewhere. What is below the limit after all rounds is timed again, in further rounds, and what still looks slower
again, up to three times; the last look alone decides.

To see the noise of the machine, compare a build with itself. The exit status is 1 if a call is slower for sure.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from torch_dwconv.bench.cli import add_cell_options, cells_of
from torch_dwconv.bench.contestants import MODES
from torch_dwconv.bench.layers import distinct, read_layers
from torch_dwconv.bench.problem import DTYPES
from torch_dwconv.bench.progress import progress_bar
from torch_dwconv.bench.report import render

from .. import overhead
from . import report
from .processes import ROOT, Pair, Subject, Times


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path, nargs="?", default=ROOT)
    what = parser.add_argument_group("what to time (by default: every layer of layers.csv, all dtypes, and tiny calls)")
    add_cell_options(what)
    what.set_defaults(dtypes=list(DTYPES))
    what.add_argument("--mode", choices=MODES, default="reused", help="where results go; default: reused")
    what.add_argument("--tiny", choices=("too", "no", "only"), default="too", help="tiny calls; default: too")
    how = parser.add_argument_group("how")
    how.add_argument("--rounds", type=int, default=3, help="pairs of processes; default: 3")
    how.add_argument("--turns", type=int, default=7, help="samples of each call in a round; default: 7")
    how.add_argument("--min-ms", type=float, default=1.0, help="of a sample, at least; default: 1")
    how.add_argument("--limit", type=float, default=0.97, help="below it a call is timed again; default: 0.97")
    how.add_argument("--looks", type=int, default=3, help="at what looks slower; default: 3")
    how.add_argument("--again", type=int, default=5, help="rounds of each such look; default: 5")
    how.add_argument("--output", type=Path, metavar="JSON", help="write every time there")
    return parser


def subjects_of(options: argparse.Namespace) -> list[Subject]:
    """The calls that the command line asks for."""
    if not options.layers and not options.layer:
        options.layers = distinct(read_layers())
    subjects = [Subject("cell", cell, options.mode) for cell in cells_of(options)]
    tiny = [Subject("tiny", call, step) for call in overhead.calls() for step in overhead.STEPS]
    return {"too": subjects + tiny, "no": subjects, "only": tiny}[options.tiny]


def time_rounds(options: argparse.Namespace, subjects: Sequence[Subject], rounds: int) -> dict[Subject, list[Times]]:
    """Every subject in every round, each round in new processes; after Ctrl-C, the rounds that were whole by then."""
    folders = [options.before.resolve(), options.after.resolve()]
    result: dict[Subject, list[Times]] = {subject: [] for subject in subjects}
    for one in range(rounds if subjects else 0):
        begun = time.monotonic()
        with Pair(folders, options.turns, options.min_ms / 1e3) as pair:
            try:
                watched = progress_bar(subjects, desc=f"round {one + 1}", unit="call", leave=False)
                times = {subject: pair.time(subject) for subject in watched}
            except KeyboardInterrupt:
                print("interrupted: what was measured until then follows", file=sys.stderr)
                break
        for subject in subjects:
            result[subject].append(times[subject])
        seconds = time.monotonic() - begun
        print(f"round {one + 1} of {rounds}: {len(subjects)} calls in {seconds:.0f} s", file=sys.stderr)
    return {subject: timed for subject, timed in result.items() if timed}


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    first = time_rounds(options, subjects_of(options), options.rounds)
    if not first:
        return 2
    again: dict[Subject, list[Times]] = {}
    left = report.suspects(first, options.limit)
    for _ in range(options.looks):
        last = time_rounds(options, left, options.again)
        again |= last
        left = [v.subject for v in report.verdicts(last, options.limit) if v.words != report.NOT_SLOWER]
    for table in report.tables(first, again, options.limit):
        print(render(table, "simple"))
    lines = report.other_bits(first)
    print(f"Results with the same bits: {len(first) - len(lines)} of {len(first)}", *lines[:20], sep="\n  ")
    if options.output:
        options.output.write_text(json.dumps({"first": _plain(first), "again": _plain(again)}, indent=1))
    return int(any(verdict.words == "SLOWER" for verdict in report.verdicts(again, options.limit)))


def _plain(rounds: report.Rounds) -> dict[str, list[dict]]:
    return {subject.name: [times._asdict() for times in timed] for subject, timed in rounds.items()}


if __name__ == "__main__":
    sys.exit(main())

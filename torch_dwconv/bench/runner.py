"""A run: times all that a command line asks of a suite, prints the tables and writes the files."""

import contextlib
import json
import math
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from . import cells, contestants, estimate, report
from .cli import cells_of, model_cells_of, parts_of
from .machine import facts
from .models.cells import measure as measure_model
from .models.forms import Form
from .progress import progress_bar
from .suite import Suite
from .timing import Options

SAVE_EVERY_S = 10  # a killed run loses no more than that


def main(suite: Suite, arguments: list[str] | None = None) -> int:
    """Does what the command line (by default the program's) asks for; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parts = parts_of(suite, arguments)
    options = parts[0]
    try:
        import matplotlib  # noqa: F401
        import tabulate  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        print(f"{error}: run pip install 'torch-depthwise[bench]'", file=sys.stderr)
        return 1
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    if options.read:
        results = json.loads(options.read.read_text())
    else:
        results = new_results(f"{suite.program} {shlex.join(arguments)}", *suite.extras)
        work = [cell for part in parts for cell in _work(suite, part, results)]
        run(work, results, options.output)
    print("\n".join(report.document(results, "simple", suite)))
    if options.output:
        _write(results, options.output, report.document(results, "github", suite))
    return 0


class Work(NamedTuple):
    """A cell to time: its name, the list of the results that it belongs to, what times it, seconds expected."""

    name: str
    kind: str
    measure: Callable[[], list[dict]]
    seconds: float


def new_results(command: str, *kinds: str) -> dict[str, Any]:
    """What every result has before anything is timed; `kinds` beside layers and whole models."""
    return {"machine": facts({}, command), "cells": [], "models": [], **{kind: [] for kind in kinds}}


def run(work: list[Work], results: dict[str, Any], output: Path | None) -> None:
    """Times all of it in turn, into `results`; after Ctrl-C, that is what was measured until then.

    What is measured is written to `output` as it comes, so that little is lost when the process is killed.
    """
    if results["machine"]["load"] > 0.5:
        print("this machine is busy: times on several threads may be off by milliseconds (see ±%)", file=sys.stderr)
    print(f"{len(work)} cells, about {math.ceil(sum(cell.seconds for cell in work) / 60)} min", file=sys.stderr)
    saved = time.monotonic()
    with progress_bar(total=len(work), unit="cell", leave=False) as bar:
        try:
            for cell in work:
                bar.set_postfix_str(cell.name)
                results[cell.kind] += cell.measure()
                bar.update()
                if output and time.monotonic() - saved > SAVE_EVERY_S:
                    save(results, output)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            print("interrupted: what was measured until then follows", file=sys.stderr)


def _work(suite: Suite, options, results: dict) -> list[Work]:
    """What a command line asks for; the versions of who takes part go into `results`."""
    how = Options(options.samples, options.min_ms / 1e3, options.max_s)
    work: list[Work] = []
    for name in getattr(options, "extras", ()):
        work.append(Work(name, name, partial(suite.extras[name].measure, how), 1))
    if asked := cells_of(options):
        taking_part = {"ours": contestants.OURS, **{name: suite.contestants[name] for name in options.against}}
        modules = _load(taking_part, results["machine"]["contestants"])
        loaded = [taking_part[name] for name in modules]
        for cell in asked:
            seconds = estimate.cell_seconds(cell, loaded, how)
            work.append(Work(cell.name, "cells", partial(_one, cells.measure, cell, modules, how), seconds))
    forms = {name: suite.forms[name] for name in options.forms}
    if models := model_cells_of(options):
        results["machine"]["contestants"] |= versions_of(forms)
    for model in models:
        seconds = estimate.model_seconds(model, forms, how)
        work.append(Work(model.name, "models", partial(_one, measure_model, model, forms, how), seconds))
    return work


def _one(measure: Callable[..., dict], *arguments) -> list[dict]:
    """The record of one cell, as the only one of a list."""
    return [measure(*arguments)]


def _load(taking_part: dict[str, contestants.Contestant], versions: dict[str, str]) -> dict:
    """The modules of those that are installed, the others with a word on stderr; fills `versions`."""
    modules = {}
    for name, contestant in taking_part.items():
        try:
            modules[name], versions[name] = contestants.load(contestant)
        except ImportError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
    return modules


def versions_of(forms: Mapping[str, Form]) -> dict[str, str]:
    """Of the other engines among the forms that are installed."""
    versions = {}
    for package in {form.package for form in forms.values()} - {""}:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def save(results: dict, folder: Path) -> None:
    new = folder / "results.json.new"
    new.write_text(json.dumps(results, indent=1) + "\n")
    new.replace(folder / "results.json")


def _write(results: dict, folder: Path, markdown: Iterable[str]) -> None:
    from . import plots

    save(results, folder)
    (folder / "results.md").write_text("\n".join(markdown))
    files = [folder / "results.json", folder / "results.md", *plots.save_all(results, folder)]
    print("written:", *files, sep="\n  ")

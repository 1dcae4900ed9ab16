"""``python -m torch_dwconv.bench``: see --help and docs/benchmark.md."""

import json
import sys
from pathlib import Path

from . import contestants, models, run
from .cli import cells_of, model_cells_of, parser
from .machine import facts


def main(arguments: list[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        from . import plots, report
    except ImportError as error:
        print(f"{error}: run pip install 'torch_dwconv[bench]'", file=sys.stderr)
        return 1
    results = json.loads(options.read.read_text()) if options.read else _measure(options)
    text = "\n".join(report.document(results, "simple"))
    print(text)
    if options.output:
        _write(results, options.output, report, plots)
    return 0


def _measure(options) -> dict:
    """Times every cell in turn; after Ctrl-C, what was measured until then."""
    from tqdm import tqdm

    modules, versions = _load_contestants(options.against)
    results = {"machine": facts(versions), "cells": [], "models": []}
    if results["machine"]["load"] > 0.5:
        print("this machine is busy: times on several threads may be off by milliseconds (see ±%)", file=sys.stderr)
    timing = run.Options(options.samples, options.min_ms / 1e3)
    cells, model_cells = cells_of(options), model_cells_of(options)
    with tqdm(total=len(cells) + len(model_cells), unit="cell", disable=None, leave=False) as bar:
        try:
            for cell in cells:
                bar.set_postfix_str(cell.name)
                results["cells"].append(run.measure(cell, modules, timing))
                bar.update()
            for cell in model_cells:
                bar.set_postfix_str(cell.name)
                results["models"].append(models.measure(cell, timing))
                bar.update()
        except KeyboardInterrupt:
            print("interrupted: what was measured until then follows", file=sys.stderr)
    return results


def _load_contestants(names: list[str]) -> tuple[dict, dict[str, str]]:
    """Modules and versions of ours and those of `names` that are installed; the others get a word on stderr."""
    modules, versions = {}, {}
    for name in ("ours", *names):
        try:
            modules[name], versions[name] = contestants.load(name)
        except ImportError as error:
            print(f"{name}: left out ({error})", file=sys.stderr)
    return modules, versions


def _write(results: dict, folder: Path, report, plots) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / "results.md").write_text("\n".join(report.document(results, "github")))
    files = [folder / "results.json", folder / "results.md", *plots.save_all(results["cells"], folder)]
    print("written:", *files, sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())

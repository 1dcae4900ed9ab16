"""What the commands of this folder share: words in a list, values beside targets, results shown and written."""

import argparse
import json
import shlex
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from torch_dwconv.bench import runner


def words(text: str, allowed: Collection[str] = ()) -> list[str]:
    """The words between commas, each once; all of them `allowed`, if anything is."""
    found = list(dict.fromkeys(word for word in text.split(",") if word))
    if allowed and (unknown := [word for word in found if word not in allowed]):
        raise argparse.ArgumentTypeError(f"must be among {','.join(allowed)}; got {','.join(unknown)}")
    return found


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, metavar="DIR", help="write results.json and results.md there")
    parser.add_argument("--read", type=Path, metavar="JSON", help="show an earlier results.json instead of timing")


def report(
    options: argparse.Namespace,
    measured: Callable[[argparse.Namespace, str], dict],
    document: Callable[[dict, str], Iterator[str]],
    command: list[str],
) -> dict:
    """The results of `measured`, or those that --read names, once they are printed and, with --output, written."""
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
    results = json.loads(options.read.read_text()) if options.read else measured(options, shlex.join(command))
    print("\n".join(document(results, "simple")))
    if options.output:
        runner.save(results, options.output)
        (options.output / "results.md").write_text("\n".join(document(results, "github")))
    return results


def judged(value: float, wanted: float | None, less: bool = False) -> str:
    """A value beside what is wanted, if anything is: at least that, or with `less` at most."""
    if wanted is None:
        return f"{value:.2f}"
    reached = value <= wanted if less else value >= wanted
    return f"{value:.2f} / {wanted:.2f} {'reached' if reached else 'NOT REACHED'}"

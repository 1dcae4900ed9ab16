"""Commands one after the other, or beside each other, within a budget of seconds; nothing here needs torch.

What each prints goes to a file of its own as it comes, and how it ended to steps.jsonl. A step that takes too long is
ended with all that it has started; Python processes print their stacks first.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import glob
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from benchmarks import items

ROOT = Path(__file__).resolve().parents[2]
SECONDS = "{seconds}"  # in a command: how long it may take, less a margin
MARGIN = 3.0


class Step(NamedTuple):
    """A command and its share of the time.

    Attributes:
        command: its words; None if what it needs is missing, which `missing` says.
        seconds: what it may take of the plan's time; what steps leave is shared out among those after them.
        environment: variables beside those of this process.
        together: steps that follow each other and have the same word run at the same time.
        essential: nothing follows if it fails.
    """

    name: str
    command: list[str] | None
    seconds: int
    environment: Mapping[str, str] = MappingProxyType({})
    together: str | None = None
    essential: bool = False
    missing: str = ""


def planned_seconds(steps: Iterable[Step]) -> int:
    """Those of all steps, of steps beside each other the longest."""
    return sum(max(step.seconds for step in group) for group in in_turn(steps))


def in_turn(steps: Iterable[Step]) -> list[list[Step]]:
    """The steps that run at the same time, group by group."""
    grouped = groupby(enumerate(steps), lambda item: item[1].together or item[0])
    return [[step for _, step in group] for _, group in grouped]


def perform(steps: Sequence[Step], output: Path, budget: float, say: Callable[[str], None] = print) -> list[str]:
    """Runs the steps within the budget; returns the names of those that failed."""
    deadline, failed = time.monotonic() + budget, []
    items.leave_no_core()
    output.mkdir(parents=True, exist_ok=True)
    groups = in_turn(steps)
    for turn, group in enumerate(groups):
        rest = planned_seconds(step for later in groups[turn:] for step in later)
        limit = (deadline - time.monotonic()) * max(step.seconds for step in group) / rest
        results = _run(group, output, limit, say)
        bad = [step for step, result in zip(group, results, strict=True) if result.startswith("FAILED")]
        failed += [step.name for step in bad]
        if any(step.essential for step in bad):
            break  # the rest would test what was there before
    return failed


def _run(group: Sequence[Step], output: Path, limit: float, say: Callable[[str], None]) -> list[str]:
    """How each step of a group ended."""
    begun = time.monotonic()
    running: dict[str, tuple[Step, subprocess.Popen]] = {}
    results: dict[str, str] = {}
    for step in group:
        if step.command is None:
            results[step.name] = f"LEFT OUT: {step.missing}"
            _conclude(step, results[step.name], output, 0.0, say)
            continue
        command = [word.replace(SECONDS, f"{limit - min(MARGIN, limit / 5):.1f}") for word in step.command]
        say(f"== {step.name}, at most {limit:.0f} s: {' '.join(command)}")
        items.append(output / "steps.jsonl", {"begun": step.name, "command": command, "limit": round(limit, 1)})
        try:
            with (output / f"{step.name}.txt").open("a") as file:
                process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment(step),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            running[step.name] = step, process
        except OSError as error:
            results[step.name] = f"FAILED: {error}"
            _conclude(step, results[step.name], output, 0.0, say)
    while running:
        seconds = time.monotonic() - begun
        for step, process in list(running.values()):
            if process.poll() is None and seconds < limit:
                continue
            if process.returncode is None:
                result = f"FAILED: not done in {limit:.0f} s"
            else:
                result = "ok" if process.returncode == 0 else f"FAILED: {items.how_it_ended(process.returncode)}"
            items.end(process)
            del running[step.name]
            results[step.name] = result
            _conclude(step, result, output, seconds, say)
        time.sleep(0.02)
    return [results[step.name] for step in group]


def _conclude(step: Step, result: str, output: Path, seconds: float, say: Callable[[str], None]) -> None:
    items.append(output / "steps.jsonl", {"name": step.name, "result": result, "seconds": round(seconds, 1)})
    log = output / f"{step.name}.txt"
    for line in log.read_text(errors="replace").splitlines()[-25:] if log.exists() else ():
        say(f"   {line}")
    say(f"== {step.name}: {result}, {seconds:.0f} s, {log}")


def environment(step: Step) -> dict[str, str]:
    """Of a step's process. Packages that were brought along in PYTHONPATH stay, behind this checkout."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    fixed = {"PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **fixed, **step.environment}


TOOLKITS = ("/usr/local/cuda", "/usr/local/cuda-*", "/opt/nvidia/*")  # where compute-sanitizer and ncu may be


def find_tool(name: str) -> str | None:
    """A tool of the toolkit: of PATH, of CUDA_HOME, or from below one of TOOLKITS, the newest first."""
    if found := shutil.which(name):
        return found
    home = os.environ.get("CUDA_HOME")
    for root in (*([home] if home else []), *TOOLKITS):
        for folder in sorted(glob(root), reverse=True):
            for place in (f"bin/{name}", f"{name}/{name}", f"*/{name}", name, f"extras/*/{name}"):
                for path in sorted(glob(f"{folder}/{place}"), reverse=True):
                    if os.path.isfile(path) and os.access(path, os.X_OK):
                        return path
    return None

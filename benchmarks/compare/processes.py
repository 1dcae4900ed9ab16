"""Times subjects in two processes, one for each build, which work in turn and never at once."""

import math
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from torch_dwconv.bench.problem import Cell

ROOT = Path(__file__).parents[2]
BUILDS = ("before", "after")


class Subject(NamedTuple):
    """What is timed: ("cell", Cell, mode) or ("tiny", call, step) of overhead.py."""

    kind: str
    what: Cell | str
    how: str

    @property
    def name(self) -> str:
        return f"{self.what.name} {self.how}" if isinstance(self.what, Cell) else f"tiny {self.what}, {self.how}"

    @property
    def group(self) -> tuple[str, str, str, int]:
        """(operation, dtype, layout, threads), or what stands for it."""
        if isinstance(self.what, Cell):
            return self.what.operation, self.what.dtype, self.what.layout, self.what.threads
        return "tiny call", "f32", "nchw", 1

    @property
    def threads(self) -> int:
        return self.what.threads if isinstance(self.what, Cell) else 1


class Times(NamedTuple):
    """Of one subject in one pair of processes: the shortest sample of each build, in seconds for one call.

    Attributes:
        difference: ||after - before|| / ||before|| of the results, 0 where all bits are the same.
    """

    before: float
    after: float
    difference: float

    @property
    def ratio(self) -> float:
        """Above 1: the build of after is faster."""
        return self.before / self.after


class Worker:
    """A process that times the build in `folder`."""

    def __init__(self, folder: Path):
        # In a session of its own: Ctrl-C is for the program that asks.
        command = [sys.executable, "-m", "benchmarks.compare.worker", str(folder)]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def ask(self, *message):
        """The answer to one message; waits for it.

        Raises:
            RuntimeError: the process has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()
            return pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError):
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended, see above") from None  # type: ignore[arg-type]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Pair:
    """A process for each build, as a context; another pair has its buffers elsewhere in memory."""

    def __init__(self, folders: Sequence[Path], turns: int, min_seconds: float):
        self._workers = [Worker(folder) for folder in folders]
        self._turns, self._min_seconds = turns, min_seconds

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers:
            worker.close()

    def time(self, subject: Subject) -> Times:
        """Both give a sample, then both the next; who begins changes from turn to turn."""
        prepared = [worker.ask("prepare", subject, subject.threads, self._min_seconds) for worker in self._workers]
        repeats, warm = max(repeats for repeats, _, _ in prepared), all(warm for _, warm, _ in prepared)
        best = [math.inf, math.inf]
        for turn in range(self._turns):
            for build in ((0, 1), (1, 0))[turn % 2]:
                best[build] = min(best[build], self._workers[build].ask("sample", repeats, warm))
        same = prepared[0][2] == prepared[1][2]
        return Times(best[0], best[1], 0.0 if same else difference(*(worker.ask("result") for worker in self._workers)))


def difference(before: np.ndarray, after: np.ndarray) -> float:
    """||after - before|| / ||before||; infinite for NaN and for another size."""
    if before.shape != after.shape:
        return math.inf
    value = float(np.linalg.norm(after - before) / np.linalg.norm(before))
    return math.inf if math.isnan(value) else value

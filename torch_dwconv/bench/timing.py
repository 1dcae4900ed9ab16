"""Timing in turns: everybody gives a sample, then everybody the next, so that all meet the same disturbances."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

# Worker threads keep looking for work for a while after a parallel call (libgomp's up to about 10 ms), on the cores
# that the next contestant needs. Those that share a pool need no pause.
POOL_PAUSE_S = 0.02
FEWEST = 3  # samples, however long they take
LONG_CALL_S = 0.05  # a call that lasts longer leaves nothing in the caches for the next, so none goes before it
WARM_CALLS = 3  # go before a sample at least: memory reaches a shared cache, and an allocator its habits, late


Key = TypeVar("Key", bound=Hashable)


def _itself(result) -> Tensor:
    return result


@dataclass(frozen=True)
class Options:
    """How long is measured.

    Attributes:
        samples: of each contestant, at least 1.
        min_seconds: what a sample lasts at least; a call that is shorter is repeated.
        max_seconds: a contestant whose samples would last longer than this together gives fewer of them, at least
            FEWEST (or `samples`, if that is less).
    """

    samples: int = 9
    min_seconds: float = 0.002
    max_seconds: float = math.inf


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch's number of threads, ours too, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Timing(NamedTuple):
    """Seconds for one call: the median and the quartiles of `samples` samples of `repeats` calls each."""

    median: float
    low: float
    high: float
    samples: int
    repeats: int


@dataclass
class Run:
    """Something to be timed.

    Attributes:
        call: does the work once.
        tensor: makes a tensor in PyTorch's order of dimensions out of what `call` returned, to check it.
        pool: names the threads that it runs on.
        note: what it chose, for the record: a layout, an algorithm.
    """

    call: Callable[[], object]
    tensor: Callable[[Any], Tensor] = _itself
    pool: str = "openmp"
    note: str = ""

    def seconds(self, repeats: int) -> float:
        """Time of `repeats` calls."""
        call = self.call
        start = time.perf_counter()
        for _ in repeat(None, repeats):
            call()
        return time.perf_counter() - start


@contextmanager
def no_garbage_collection():
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def repeats_of(run: Run, min_seconds: float) -> tuple[int, float]:
    """How many calls make a sample of at least `min_seconds`, and how long that took."""
    run.seconds(1)  # caches, lazy initialisation
    repeats, seconds = 1, run.seconds(1)
    if min_seconds <= seconds < LONG_CALL_S:
        # Until the allocator keeps what it gets back, a fresh result is memory that the system clears page by page.
        seconds = min(seconds, run.seconds(1))
    while seconds < min_seconds:
        repeats = math.ceil(repeats * min(16, max(1.2, 1.2 * min_seconds / max(seconds, 1e-9))))
        seconds = run.seconds(repeats)
    return repeats, seconds


def sample(run: Run, repeats: int, warm: bool) -> float:
    """Seconds for one call, of `repeats` calls; `warm` says that as many go before them, which are not timed."""
    if warm:
        run.seconds(max(repeats, WARM_CALLS))
    return run.seconds(repeats) / repeats


def time_in_turns(runs: Mapping[Key, Run], options: Options, threads: int = 1) -> dict[Key, Timing]:
    """Times every run: rounds in which each gives one sample, after as many calls that are not timed.

    Everybody begins a round in turn: who comes after another finds the operands that they share in the caches.

    Args:
        threads: with more than one, a pause separates runs on different pools of threads.
    """
    samples = options.samples
    with no_garbage_collection():
        repeats, wanted, warm = {}, {}, {}
        seconds: dict[Key, list[float]] = {key: [] for key in runs}
        for key, run in runs.items():
            repeats[key], lasts = repeats_of(run, options.min_seconds)
            few = samples * lasts > options.max_seconds
            wanted[key] = min(samples, max(FEWEST, int(options.max_seconds / lasts))) if few else samples
            warm[key] = lasts / repeats[key] <= LONG_CALL_S
        pool, keys = None, list(runs)
        for turn in range(samples):
            first = turn % len(keys)
            for key in keys[first:] + keys[:first]:
                if turn >= wanted[key]:
                    continue
                run = runs[key]
                if threads > 1 and pool not in (None, run.pool):
                    time.sleep(POOL_PAUSE_S)
                pool = run.pool
                seconds[key].append(sample(run, repeats[key], warm[key]))
    return {key: _timing(seconds[key], repeats[key]) for key in runs}


def fastest(candidates: Mapping[str, Run], seconds: float = 0.001) -> tuple[str, Run]:
    """The name and the run of the candidate with the best of three short samples."""
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    with no_garbage_collection():
        best = {
            name: min(run.seconds(repeats) / repeats for _ in range(3))
            for name, run in candidates.items()
            for repeats, _ in [repeats_of(run, seconds)]
        }
    name = min(best, key=lambda name: best[name])
    return name, candidates[name]


def _timing(seconds: list[float], repeats: int) -> Timing:
    low = high = median = statistics.median(seconds)
    if len(seconds) > 1:
        low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high, len(seconds), repeats)

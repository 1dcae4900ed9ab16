"""The raw operators survive any arguments: `raw_calls` in processes of their own.

A failure shows the number of the call; `python -m tests.fuzz.raw_calls SEED NUMBER NUMBER+1` makes it again.
"""

import os
import sys
from collections import Counter

import pytest

from tests.fuzz.processes import survives
from tests.kernels.shapes import SEED

CALLS = 2000
SECONDS = 300  # CALLS take 3 s of an idle machine


def outcomes(first: int, count: int) -> Counter:
    command = [sys.executable, "-m", "tests.fuzz.raw_calls", SEED, first, first + count]
    lines = survives(command, SECONDS).splitlines()
    return Counter(line.split(" -> ")[-1] for line in lines)


def test_any_arguments():
    seen = outcomes(0, CALLS)
    assert seen.total() == CALLS
    assert seen["right"] > CALLS / 5, seen
    assert seen["RuntimeError"] > CALLS / 5, seen


@pytest.mark.slow
@pytest.mark.parametrize("first", range(CALLS, 10 * CALLS, CALLS))
def test_many_more(first):
    assert outcomes(first, CALLS).total() == CALLS


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["baseline", "avx2"])
def test_the_kernels_of_older_machines(isa, monkeypatch):
    monkeypatch.setitem(os.environ, "TORCH_DWCONV_ISA", isa)
    assert outcomes(0, CALLS).total() == CALLS


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import os; print('7 forward', flush=True); os.kill(os.getpid(), 11)", r"killed by signal 11, at: 7 forward"),
        ("import time; print('7 forward', flush=True); time.sleep(60)", r"still running after 2 s, at: 7 forward"),
        ("print('7 forward'); raise SystemExit(3)", r"ended with status 3, at: 7 forward"),
    ],
)
def test_crashes_and_hangs_are_seen(program, how):
    with pytest.raises(AssertionError, match=how):
        survives([sys.executable, "-c", program], 2)

"""Runs what may crash or hang in a process of its own, where it is a failure like any other."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def survives(command: list, seconds: float) -> str:
    """The standard output of a command that ends by itself, with status 0, in time.

    Raises:
        AssertionError: it does not; the text says how it ended and shows the last of its output, where it was.
    """
    try:
        done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired as hung:
        raise AssertionError(f"still running after {seconds} s, at: {(hung.stdout or b'')[-2000:].decode()}") from None
    end = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with status {done.returncode}"
    assert done.returncode == 0, f"{end}, at: {done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout

"""What several processes of one test run (pytest-xdist) share in ``build``: only one of them makes it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUILD = Path(__file__).resolve().parents[1] / "build"


@contextmanager
def one_process_at_a_time(name: str) -> Iterator[None]:
    """Waits until no other process is in a block of this name."""
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

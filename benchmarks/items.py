"""Work item by item in a process that may crash or hang, of which at most the item under way is lost.

An item is a name. A worker reads names from its standard input, one a line, and appends a line of JSON to a file before
each (``{"begun": name}``) and after it (``{"name": name, ...}``). Who supervises it ends it when an item takes too
long, adds the line ``{"name": name, "lost": why}``, and lets another worker go on with the next name. Names that have
a line already are not done again, so that a run can be continued.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

GIVE_UP = 3  # exit status of a worker that wants another one to go on: its device answers no more
LAST_WORDS = 2.0  # seconds for a process to say where it is


def append(path: Path, line: dict) -> None:
    """Adds a line that a crash of this process, or of the machine, leaves behind."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def parsed(line: str) -> dict | None:
    """A line's content, None of one that was only half written."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def read(path: Path) -> list[dict]:
    """The whole lines of a file; none if there is no such file."""
    lines = map(parsed, path.read_text().splitlines() if path.exists() else ())
    return [line for line in lines if line is not None]


def done(path: Path) -> set[str]:
    """The names that have a result, or that are lost."""
    return {line["name"] for line in read(path) if "name" in line}


def work(names: Iterable[str], path: Path, do: Callable[[str], dict], alive: Callable[[], bool], seconds: float) -> int:
    """What a worker does: names in turn, none begun after so many seconds. Returns its exit status.

    `alive` says after each whether the next can be done in this process.
    """
    deadline = time.monotonic() + seconds
    for name in names:
        if time.monotonic() > deadline:
            break
        append(path, {"begun": name})
        append(path, {"name": name, **do(name)})
        if not alive():
            return GIVE_UP
    return 0


def end(process: subprocess.Popen) -> None:
    """Ends a process that leads a session, and all that it has started; Python processes print their stacks first."""
    pids = _descendants(process.pid)
    if process.poll() is None:
        _send(signal.SIGABRT, pids)
        until = time.monotonic() + LAST_WORDS
        while time.monotonic() < until and any(_stat(pid)[0] not in ("", "Z") for pid in pids):
            process.poll()
            time.sleep(0.02)
    _send(signal.SIGKILL, pids)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may wait for a device that does not answer
        process.wait(LAST_WORDS)


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _stat(pid: int) -> tuple[str, int]:
    """A process's state ("Z": it has ended) and its parent, ("", 0) if there is no such process."""
    try:
        state, parent = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "", 0
    return state, int(parent)


def _descendants(pid: int) -> list[int]:
    """A process that has not been waited for, its children, theirs, and so on."""
    parents = {int(path.name): _stat(int(path.name))[1] for path in Path("/proc").glob("[0-9]*")}
    found = [pid] if pid in parents else []
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def how_it_ended(status: int) -> str:
    """In words."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


class Worker(NamedTuple):
    """How a worker is started.

    Attributes:
        command: makes the command of one that begins no item after so many seconds.
        output: the file of lines.
        item_seconds: the most that an item may take.
        start_seconds: what a process needs before its first item, at most.
        environment: variables beside those of this process.
    """

    command: Callable[[float], Sequence[str]]
    output: Path
    item_seconds: float = 30.0
    start_seconds: float = 60.0
    environment: Mapping[str, str] = MappingProxyType({})

    @property
    def log(self) -> Path:
        """What the workers print."""
        return self.output.with_suffix(".log")


def leave_no_core() -> None:
    """A process that is ended, or that crashes, writes no image of its memory, which may be tens of GB."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def supervise(worker: Worker, names: Sequence[str], seconds: float) -> list[str]:
    """Has the names done in at most so many seconds, and returns those that are not."""
    deadline = time.monotonic() + seconds
    leave_no_core()
    worker.output.parent.mkdir(parents=True, exist_ok=True)
    while True:
        finished = done(worker.output)
        left = [name for name in names if name not in finished]
        if not left or time.monotonic() >= deadline:
            return left
        before = len(read(worker.output))
        why = _run(worker, left, deadline)
        after = read(worker.output)[before:]
        if time.monotonic() >= deadline:
            continue  # what was under way is not lost: a longer run can do it
        items = [line for line in after if "begun" in line or "name" in line]
        if items and "begun" in items[-1]:
            append(worker.output, {"name": items[-1]["begun"], "lost": why or "the process ended"})
        elif why is None:  # its time was up, or all is done
            return [name for name in left if name not in done(worker.output)]
        elif not items:  # it does not even start, and another would not either
            append(worker.output, {"failed": f"no item was begun: {why}"})
            return left


def _run(worker: Worker, names: Sequence[str], deadline: float) -> str | None:
    """One process. None if it ended by itself and well, else why it did not."""
    seconds = deadline - time.monotonic()
    command = [str(word) for word in worker.command(seconds)]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1", **worker.environment}
    with worker.log.open("a") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=log, text=True, env=environment, start_new_session=True
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write("".join(f"{name}\n" for name in names))
        size, allowed = _size(worker.output), worker.start_seconds + worker.item_seconds
        changed = time.monotonic()
        while process.poll() is None:
            now = time.monotonic()
            if (grown := _size(worker.output)) != size:
                size, changed, allowed = grown, now, worker.item_seconds
            if now > deadline or now > changed + allowed:
                end(process)
                return "the time was up" if now > deadline else f"no result in {allowed:g} s"
            time.sleep(0.02)
        end(process)  # what it has started itself
    return None if process.returncode == 0 else how_it_ended(process.returncode)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def age() -> float:
    """Seconds since this process began, so that a limit holds for its imports too."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return seconds if 0 <= seconds < 600 else 0.0  # where the two clocks do not belong together


def names_of_stdin() -> list[str]:
    """What the supervisor wrote."""
    return sys.stdin.read().splitlines()

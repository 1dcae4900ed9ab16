"""Work that is done item by item: whatever happens to a worker, the rest is done and what was found stays."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import items

ROOT = Path(__file__).resolve().parents[2]
# Does each name by what it says: "crash" kills the process, "sleep" hangs, "last" is the last that this process can do.
WORKER = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks import items

def do(name):
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("leave"):
        os._exit(0)
    if name.startswith("sleep"):
        time.sleep(60)
    here.append(name)
    return {{"pid": os.getpid()}}

here = []
alive = lambda: not here[-1].startswith("last")
sys.exit(items.work(items.names_of_stdin(), Path(sys.argv[1]), do, alive, float(sys.argv[2])))
"""


def supervise(folder: Path, names: list[str], seconds: float = 20, program: str = WORKER, item_seconds: float = 30):
    output = folder / "lines.jsonl"

    def command(left: float) -> list[str]:
        return [sys.executable, "-S", "-c", program.format(root=str(ROOT)), str(output), f"{left}"]

    left = items.supervise(items.Worker(command, output, item_seconds, 10), names, seconds)
    lines = items.read(output)
    return left, {line["name"]: line for line in lines if "name" in line}, lines


def test_all_is_done_by_one_process(tmp_path):
    left, results, lines = supervise(tmp_path, ["a", "b", "c"])
    assert left == [] and list(results) == ["a", "b", "c"]
    assert len({line["pid"] for line in results.values()}) == 1
    assert [line["begun"] for line in lines[::2]] == ["a", "b", "c"]


def test_a_crash_costs_the_item_under_way(tmp_path):
    left, results, _ = supervise(tmp_path, ["a", "b", "crash", "c", "leave", "d"])
    assert left == [] and list(results) == ["a", "b", "crash", "c", "leave", "d"]
    assert results["crash"]["lost"] == "killed by SIGSEGV" and results["leave"]["lost"] == "the process ended"
    assert len({results[name]["pid"] for name in "abcd"}) == 3
    assert "Segmentation fault" in (tmp_path / "lines.log").read_text()


def test_a_hang_costs_the_item_under_way_and_says_where(tmp_path):
    left, results, _ = supervise(tmp_path, ["a", "sleep", "b"], item_seconds=1)
    assert left == [] and results["sleep"]["lost"] == "no result in 1 s" and "pid" in results["b"]
    assert "in do" in (tmp_path / "lines.log").read_text()


def test_another_process_goes_on_where_the_device_answers_no_more(tmp_path):
    left, results, _ = supervise(tmp_path, ["a", "last", "b"])
    assert left == [] and not any("lost" in line for line in results.values())
    assert results["a"]["pid"] == results["last"]["pid"] != results["b"]["pid"]


def test_the_time_is_kept_and_a_second_run_goes_on(tmp_path):
    begun = time.monotonic()
    left, results, lines = supervise(tmp_path, ["a", "sleep", "b"], seconds=1.5, item_seconds=60)
    assert time.monotonic() - begun < 6
    assert left == ["sleep", "b"] and list(results) == ["a"] and lines[-1] == {"begun": "sleep"}
    left, results, _ = supervise(tmp_path, ["a", "sleep", "b"], item_seconds=1)
    assert left == [] and results["sleep"]["lost"] and "pid" in results["b"]


def test_a_worker_begins_nothing_after_its_time(tmp_path):
    assert items.work(["a"], tmp_path / "lines", lambda name: {}, lambda: True, -1) == 0
    assert items.read(tmp_path / "lines") == []


def test_a_worker_that_does_not_start_is_not_tried_again(tmp_path):
    left, results, lines = supervise(tmp_path, ["a", "b"], program="raise SystemExit(7)")
    assert left == ["a", "b"] and results == {}
    assert lines == [{"failed": "no item was begun: exit status 7"}]


def test_the_age_of_a_process_includes_its_imports():
    program = "import time; time.sleep(0.3); from benchmarks import items; print(items.age())"
    begun = time.monotonic()
    ran = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert 0.25 < float(ran.stdout) < time.monotonic() - begun + 0.05


def test_half_a_line_is_no_line(tmp_path):
    items.append(tmp_path / "lines", {"name": "a"})
    with (tmp_path / "lines").open("a") as file:
        file.write('{"name": "b", "sec')
    assert items.done(tmp_path / "lines") == {"a"}


@pytest.mark.parametrize("detached", [False, True])
def test_what_a_process_has_started_ends_with_it(tmp_path, detached):
    inner = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], start_new_session={detached})"
    process = subprocess.Popen([sys.executable, "-c", outer], start_new_session=True)
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.01)
    items.end(process)
    assert process.returncode == -signal.SIGABRT
    assert items._stat(int((tmp_path / "pid").read_text()))[0] in ("", "Z")

"""The short run on a borrowed GPU, rehearsed with stand-ins for Python and tools: what was found before a fault stays.

The stand-ins write lines as the true commands do, by the same code (benchmarks/items.py), and have a fault each.
"""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import items
from benchmarks.cuda import cells
from benchmarks.cuda import report as benchmark
from tests.gpu import plan, report, short_run, smoke, steps

ROOT = Path(__file__).resolve().parents[2]
BUDGET = 60
SHORT = 12  # where something hangs until its step ends
PYTHON = """#!{python} -S
import json, os, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from benchmarks import items

fault, arguments = os.environ["FAULT"], sys.argv[1:]
smoke = "tests.gpu.smoke" in arguments
names = ["forward_a", "forward_b", "backward_c"] if smoke else ["cell-1", "cell-2", "cell-3", "cell-4", "cell-5"]

def after(option):
    return arguments[arguments.index(option) + 1]

def do(name):
    if fault == "crash in " + name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if fault == "hang in " + name:
        time.sleep(60)
    if smoke:
        return {{"wrong": "1 of 9 numbers" if fault == "wrong " + name else None}}
    form = {{"operation": "forward", "dtype": "f32", "layout": "nchw", "batch": 32, "layer": name}}
    seconds = {{"ours": int(name[-1]) * 1e-3, "native": 4e-3}}
    return {{**form, "kernel": "k" + name, "bandwidth": 1e9, "bytes": 1e6, "problems": {{}}, "seconds": seconds}}

if arguments[0] == "-c":
    refusal = "it is built for another device" if fault.startswith("library") else None
    print(json.dumps({{"device": "a stand-in", "capability": "9.0", "refusal": refusal}}))
elif arguments[0] == "setup.py":
    sys.exit(fault == "library, and no build")
elif "--worker" in arguments:
    sys.exit(items.work(items.names_of_stdin(), Path(after("--worker")), do, lambda: True, 60))
elif "tests.gpu.run_tests" in arguments:
    print("tests/gpu/test_values.py::test_layers PASSED", flush=True)
    if fault == "tests hang":
        subprocess.run(["sleep", "60"])
elif "--once" in arguments:
    print("Duration us 12.5")
else:
    output = Path(after("--output")) / ("smoke-all.jsonl" if smoke else "benchmark-f32-nchw.jsonl")
    command = [sys.argv[0], *arguments[:2], "--worker", str(output)]
    limit = float(os.environ["ITEM_SECONDS"])
    left = items.supervise(items.Worker(lambda seconds: command, output, limit, 10), names, float(after("--seconds")))
    sys.exit(bool(left or any("lost" in line for line in items.read(output))))
"""
TOOL = """#!/bin/sh
[ "$FAULT" = "{name} hangs" ] && exec sleep 60
while [ "$1" != {python} ]; do shift; done
exec "$@"
"""


@pytest.fixture
def rehearse(tmp_path, monkeypatch):
    """Runs a call with a fault; returns its status, and the lines of its steps, kernels and cells by name."""
    tools = tmp_path / "tools"
    tools.mkdir()
    python, library = tools / "python", tools / "libtorch_dwconv_cuda13.so"
    python.write_text(PYTHON.format(python=sys.executable, root=str(ROOT)))
    library.touch()
    for name in ("ncu", "compute-sanitizer"):
        (tools / name).write_text(TOOL.format(name=name, python=python))
    for path in tools.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setattr(steps, "TOOLKITS", ())
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setattr(short_run, "LIBRARIES", tmp_path / "lib")
    output = tmp_path / "output"

    def run(fault: str, call: str = "measure", *options: str, budget: int = BUDGET):
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("ITEM_SECONDS", "1" if fault.startswith("hang") else "30")
        begun = time.monotonic()
        common = ["--python", str(python), "--output", str(output), "--budget", str(budget)]
        status = short_run.main([call, *common, *options])
        assert time.monotonic() - begun < budget + 2 * items.LAST_WORDS
        return (status, *brought_back(output))

    run.tools, run.output, run.python = tools, output, python
    return run


def brought_back(output: Path) -> tuple[dict, dict, dict]:
    def named(name):
        return {line["name"]: line for line in items.read(output / name) if "name" in line}

    ended = {name: line["result"] for name, line in named("steps.jsonl").items()}
    return ended, named("smoke-all.jsonl"), named("benchmark-f32-nchw.jsonl")


STEPS = ["smoke", "tests", "benchmark", "proof-ncu", "racecheck"]


def test_without_a_fault(rehearse):
    library = str(rehearse.tools / "libtorch_dwconv_cuda13.so")
    status, ended, kernels, timed = rehearse("none", "measure", "--library", library)
    assert status == 0 and ended == dict.fromkeys(STEPS, "ok") and len(kernels) == 3 and len(timed) == 5
    assert (short_run.LIBRARIES / "libtorch_dwconv_cuda13.so").exists()
    assert items.read(rehearse.output / "machine.jsonl")[0]["device"] == "a stand-in"
    status, ended, _, _ = rehearse("none", "profile")
    profiles = {name: result for name, result in ended.items() if name.startswith("profile-")}
    assert status == 0 and profiles == dict.fromkeys([f"profile-{i:02}" for i in range(1, 6)], "ok")
    assert {name for name in ended if name.endswith("check")} == set(plan.SANITIZERS)
    first = next(line for line in items.read(rehearse.output / "steps.jsonl") if line.get("begun") == "profile-01")
    assert first["command"][-1] == "cell-5"  # the furthest from the copy
    assert report.main([str(rehearse.output)]) == 0
    text = (rehearse.output / "report.md").read_text()
    assert "- 3 kernels right\n" in text and "- 3 kernels right under memcheck\n" in text
    assert "| cell-5 N32 | forward | f32 nchw | kcell-5 | 5000.0 | 0.80 | - | 0.20 |" in text
    assert "profile-01.txt: Duration us 12.5" in text
    assert (rehearse.output / "benchmark.png").stat().st_size > 10_000


@pytest.mark.parametrize("fault, why", [("crash", "killed by SIGSEGV"), ("hang", "no result in 1 s")])
def test_a_fault_in_the_third_cell(rehearse, fault, why):
    status, ended, kernels, timed = rehearse(f"{fault} in cell-3")
    assert status == 1 and timed.pop("cell-3")["lost"] == why
    assert len(kernels) == 3 and list(timed) == ["cell-1", "cell-2", "cell-4", "cell-5"]
    assert {name for name, result in ended.items() if result != "ok"} == {"benchmark"}
    assert report.main([str(rehearse.output)]) == 0
    text = (rehearse.output / "report.md").read_text()
    assert f"- lost: cell-3: {why}" in text and "| cell-4 N32 |" in text


@pytest.mark.parametrize("fault, why", [("crash", "killed by SIGSEGV"), ("hang", "no result in 1 s")])
def test_a_fault_in_a_kernel(rehearse, fault, why):
    status, ended, kernels, timed = rehearse(f"{fault} in forward_b")
    assert status == 1 and kernels["forward_b"]["lost"] == why and kernels["backward_c"]["wrong"] is None
    assert ended["smoke"] != "ok" and ended["benchmark"] == "ok" and len(timed) == 5
    assert report.main([str(rehearse.output)]) == 0
    assert f"- forward_b: {why}" in (rehearse.output / "report.md").read_text()


def test_tests_that_hang(rehearse):
    status, ended, _, timed = rehearse("tests hang", budget=SHORT)
    assert status == 1 and ended["tests"].startswith("FAILED: not done in ") and len(timed) == 5
    log = (rehearse.output / "tests.txt").read_text()
    assert "test_layers PASSED" in log and "subprocess.py" in log  # where it was
    assert ended["benchmark"] == "ok"


def test_a_tool_that_is_missing_or_hangs(rehearse):
    (rehearse.tools / "compute-sanitizer").unlink()
    status, ended, _, _ = rehearse("ncu hangs", budget=SHORT)
    assert status == 1 and ended["proof-ncu"].startswith("FAILED: not done in ")
    assert ended["racecheck"] == "LEFT OUT: compute-sanitizer is not installed"
    assert ended["benchmark"] == "ok"


def test_a_library_that_does_not_run_is_built_again(rehearse):
    status, ended, _, timed = rehearse("library of another device", "measure", "--library", "/no/such/library.so")
    assert status == 0 and list(ended) == ["build", *STEPS] and len(timed) == 5


def test_without_a_library_nothing_is_measured(rehearse):
    status, ended, kernels, timed = rehearse("library, and no build")
    assert status == 1 and ended == {"build": "FAILED: exit status 1"} and not kernels and not timed


def test_what_was_found_survives_the_end_of_the_run_itself(rehearse, monkeypatch):
    """The machine is taken away in the middle of a cell."""
    environment = os.environ | {"FAULT": "hang in cell-3", "ITEM_SECONDS": "60"}
    options = ["--python", str(rehearse.python), "--output", str(rehearse.output), "--budget", "60"]
    command = [sys.executable, "-m", "tests.gpu.short_run", "measure", *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
    cells_file, until = rehearse.output / "benchmark-f32-nchw.jsonl", time.monotonic() + 30
    while {"begun": "cell-3"} not in items.read(cells_file) and time.monotonic() < until:
        time.sleep(0.02)
    items.end(process)
    ended, kernels, timed = brought_back(rehearse.output)
    assert list(timed) == ["cell-1", "cell-2"] and len(kernels) == 3 and list(ended) == ["smoke", "tests"]
    assert report.main([str(rehearse.output)]) == 0
    assert "| benchmark | | begun, and nothing more |" in (rehearse.output / "report.md").read_text()
    # The second call does what is left.
    status, _, _, timed = rehearse("none", "profile")
    assert status == 0 and len(benchmark.rows_of(timed.values())) == 5


def test_the_proof_is_a_cell_of_the_benchmark():
    assert short_run.PROOF in {cell.name for cell in cells.all_cells(32)}


WORKER = """
import os, sys
from pathlib import Path
from benchmarks import items

def do(name):
    if name == "crash":
        os.abort()
    return {"wrong": "1 of 9 numbers" if name == "wrong" else None}

output = Path(sys.argv[sys.argv.index("--worker") + 1])
sys.exit(items.work(items.names_of_stdin(), output, do, lambda: True, 60))
"""


def test_each_method_has_a_process_of_its_own(tmp_path, capsys):
    methods = {"one": "x", "crash": "x", "two": "x", "wrong": "y", "three": "z"}
    cases = {name: SimpleNamespace(kernel=name, method=method) for name, method in methods.items()}
    smoke.supervise(cases, tmp_path, 30, [sys.executable, "-S", "-c", WORKER])
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {f"smoke-{method}.jsonl" for method in "xyz"}
    assert smoke.conclude([*methods, "four"], tmp_path) == 1
    assert capsys.readouterr().out.splitlines() == [
        "crash: killed by SIGABRT",
        "wrong: 1 of 9 numbers",
        "four: did not run",
        "3 of 6 kernels are right",
    ]
    assert "kernels right" in "\n".join(report.kernels(tmp_path))


def test_without_a_device_the_reason_is_given(capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert smoke.main([]) == 2
    assert "our CUDA kernels do not run here" in capsys.readouterr().err

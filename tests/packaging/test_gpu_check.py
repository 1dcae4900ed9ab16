"""make gpu-check without a GPU: its plan, its time, what it says when it cannot run, and how steps are run."""

import itertools
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import items
from tests.gpu import check, plan, steps
from tests.gpu.steps import Step

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["build", "self-test", "smoke", "tests", "benchmark", *plan.SANITIZERS]


@pytest.mark.parametrize("build_cpu", [False, True])
def test_the_plan_takes_less_than_9_minutes(tmp_path, build_cpu):
    planned = check.steps(tmp_path, "9.0", build_cpu)
    assert [step.name for step in planned] == NAMES
    assert steps.planned_seconds(planned) < 9 * 60
    assert planned[0].environment["TORCH_CUDA_ARCH_LIST"] == "9.0" and planned[0].essential


def test_what_the_plan_names_is_there(tmp_path):
    for step in check.steps(tmp_path, "9.0", False):
        words = step.command or []
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/") or word.endswith(".py"))
        for module in [after for word, after in itertools.pairwise(words) if word == "-m"]:
            place = ROOT / module.replace(".", "/")
            assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_a_hanging_test_says_where_before_its_step_ends(tmp_path):
    tests = next(step for step in check.steps(tmp_path, "9.0", False) if step.name == "tests")
    limit = next(word for word in tests.command if word.startswith("faulthandler_timeout="))
    assert int(limit.partition("=")[2]) < tests.seconds and "-v" in tests.command


def test_every_tool_of_the_sanitizer_runs_every_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "find_tool", lambda name: f"/opt/{name}")
    sanitized = [step for step in check.steps(tmp_path, "9.0", False) if step.together]
    assert [step.command[:3] for step in sanitized] == [
        ["/opt/compute-sanitizer", "--tool", tool] for tool in ("memcheck", "racecheck", "synccheck", "initcheck")
    ]
    assert all("tests.gpu.smoke" in step.command and "--in-process" in step.command for step in sanitized)


def test_dry_run_needs_nothing():
    command = [sys.executable, "-S", "-m", "tests.gpu.check", "--dry-run"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split(" (at most")[0] for line in ran.stdout.splitlines()] == NAMES


@pytest.mark.parametrize(
    "version, cuda, available, packages, reason",
    [
        ("2.10.0", "13.0", True, {}, "torch 2.10.0 is too old, 2.11 or newer is needed"),
        ("2.14.1", None, False, {}, "torch 2.14.1 is built without CUDA"),
        ("2.14.1", "13.0", False, {}, "PyTorch sees no GPU"),
        ("2.14.1", "13.0", True, {"pytest": "8.4.2"}, "pytest 8.4.2 is too old, 9 or newer is needed"),
        ("2.14.1", "13.0", True, {"pytest": None}, "pytest is missing, 9 or newer is needed"),
        ("2.14.1", "13.0", True, {"setuptools": "68.1"}, "setuptools 68.1 is too old, 77 or newer is needed"),
        ("2.14.1", "13.0", True, {}, None),
    ],
)
def test_what_is_missing(version, cuda, available, packages, reason):
    torch = SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(is_available=lambda: available),
    )

    def version_of(package):
        if (found := ({"pytest": "9.0.1", "setuptools": "77.0"} | packages)[package]) is None:
            raise metadata.PackageNotFoundError(package)
        return found

    assert plan.missing(torch, version_of) == reason


def program(name, text, seconds=60, **options):
    return Step(name, [sys.executable, "-S", "-c", text], seconds, **options)


def test_steps_are_run_and_failures_named(tmp_path):
    said = []
    planned = [
        program("good", "import os; print(os.environ['WORD'])", environment={"WORD": "hello"}),
        program("bad", "raise SystemExit(3)"),
        Step("none", None, 60, missing="there is no such tool"),
        Step("unknown", ["/no/such/program"], 60),
        program("crash", "import os; os.abort()"),
    ]
    assert steps.perform(planned, tmp_path, 60, said.append) == ["bad", "unknown", "crash"]
    assert (tmp_path / "good.txt").read_text() == "hello\n" and "   hello" in said
    results = {line["name"]: line["result"] for line in items.read(tmp_path / "steps.jsonl") if "name" in line}
    assert results == {
        "good": "ok",
        "bad": "FAILED: exit status 3",
        "none": "LEFT OUT: there is no such tool",
        "unknown": "FAILED: [Errno 2] No such file or directory: '/no/such/program'",
        "crash": "FAILED: killed by SIGABRT",
    }
    assert any(line.startswith("== bad: FAILED: exit status 3") for line in said)


def test_a_step_that_hangs_says_where_and_ends_with_all_that_it_started(tmp_path):
    inner = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    text = f"def waits():\n subprocess.run([sys.executable, '-c', {inner!r}])\nimport subprocess, sys; waits()"
    begun = time.monotonic()
    assert steps.perform([program("slow", text)], tmp_path, 2, lambda line: None) == ["slow"]
    assert time.monotonic() - begun < 2 + 2 * items.LAST_WORDS + 1
    assert "in waits" in (tmp_path / "slow.txt").read_text()
    assert items._stat(int((tmp_path / "pid").read_text()))[0] in ("", "Z")
    assert items.read(tmp_path / "steps.jsonl")[-1]["result"] == "FAILED: not done in 2 s"


def test_time_that_is_left_is_shared_out(tmp_path):
    planned = [program("a", "", 50), program("b", "", 25), program("c", "", 25, together="x")]
    planned.append(program("d", "", 10, together="x"))
    assert steps.planned_seconds(planned) == 100
    assert [[step.name for step in group] for group in steps.in_turn(planned)] == [["a"], ["b"], ["c", "d"]]
    planned[2] = program("c", "import sys; print(sys.argv[1])", 25, together="x")
    planned[2].command.append(steps.SECONDS)
    assert steps.perform(planned, tmp_path, 30, lambda line: None) == []
    limits = [line["limit"] for line in items.read(tmp_path / "steps.jsonl") if "begun" in line]
    assert limits[0] == pytest.approx(15, abs=0.1) and 10 < limits[1] <= 15 and 20 < limits[2] == limits[3] <= 30
    assert float((tmp_path / "c.txt").read_text()) == pytest.approx(limits[2] - steps.MARGIN, abs=0.1)


def test_steps_beside_each_other(tmp_path):
    meet = """
import sys, time
from pathlib import Path
Path(sys.argv[1]).touch()
while not Path(sys.argv[2]).exists():
    time.sleep(0.01)
"""
    both = [program(name, meet, together="x") for name in "ab"]
    for step, own, other in zip(both, "ab", "ba", strict=True):
        step.command.extend([str(tmp_path / own), str(tmp_path / other)])
    assert steps.perform(both, tmp_path, 20, lambda line: None) == []


def test_nothing_follows_a_failed_build(tmp_path):
    planned = [program("build", "raise SystemExit(1)", essential=True), program("tests", "")]
    assert steps.perform(planned, tmp_path, 60, lambda line: None) == ["build"]
    assert not (tmp_path / "tests.txt").exists()


def test_packages_that_were_brought_along_are_still_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/brought/along")
    assert steps.environment(program("a", ""))["PYTHONPATH"] == f"{ROOT}{os.pathsep}/brought/along"
    monkeypatch.delenv("PYTHONPATH")
    assert steps.environment(program("a", ""))["PYTHONPATH"] == str(ROOT)


@pytest.mark.parametrize(
    "place",
    ["cuda/bin/{}", "cuda/{0}/{0}", "nvidia/nsight-compute/2025.3.1/{}", "cuda/extras/tools/{}", "cuda-13.0/bin/{}"],
)
def test_tools_outside_the_path_are_found(tmp_path, monkeypatch, place):
    monkeypatch.setattr(steps, "TOOLKITS", (f"{tmp_path}/cuda", f"{tmp_path}/cuda-*", f"{tmp_path}/nvidia/*"))
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    assert steps.find_tool("ncu") is None
    tool = tmp_path / place.format("ncu")
    tool.parent.mkdir(parents=True)
    tool.touch()
    assert steps.find_tool("ncu") is None  # it cannot be run
    tool.chmod(0o755)
    assert steps.find_tool("ncu") == str(tool)


def test_gpu_tests_are_skipped_with_the_reason_where_there_is_none():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/gpu/test_device.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "no GPU for our kernels: " in ran.stdout and "passed" not in ran.stdout

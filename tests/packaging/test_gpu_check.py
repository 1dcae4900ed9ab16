"""make gpu-check without a GPU: its plan, its time, what it says when it cannot run, and how it runs steps."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.gpu import check

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("build_cpu", [False, True])
def test_the_plan_takes_less_than_9_minutes(tmp_path, build_cpu):
    planned = check.steps(tmp_path, "9.0", "/bin/compute-sanitizer", build_cpu)
    assert [step.name for step in planned] == ["build", "self-test", "tests", "benchmark", "compute-sanitizer"]
    assert sum(step.seconds for step in planned) < 9 * 60
    assert planned[0].environment["TORCH_CUDA_ARCH_LIST"] == "9.0"
    without = check.steps(tmp_path, "9.0", None, build_cpu)
    assert without == planned[:-1]


def test_what_the_plan_names_is_there(tmp_path):
    for step in check.steps(tmp_path, "9.0", "sanitizer", False):
        paths = [word for word in step.command if word.startswith("tests") or word.endswith("setup.py")]
        assert all((ROOT / path).exists() for path in paths)
    tests = (ROOT / "tests/gpu/test_values.py").read_text()
    selected = check.steps(tmp_path, "9.0", "sanitizer", False)[-1].command[-1].split(" or ")
    assert all(f"def {name}" in tests for name in selected)


def test_dry_run_needs_nothing():
    ran = subprocess.run(
        [sys.executable, "-S", "tests/gpu/check.py", "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert [line.split(" (at most")[0] for line in ran.stdout.splitlines()] == [
        "build",
        "self-test",
        "tests",
        "benchmark",
        "compute-sanitizer",
    ]


@pytest.mark.parametrize(
    "version, cuda, available, reason",
    [
        ("2.10.0", "13.0", True, "torch 2.10.0 is too old, 2.11 or newer is needed"),
        ("2.14.1", None, False, "torch 2.14.1 is built without CUDA"),
        ("2.14.1", "13.0", False, "PyTorch sees no GPU"),
        ("2.14.1", "13.0", True, None),
    ],
)
def test_what_is_missing(version, cuda, available, reason):
    torch = SimpleNamespace(
        __version__=version,
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(is_available=lambda: available),
    )
    assert check.missing(torch) == reason


def test_steps_are_run_and_failures_named(tmp_path):
    def step(name, program, seconds=60):
        return check.Step(name, [sys.executable, "-c", program], seconds, {"WORD": "hello"})

    said = []
    planned = [
        step("good", "import os; print(os.environ['WORD'])"),
        step("bad", "raise SystemExit(3)"),
        step("slow", "import time; time.sleep(60)", 1),
    ]
    assert check.perform(planned, tmp_path, said.append) == ["bad", "slow"]
    assert (tmp_path / "good.txt").read_text() == "hello\n" and "   hello" in said
    assert any(line.startswith("== bad: FAILED with 3") for line in said)
    assert any(line.startswith("== slow: FAILED: not done in 1 s") for line in said)


def test_nothing_follows_a_failed_build(tmp_path):
    failing = check.Step("build", [sys.executable, "-c", "raise SystemExit(1)"], 60, {})
    after = check.Step("tests", [sys.executable, "-c", "open('after', 'w')"], 60, {})
    assert check.perform([failing, after], tmp_path, lambda line: None) == ["build"]
    assert not (tmp_path / "tests.txt").exists()


def test_gpu_tests_are_skipped_with_the_reason_where_there_is_none():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/gpu/test_device.py"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and "no GPU for our kernels: " in ran.stdout and "passed" not in ran.stdout

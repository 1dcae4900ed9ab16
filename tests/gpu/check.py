"""``make gpu-check``: builds the library for the GPU that is there, tests it, and times it. In under 9 minutes.

Nothing is downloaded: the Python that runs this has torch 2.11 or newer of CUDA, setuptools and pytest, and there is an
nvcc of the same major version. Results go to a folder: each step's output, and the benchmark's JSON and table.

    python tests/gpu/check.py              # all steps
    python tests/gpu/check.py --dry-run    # what they are
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
MIN_TORCH = (2, 11)


class Step(NamedTuple):
    """A command, the most seconds that it may take, and what it needs beyond Python."""

    name: str
    command: list[str]
    seconds: int
    environment: dict[str, str]


def steps(output: Path, capability: str, sanitizer: str | None, build_cpu: bool) -> list[Step]:
    """All there is to do; their times add up to less than 9 minutes. The CPU library is built if it is missing."""
    python = sys.executable
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu"]
    cuda = {"TORCH_DWCONV_CUDA": "1" if build_cpu else "only", "TORCH_CUDA_ARCH_LIST": capability}
    sanitized = "test_empty_batch or test_operands_that_are_aligned or test_activations"
    benchmark = [
        python,
        "-m",
        "benchmarks.cuda",
        "--seconds",
        "100",
        "--output",
        str(output / "benchmark.json"),
    ]
    planned = [
        Step("build", [python, "setup.py", "--quiet", "build_ext", "--inplace"], 240 if build_cpu else 120, cuda),
        Step("self-test", [python, "-m", "torch_dwconv"], 20, {}),
        Step("tests", [*pytest, "--maxfail=20"], 110, {}),
        Step("benchmark", benchmark, 120, {}),
    ]
    if sanitizer:
        command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", *pytest, "-k", sanitized]
        planned.append(Step("compute-sanitizer", command, 40, {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}))
    return planned


def missing(torch) -> str | None:
    """Why this cannot be done here, in a sentence."""
    if tuple(map(int, torch.__version__.split(".")[:2])) < MIN_TORCH:
        return f"torch {torch.__version__} is too old, {'.'.join(map(str, MIN_TORCH))} or newer is needed"
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    try:
        import pytest  # noqa: F401
    except ImportError:
        return f"pytest is missing in {sys.prefix}"
    return None


def perform(planned: Sequence[Step], output: Path, say: Callable[[str], None] = print) -> list[str]:
    """Runs the steps, each into a file of its own; returns the names of those that failed."""
    failed = []
    for step in planned:
        say(f"== {step.name}: {' '.join(step.command)}")
        begun, log = time.monotonic(), output / f"{step.name}.txt"
        environment = {**os.environ, **step.environment, "PYTHONPATH": str(ROOT)}
        with log.open("w") as file:
            try:
                code = subprocess.run(
                    step.command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=step.seconds
                ).returncode
                result = "ok" if code == 0 else f"FAILED with {code}"
            except subprocess.TimeoutExpired:
                result = f"FAILED: not done in {step.seconds} s"
        for line in log.read_text().splitlines()[-25:]:
            say(f"   {line}")
        say(f"== {step.name}: {result}, {time.monotonic() - begun:.0f} s, {log}")
        if result != "ok":
            failed.append(step.name)
            if step.name == "build":
                break  # the rest would test what was there before
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-check", help="folder for the results")
    parser.add_argument("--dry-run", action="store_true", help="print the steps; needs no GPU")
    options = parser.parse_args(arguments)
    build_cpu = not (ROOT / "torch_dwconv" / "lib" / "libtorch_dwconv_cpu.so").exists()
    sanitizer = shutil.which("compute-sanitizer")
    if options.dry_run:
        for step in steps(options.output, "9.0", sanitizer or "compute-sanitizer", build_cpu):
            print(f"{step.name} (at most {step.seconds} s): {' '.join(step.command)}")
        return 0
    try:
        import torch
    except ImportError as error:
        sys.exit(f"gpu-check: {error}")
    if reason := missing(torch):
        sys.exit(f"gpu-check: {reason}")
    options.output.mkdir(parents=True, exist_ok=True)
    capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
    print(f"{torch.cuda.get_device_name(0)}, compute capability {capability}, torch {torch.__version__}")
    if not sanitizer:
        print("compute-sanitizer is not installed: its step is left out")
    failed = perform(steps(options.output, capability, sanitizer, build_cpu), options.output)
    print(f"FAILED: {', '.join(failed)}" if failed else "all steps passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

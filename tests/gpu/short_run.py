"""What to do with a few minutes of a borrowed GPU, in two calls; nothing that was found before a fault is lost.

    python -m tests.gpu.short_run measure --budget 430 --library libtorch_dwconv_cuda13.so --output build/first
    python -m tests.gpu.short_run profile --budget 270 --library libtorch_dwconv_cuda13.so --output build/first
    python -m tests.gpu.report build/first            # afterwards, anywhere

``measure``: every kernel once, the tests, the benchmark, and one kernel under each tool, to see that they work there.
``profile``: of the benchmark in the same folder the slowest kernels under Nsight Compute, every kernel under
compute-sanitizer, and the cells for which there was no time. ``--library`` names a CUDA library that was built
beforehand, ``TORCH_DWCONV_CUDA=only TORCH_CUDA_ARCH_LIST=9.0 python setup.py build_ext --inplace``; where it does not
run, or none is named or in place, it is built. Everything is written into the folder as it comes. The budget, 430 and
270 seconds if none is given, is kept; steps share it in proportion, and what one leaves is the next ones'.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import items
from benchmarks.cuda import report
from tests.gpu import plan
from tests.gpu.steps import ROOT, Step, environment, perform

BUDGETS = {"measure": 430, "profile": 270}
LIBRARIES = ROOT / "torch_dwconv" / "lib"
# Before the first step, and of the budget: what kind of machine this is, and whether the library runs on it.
ASK = """
import json, torch
from torch_dwconv.operators import native
answers = torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "device": torch.cuda.get_device_name(0) if answers else None,
    "capability": ".".join(map(str, torch.cuda.get_device_capability(0))) if answers else None,
    "refusal": native.cuda_refusal(0),
}))
"""
ASK_SECONDS = 45.0
PROFILED = 12  # kernels
PROOF = "mobilenet_v2-c144-56x56-k3x3-s1x1 N32 forward f32 nchw t1"


def ask(python: str, output: Path, seconds: float) -> dict:
    """What ASK finds, or {"refusal": why it finds nothing}; a line of machine.jsonl too."""
    step = Step("machine", [python, "-c", ASK], 0)
    try:
        ran = subprocess.run(
            step.command or [], cwd=ROOT, env=environment(step), capture_output=True, text=True, timeout=seconds
        )
        found = [line for line in ran.stdout.splitlines() if line.startswith("{")]
        answer = items.parsed(found[-1]) if found else None
        answer = answer or {"refusal": (ran.stderr.splitlines() or [items.how_it_ended(ran.returncode)])[-1]}
    except (OSError, subprocess.TimeoutExpired) as error:
        answer = {"refusal": str(error).splitlines()[0]}
    items.append(output / "machine.jsonl", answer)
    return answer


def measure(python: str, output: Path) -> list[Step]:
    """The steps of the first call."""
    return [
        plan.smoke(python, output),
        plan.tests(python, 70),
        plan.benchmark(python, output, 280),
        plan.profile(python, PROOF, "proof-ncu", 15),
        *plan.sanitizers(python, output / "proof", 25, ["racecheck"]),
    ]


def profile(python: str, output: Path) -> list[Step]:
    """The steps of the second call."""
    return [
        *(plan.profile(python, cell, f"profile-{i:02}", 9) for i, cell in enumerate(slowest(output), 1)),
        *plan.sanitizers(python, output, 90),
        plan.benchmark(python, output, 60),
    ]


def slowest(output: Path) -> list[str]:
    """The cells that the first call found to be the furthest from the copy's bandwidth, of each kernel one."""
    rows = report.rows_of(report.lines_of(output))
    return [row["name"] for row in report.slowest(rows, PROFILED)] or [PROOF]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu.short_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("call", choices=BUDGETS)
    parser.add_argument("--budget", type=float, help="seconds for everything")
    parser.add_argument("--library", type=Path, help="a CUDA library that was built beforehand")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-run", help="folder for the results")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has PyTorch")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    budget = options.budget or BUDGETS[options.call]
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    if options.library:
        LIBRARIES.mkdir(exist_ok=True)
        try:
            shutil.copy2(options.library, LIBRARIES / options.library.name)
        except (OSError, shutil.SameFileError) as error:
            print(f"--library: {error}")
    machine = ask(options.python, output, min(ASK_SECONDS, budget / 4))
    print(machine)
    steps = {"measure": measure, "profile": profile}[options.call](options.python, output)
    if machine["refusal"] is not None:
        build_cpu = not (LIBRARIES / "libtorch_dwconv_cpu.so").exists()
        steps = [plan.build(options.python, machine.get("capability") or "9.0", build_cpu), *steps]
    failed = perform(steps, output, budget - (time.monotonic() - begun))
    print(f"FAILED: {', '.join(failed)}" if failed else "all steps passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

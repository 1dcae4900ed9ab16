"""``make gpu-check``: builds the library for the GPU that is there, tests it, and times it. In under 9 minutes.

Nothing is downloaded: the Python that runs this has torch 2.11 or newer of CUDA, setuptools 77 and pytest 9, and there
is an nvcc of the same major version. Results go to a folder, build/gpu-check unless ``--output`` names another: what
each step printed, how it ended (steps.jsonl), and the lines of the smoke test and of the benchmark, as they come.

    python -m tests.gpu.check              # all steps
    python -m tests.gpu.check --dry-run    # what they are
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.gpu import plan
from tests.gpu.steps import ROOT, Step, perform, planned_seconds


def steps(output: Path, capability: str, build_cpu: bool) -> list[Step]:
    """All there is to do; their times add up to less than 9 minutes. The CPU library is built if it is missing."""
    python = sys.executable
    return [
        plan.build(python, capability, build_cpu),
        plan.self_test(python),
        plan.smoke(python, output),
        plan.tests(python, 90),
        plan.benchmark(python, output, 100),
        *plan.sanitizers(python, output, 60),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.check", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu-check", help="folder for the results")
    parser.add_argument("--dry-run", action="store_true", help="print the steps; needs no GPU")
    options = parser.parse_args(arguments)
    build_cpu = not (ROOT / "torch_dwconv" / "lib" / "libtorch_dwconv_cpu.so").exists()
    if options.dry_run:
        for step in steps(options.output, "9.0", build_cpu):
            print(f"{step.name} (at most {step.seconds} s): {' '.join(step.command or [step.missing])}")
        return 0
    try:
        import torch
    except ImportError as error:
        sys.exit(f"gpu-check: {error}")
    if reason := plan.missing(torch):
        sys.exit(f"gpu-check: {reason}")
    capability = ".".join(map(str, torch.cuda.get_device_capability(0)))
    print(f"{torch.cuda.get_device_name(0)}, compute capability {capability}, torch {torch.__version__}")
    planned = steps(options.output.resolve(), capability, build_cpu)
    failed = perform(planned, options.output.resolve(), planned_seconds(planned))
    print(f"FAILED: {', '.join(failed)}" if failed else "all steps passed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())

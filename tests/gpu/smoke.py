"""Every CUDA kernel once, on a small call, against F.conv2d: ``python -m tests.gpu.smoke``.

The name of a kernel is written before it runs, a launch waits for its end, and each method has a process of its own,
all at the same time, so that what crashes or hangs is named and the others go on. ``--in-process`` runs them here, one
after the other, under a sanitizer for example. Lines of JSON go to smoke-<method>.jsonl (``benchmarks/items.py``).
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import items
from benchmarks.cuda.measure import alive, in_a_line
from tests.gpu.calls import Reached, reached, wrong
from torch_dwconv import kernels
from torch_dwconv.operators import native

OUTPUT = Path("build") / "gpu-smoke"


def run(case: Reached, device: str) -> dict:
    """The line of a kernel."""
    begun = time.monotonic()
    try:
        problem = wrong(case, device)
    except RuntimeError as error:
        problem = in_a_line(error)
    return {"wrong": problem, "seconds": round(time.monotonic() - begun, 3)}


def supervise(cases: dict[str, Reached], folder: Path, seconds: float, command: Sequence[str]) -> None:
    """Has the kernels of each method run by a process, and by another one where that ends too soon."""
    methods: dict[str, list[str]] = {}
    for case in cases.values():
        methods.setdefault(case.method, []).append(case.kernel)

    def run_method(method: str) -> list[str]:
        output = folder / f"smoke-{method}.jsonl"

        def command_of(seconds: float) -> list[str]:
            return [*command, "--worker", str(output), "--seconds", f"{seconds:.1f}"]

        worker = items.Worker(command_of, output, 10, 60, {"CUDA_LAUNCH_BLOCKING": "1", "OMP_NUM_THREADS": "2"})
        return items.supervise(worker, methods[method], seconds)

    with ThreadPoolExecutor(max(1, len(methods))) as pool:
        list(pool.map(run_method, methods))


def conclude(names: Sequence[str], folder: Path) -> int:
    """Prints what is wrong and what did not run; the exit status."""
    lines = [line for path in sorted(folder.glob("smoke-*.jsonl")) for line in items.read(path)]
    results = {line["name"]: line.get("wrong") or line.get("lost") for line in lines if "name" in line}
    bad = [f"{name}: {problem}" for name, problem in results.items() if problem]
    bad += [line["failed"] for line in lines if "failed" in line]
    missing = [name for name in names if name not in results]
    print(*bad, *(f"{name}: did not run" for name in missing), sep="\n")
    print(f"{sum(problem is None for problem in results.values())} of {len(names)} kernels are right")
    return int(bool(bad or missing))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.smoke", description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the lines ({OUTPUT})")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--in-process", action="store_true", help="no processes: for a sanitizer or a debugger")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # the file of lines; names come from stdin
    options = parser.parse_args(arguments)
    if reason := native.cuda_refusal(0):
        print(f"our CUDA kernels do not run here: {reason}", file=sys.stderr)
        return 2
    cases = reached()
    if options.worker:
        names, output = items.names_of_stdin(), options.worker
    else:
        names, output = list(cases), options.output / "smoke-all.jsonl"
        options.output.mkdir(parents=True, exist_ok=True)
    if options.worker or options.in_process:
        status = items.work(names, output, lambda name: run(cases[name], "cuda"), alive, options.seconds - items.age())
        return status if options.worker else status or conclude(names, options.output)
    too_old = [kernel.name for kernel in kernels("cuda") if kernel.name not in cases]
    if too_old:
        print("this device does not reach", *too_old)
    supervise(cases, options.output, options.seconds - items.age(), [sys.executable, "-m", "tests.gpu.smoke"])
    return conclude(names, options.output)


if __name__ == "__main__":
    sys.exit(main())

"""Our CUDA kernels against PyTorch's own and cuDNN's, timed on the GPU: ``python -m benchmarks.cuda``.

A cell is an operation of a layer in a dtype and a memory format. Its contestants are ours (``ours``), PyTorch with
cuDNN turned off (``native``) and with cuDNN told to try its algorithms (``cudnn``, without TF32). Results are compared
before they are timed. Each contestant's calls are captured in a CUDA graph, so that Python's time is not in them, over
so many copies of the operands that none is in the L2 cache when it is read. Contestants take turns; a time is the
median of CUDA events. The copy that bandwidth is compared with is measured in the same run. When the time is up the
remaining cells are left out, and counted.
"""

import argparse
import contextlib
import json
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from torch_dwconv.bench.contestants import eager, ours
from torch_dwconv.bench.layers import Layer, distinct, read_layers
from torch_dwconv.bench.machine import facts
from torch_dwconv.bench.problem import LAYOUTS, OPERATIONS, Cell, Problem
from torch_dwconv.operators import native

DTYPES = ("f32", "f16", "bf16")
CONTESTANTS = ("ours", "native", "cudnn")
# Of ||result - native's|| / ||native's||: both round, and sum in another order.
TOLERANCE = {"f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
SAMPLES = 5
SAMPLE_SECONDS = 2e-3
MAX_CALLS = 200  # in one graph


@dataclass
class OnDevice(Problem):
    """A Problem whose tensors are made on a device."""

    device: torch.device

    def __post_init__(self):
        self.input, self.weight, self.grad_output = (
            torch.randn(size, device=self.device).to(self.dtype, memory_format=self.memory_format)
            for size in self.sizes
        )


def plan(
    layers: Sequence[Layer], batch: int, operations=OPERATIONS, dtypes=DTYPES, layouts=tuple(LAYOUTS)
) -> list[Cell]:
    """Every cell, in an order of which any beginning is a fair choice of layers."""
    spread = [layer for start in range(4) for layer in distinct(layers)[start::4]]
    return [
        Cell(layer, batch, operation, dtype, layout, 1)
        for layer in spread
        for dtype in dtypes
        for layout in layouts
        for operation in operations
    ]


def copies(bytes_of_one: int, cache_bytes: int) -> int:
    """So many sets of operands that what is between two uses of one is three times the cache."""
    return max(1, math.ceil(3 * cache_bytes / bytes_of_one) + 1)


def cudnn(enabled: bool) -> contextlib.AbstractContextManager:
    return torch.backends.cudnn.flags(enabled=enabled, benchmark=enabled, deterministic=False, allow_tf32=False)


def call_of(name: str, problem: Problem) -> tuple[Callable[[], object], Callable[[object], Tensor]]:
    """What a contestant does with a problem, and its result in what that returns."""
    run = (ours if name == "ours" else eager).runs(problem)["fresh"]
    if name == "ours":
        return run.call, run.tensor

    def call():
        with cudnn(name == "cudnn"):
            return run.call()

    return call, run.tensor


class GraphTimer:
    """Times calls by CUDA events round the replay of a graph of them."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    def prepare(self, calls: Sequence[Callable[[], object]]) -> Callable[[], float]:
        """Seconds a call, each time that the result is called."""
        with torch.cuda.stream(self.stream):
            for call in calls:  # cuDNN chooses, lazily loaded kernels are loaded
                call()
            once = self._seconds(calls[0])
        count = min(MAX_CALLS, max(len(calls), math.ceil(SAMPLE_SECONDS / max(once, 1e-6))))
        if once > SAMPLE_SECONDS:
            count = 1
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            for i in range(count):
                calls[i % len(calls)]()
        graph.replay()
        torch.cuda.synchronize()
        return lambda: self._seconds(graph.replay) / count

    @staticmethod
    def _seconds(call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(cell: Cell, device: torch.device, cache_bytes: int, timer) -> dict:
    """One row of the result: seconds by contestant, or what was wrong with it."""
    first = OnDevice(cell, device)
    size = first.bytes_read + first.bytes_written
    problems = [first, *(OnDevice(cell, device) for _ in range(copies(size, cache_bytes) - 1))]
    calls = {name: [call_of(name, problem) for problem in problems] for name in CONTESTANTS}
    row: dict = {**cell._asdict(), "layer": cell.layer.name, "bytes": size, "copies": len(problems)}
    row |= {"seconds": {}, "problems": {}}
    expected, samples = None, {}
    for name in ("native", "ours", "cudnn"):
        try:
            call, result = calls[name][0]
            value = result(call()).float()
            expected = value if expected is None else expected
            error = ((value - expected).norm() / expected.norm()).item()
            if not error <= TOLERANCE[cell.dtype]:
                row["problems"][name] = f"WRONG: relative error {error:.1e} to native"
                continue
            samples[name] = timer.prepare([call for call, _ in calls[name]])
        except RuntimeError as error:  # out of memory, a launch that fails, a graph that cannot be captured
            row["problems"][name] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    times: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(SAMPLES):
        for name, sample in samples.items():
            times[name].append(sample())
    row["seconds"] = {name: statistics.median(values) for name, values in times.items()}
    return row


def copy_bandwidth(device: torch.device, cache_bytes: int, timer) -> float:
    """Bytes a second of a copy, those read and those written."""
    size = max(8 * cache_bytes, 1 << 24)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    sample = timer.prepare([lambda: target.copy_(source)])
    return 2 * size / statistics.median(sample() for _ in range(SAMPLES))


def table(rows: Sequence[dict], bandwidth: float) -> Iterator[str]:
    """A line for each operation, dtype and layout: how many times longer the others take, and our share of the copy."""
    yield f"{'operation':<12}{'dtype':<6}{'layout':<7}{'cells':>5}  {'native/ours':<20}{'cudnn/ours':<20}share of copy"

    def spread(values: list[float]) -> str:
        return f"{statistics.geometric_mean(values):.2f} (worst {min(values):.2f})" if values else "-"

    groups: dict = {}
    for row in rows:
        groups.setdefault((row["operation"], row["dtype"], row["layout"]), []).append(row)
    for (operation, dtype, layout), group in groups.items():
        ratios = {
            name: [
                row["seconds"][name] / row["seconds"]["ours"] for row in group if {name, "ours"} <= set(row["seconds"])
            ]
            for name in CONTESTANTS[1:]
        }
        shares = [row["bytes"] / bandwidth / row["seconds"]["ours"] for row in group if "ours" in row["seconds"]]
        others = "".join(f"{spread(ratios[name]):<20}" for name in ("native", "cudnn"))
        yield f"{operation:<12}{dtype:<6}{layout:<7}{len(group):>5}  {others}{spread(shares)}"
    for row in rows:
        for name, problem in row["problems"].items():
            yield f"{name}: {row['layer']} N{row['batch']} {row['operation']} {row['dtype']} {row['layout']}: {problem}"


def run(cells: Sequence[Cell], device: torch.device, cache_bytes: int, timer, seconds: float) -> dict:
    """The whole benchmark; what is printed and what is written as JSON comes from its result."""
    deadline = time.monotonic() + seconds
    bandwidth = copy_bandwidth(device, cache_bytes, timer)
    rows = []
    for cell in cells:
        if time.monotonic() > deadline:
            break
        rows.append(measure(cell, device, cache_bytes, timer))
    return {"bandwidth": bandwidth, "cache_bytes": cache_bytes, "cells_left_out": len(cells) - len(rows), "rows": rows}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=150, help="begin no cell after so long")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--dry-run", action="store_true", help="list the cells; needs no GPU")
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    cells = plan(read_layers(), options.batch)
    if options.dry_run:
        for cell in cells:
            print(cell.name)
        print(f"{len(cells)} cells of {', '.join(CONTESTANTS)}")
        return 0
    if reason := native.cuda_refusal(0):
        print(f"our CUDA kernels do not run here: {reason}", file=sys.stderr)
        return 2
    device = torch.device("cuda:0")
    properties = torch.cuda.get_device_properties(device)
    result = run(cells, device, properties.L2_cache_size, GraphTimer(device), options.seconds)
    versions = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    result["facts"] = facts(versions, f"{parser.prog} {shlex.join(arguments)}") | {
        "device": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
    }
    for line in table(result["rows"], result["bandwidth"]):
        print(line)
    print(
        f"{properties.name}, copy {result['bandwidth'] / 1e9:.0f} GB/s; {len(result['rows'])} cells, "
        f"{result['cells_left_out']} left out for time"
    )
    if options.output:
        options.output.write_text(json.dumps(result, indent=1))
    return int(any("ours" in row["problems"] for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())

"""``python -m benchmarks.cuda``: a process for each dtype and layout, and the tables of what they give."""

import argparse
import fnmatch
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import benchmarks.cuda
from benchmarks import items
from torch_dwconv.bench.machine import facts
from torch_dwconv.bench.problem import Cell
from torch_dwconv.operators import native

from . import CONTESTANTS, cells, report
from .measure import GraphTimer, OnDevice, alive, call_of, copy_bandwidth, measure

OUTPUT = Path("build") / "cuda-benchmark"
START = 40  # cells that could be timed while a process starts, about


def time_cells(by_name: dict[str, Cell], output: Path, seconds: float) -> int:
    """What a worker does: the cells whose names it reads."""
    device = torch.device("cuda:0")
    properties, timer = torch.cuda.get_device_properties(device), GraphTimer(device)
    cache_bytes = properties.L2_cache_size
    bandwidth = copy_bandwidth(device, cache_bytes, timer)
    versions = {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    capability = f"{properties.major}.{properties.minor}"
    about = facts(versions, shlex.join(sys.argv)) | {"device": properties.name, "capability": capability}
    items.append(output, {"facts": about, "bandwidth": bandwidth, "cache_bytes": cache_bytes})

    def do(name: str) -> dict:
        row = {"bandwidth": bandwidth, **measure(by_name[name], device, cache_bytes, timer)}
        if row["problems"] and alive():
            torch.cuda.empty_cache()
        return row

    return items.work(items.names_of_stdin(), output, do, alive, seconds - items.age())


def supervise(groups: dict[str, list[Cell]], folder: Path, seconds: float, command: Sequence[str]) -> int:
    """Gives each group its share of the time; returns how many cells are left out."""
    deadline, left = time.monotonic() + seconds, 0
    outputs = {name: folder / f"benchmark-{name}.jsonl" for name in groups}
    todo = {
        name: [cell.name for cell in group if cell.name not in items.done(outputs[name])]
        for name, group in groups.items()
    }
    todo = {name: names for name, names in todo.items() if names}
    waiting = sum(len(names) + START for names in todo.values())
    for name, names in todo.items():
        share = (deadline - time.monotonic()) * (len(names) + START) / waiting
        waiting -= len(names) + START

        def command_of(seconds: float, output=outputs[name]) -> list[str]:
            return [*command, "--worker", str(output), "--seconds", f"{0.95 * seconds - 0.5:.1f}"]

        not_done = items.supervise(items.Worker(command_of, outputs[name]), names, share)
        print(f"{name}: {len(names) - len(not_done)} cells of {len(names)}", flush=True)
        left += len(not_done)
    return left


def once(names: Sequence[str], by_name: dict[str, Cell]) -> int:
    """Ours, twice for each cell: the second time between the marks that a profiler starts and stops at."""
    for name in names:
        call, _ = call_of("ours", OnDevice(by_name[name], torch.device("cuda:0")))
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        call()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cuda", description=str(benchmarks.cuda.__doc__).splitlines()[0]
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=150, help="end after so long, all processes together")
    parser.add_argument("--only", default="*", help="cells whose names match, as *k3x3*forward*")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the lines and tables ({OUTPUT})")
    parser.add_argument("--dry-run", action="store_true", help="list the cells; needs no GPU")
    parser.add_argument("--once", nargs="+", metavar="CELL", help="run these cells once each, for a profiler")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # the file of lines; names come from stdin
    options = parser.parse_args(arguments)
    chosen = [cell for cell in cells.all_cells(options.batch) if fnmatch.fnmatch(cell.name, options.only)]
    by_name = {cell.name: cell for cell in chosen}
    if options.dry_run:
        print(*by_name, sep="\n")
        print(f"{len(chosen)} cells of {', '.join(CONTESTANTS)}")
        return 0
    if reason := native.cuda_refusal(0):
        print(f"our CUDA kernels do not run here: {reason}", file=sys.stderr)
        return 2
    if options.once:
        return once(options.once, by_name)
    if options.worker:
        return time_cells(by_name, options.worker, options.seconds)
    command = [sys.executable, "-m", "benchmarks.cuda", "--batch", str(options.batch)]
    left = supervise(cells.groups(chosen), options.output, options.seconds - items.age(), command)
    return conclude(options.output, left)


def conclude(folder: Path, left: int) -> int:
    """Prints and writes the tables; 1 if something is wrong with ours."""
    lines = report.lines_of(folder)
    rows = report.rows_of(lines)
    stopped = list(report.interrupted(lines))
    text = [*report.table(rows), *stopped, f"{len(rows)} cells, {left} left out for time"]
    machines = [line for line in lines if "facts" in line]
    text += dict.fromkeys(f"{line['facts']['device']}, copy {line['bandwidth'] / 1e9:.0f} GB/s" for line in machines)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmark-table.txt").write_text("\n".join(text) + "\n")
    print(*text, sep="\n")
    return int(bool(stopped) or any({"ours", "operands"} & set(row["problems"]) for row in rows))


if __name__ == "__main__":
    sys.exit(main())

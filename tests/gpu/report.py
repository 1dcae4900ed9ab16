"""Tables and a picture of what a run on a GPU brought back: ``python -m tests.gpu.report FOLDER``; needs no GPU.

Writes report.md into the folder, and benchmark.png if matplotlib is installed.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import items
from benchmarks.cuda import report as benchmark


def text(folder: Path) -> Iterator[str]:
    """The lines of report.md."""
    yield "# A run on a GPU"
    yield ""
    lines = benchmark.lines_of(folder)
    machines = [line["facts"] for line in lines if "facts" in line] or items.read(folder / "machine.jsonl")
    shown = ("device", "date", "torch", "torch_dwconv", "commit")
    yield from (", ".join(f"{name} {machine[name]}" for name in shown if name in machine) for machine in machines[:1])
    yield from ("", "## Steps", "", "| step | seconds | how it ended |", "| --- | --- | --- |")
    steps = items.read(folder / "steps.jsonl")
    yield from (f"| {line['name']} | {line['seconds']} | {line['result']} |" for line in steps if "name" in line)
    yield from (f"| {name} | | begun, and nothing more |" for name in unfinished(steps))
    yield from ("", "## Every kernel once", "")
    yield from kernels(folder)
    yield from ("", "## Benchmark", "")
    yield from timed(lines)
    for heading, pattern in (("Profiles", "profile-*.txt"), ("Proof of the profiler", "proof-ncu.txt")):
        if found := sorted(folder.glob(pattern)):
            yield from ("", f"## {heading}", "", *(f"- {path.name}: {profiled(path)}" for path in found))
    yield ""


def kernels(folder: Path) -> Iterator[str]:
    """How many kernels were right, of each tool too, and what was wrong."""
    for place in sorted({path.parent for path in folder.rglob("smoke-*.jsonl")}):
        lines = [line for path in sorted(place.glob("smoke-*.jsonl")) for line in items.read(path)]
        results = {line["name"]: line.get("wrong") or line.get("lost") for line in lines if "name" in line}
        under = "" if place == folder else f" under {place.relative_to(folder)}"
        yield f"- {sum(problem is None for problem in results.values())} kernels right{under}"
        yield from (f"    - {name}: {problem}" for name, problem in results.items() if problem)
        yield from (f"    - {name}: begun, and nothing more" for name in unfinished(lines))


def unfinished(lines: Sequence[dict]) -> list[str]:
    """What was begun and has neither a result nor a reason why not: the run was ended there."""
    ended = {line["name"] for line in lines if "name" in line}
    return list(dict.fromkeys(line["begun"] for line in lines if "begun" in line and line["begun"] not in ended))


def timed(lines: Sequence[dict]) -> Iterator[str]:
    """The benchmark: the table by operation, then each cell, then what was lost."""
    rows = benchmark.rows_of(lines)
    yield from ("```text", *benchmark.table(rows), "```", "")
    yield "| layer | operation | dtype, layout | kernel | us | native, times | cudnn, times | share of the copy |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for row in rows:
        seconds = row["seconds"]
        if "ours" not in seconds:
            continue
        native, cudnn = (
            f"{seconds[name] / seconds['ours']:.2f}" if name in seconds else "-" for name in ("native", "cudnn")
        )
        yield (
            f"| {row['layer']} N{row['batch']} | {row['operation']} | {row['dtype']} {row['layout']} | {row['kernel']} "
            f"| {1e6 * seconds['ours']:.1f} | {native} | {cudnn} | {benchmark.share(row):.2f} |"
        )
    yield from ("", *(f"- {line}" for line in benchmark.interrupted(lines)))


def profiled(path: Path) -> str:
    """The figures of a profile's text that say what the kernel waits for."""
    wanted = ("Duration", "DRAM Throughput", "Compute (SM) Throughput", "Achieved Occupancy")
    words = [" ".join(line.split()) for line in path.read_text(errors="replace").splitlines()]
    return "; ".join(line for name in wanted for line in words if line.startswith(f"{name} ")) or "no figures"


def draw(folder: Path) -> Path | None:
    """Of each layer our share of the copy's bandwidth; None without matplotlib, or without a row."""
    rows = [row for row in benchmark.rows_of(benchmark.lines_of(folder)) if "ours" in row["seconds"]]
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return None
    if not rows:
        return None
    operations = list(dict.fromkeys(row["operation"] for row in rows))
    figure, axes = pyplot.subplots(len(operations), 1, figsize=(12, 3 * len(operations)), squeeze=False)
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    for ax, operation in zip(axes[:, 0], operations, strict=True):
        for form in dict.fromkeys(f"{row['dtype']} {row['layout']}" for row in rows):
            points = {
                layers.index(row["layer"]): benchmark.share(row)
                for row in rows
                if row["operation"] == operation and f"{row['dtype']} {row['layout']}" == form
            }
            ax.plot(points.keys(), points.values(), "o", markersize=4, label=form)
        ax.set(title=operation, ylabel="share of the copy", ylim=(0, None), xlim=(-0.5, len(layers) - 0.5))
        ax.set_xticks(range(len(layers)), layers if ax is axes[-1, 0] else [], rotation=90, fontsize=6)
        ax.grid(alpha=0.3)
    axes[0, 0].legend(ncols=4, fontsize=7)
    figure.tight_layout()
    figure.savefig(folder / "benchmark.png", dpi=150)
    pyplot.close(figure)
    return folder / "benchmark.png"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.report", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        print(f"{options.folder} is no folder", file=sys.stderr)
        return 2
    written = options.folder / "report.md"
    written.write_text("\n".join(text(options.folder)))
    print(*filter(None, (written, draw(options.folder))), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

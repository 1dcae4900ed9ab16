"""What was measured, beside what is wanted."""

import statistics
from collections.abc import Iterator

from torch_dwconv.bench.report import groups_of
from torch_dwconv.bench.suite import Table

from ..command import judged
from . import targets

Wanted = float | None


def tables(results: dict) -> Iterator[Table]:
    if results["models"]:
        yield steps_table(results["models"])
    if results["memory"]:
        yield memory_table(results["memory"])
    if results["norms"]:
        yield norms_table(results["norms"])


def steps_table(records: list[dict]) -> Table:
    """A row a model and layout: milliseconds of a step in each form, and how many times as long as ours it takes."""
    names = list(dict.fromkeys(name for record in records for name in record["times"]))
    rows = []
    for (model, layout), group in groups_of(records, "model", "layout").items():
        medians = {
            name: statistics.median(record["times"][name]["median"] for record in group if name in record["times"])
            for name in names
            if any(name in record["times"] for record in group)
        }
        ours = medians[targets.OURS]
        wanted = targets.CASES[model].wanted[targets.LAYOUTS.index(layout)] if model in targets.CASES else None
        against = {"plain": wanted, "compiled-plain": targets.COMPILED if wanted else None}
        rows.append(
            [
                model,
                layout,
                *(f"{medians[name] * 1e3:.1f}" if name in medians else "-" for name in names),
                *(judged(medians[name] / ours, wanted) if name in medians else "-" for name, wanted in against.items()),
            ]
        )
    headers = ["model", "layout", *(f"{name} ms" for name in names), "plain / blocks", "compiled-plain / blocks"]
    return f"A training step, {targets.THREADS} threads: ratio / target", headers, rows


def memory_table(records: list[dict]) -> Table:
    """A row a model and layout: the most that a step holds, beyond the parameters."""
    rows = []
    for record in records:
        plain, ours = record["bytes"]["plain"], record["bytes"][targets.OURS]
        share = ours / plain
        text = judged(share, targets.MEMORY, less=True)
        rows.append([record["model"], record["layout"], f"{plain / 1e6:.0f}", f"{ours / 1e6:.0f}", text])
    return "Peak memory of a step", ["model", "layout", "plain MB", "blocks MB", "blocks / plain"], rows


def norms_table(records: list[dict]) -> Table:
    """A row a layer and layout: how many times as long PyTorch takes, and the geometric means beside the targets."""
    rows: list[list] = []
    for (layout,), group in groups_of(records, "layout").items():
        ratios: dict[str, list[float]] = {"forward": [], "backward": []}
        for record in group:
            size = f"{record['batch']}x{record['channels']}x{record['height']}x{record['height']}"
            values = {}
            for direction, found in ratios.items():
                times = record["times"]
                values[direction] = times[f"torch {direction}"]["median"] / times[f"ours {direction}"]["median"]
                found.append(values[direction])
            name = record["activation"] or "none"
            rows.append([size, name, layout, *(f"{value:.2f}" for value in values.values())])
        means = (
            judged(statistics.geometric_mean(found), targets.NORMS_WANTED[layout, direction])
            for direction, found in ratios.items()
        )
        rows.append(["geometric mean", "", layout, *means])
    headers = ["N x C x H x W", "activation", "layout", "forward", "backward"]
    return "BatchNorm with its activation, 1 thread: time of PyTorch / ours / target of the mean", headers, rows

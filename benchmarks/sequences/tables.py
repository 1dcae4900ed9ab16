"""What was measured, beside what is wanted."""

import statistics
from collections.abc import Iterator

from torch_dwconv.bench.report import groups_of, share
from torch_dwconv.bench.suite import Table

from ..command import judged
from . import targets
from .targets import TARGETS, Target


def tables(results: dict) -> Iterator[Table]:
    if results["sequences"]:
        yield targets_table(results["sequences"])
        yield sizes_table(results["sequences"])
    if results["steps"]:
        yield steps_table(results["steps"])
    if results["cells"]:
        yield layers_table(results["cells"])


def ratio(record: dict, target: Target) -> float:
    return record["times"][target.over]["median"] / record["times"][target.under]["median"]


def targets_table(records: list[dict]) -> Table:
    """A row a target, dtype and layout: the geometric mean and the worst of all sizes."""
    rows = []
    for target in TARGETS:
        for (dtype, layout), group in groups_of(records, "dtype", "layout").items():
            values = [ratio(record, target) for record in group]
            mean, worst = target.wanted(dtype)
            worst_value = max(values) if target.less else min(values)
            means = (
                judged(statistics.geometric_mean(values), mean, target.less),
                judged(worst_value, worst, target.less),
            )
            rows.append([target.words, dtype, layout.upper(), *means])
    title = f"Causal convolutions of width {targets.WIDTH}, 1 thread: value / target"
    return title, ["", "dtype", "layout", "mean", "worst"], rows


def sizes_table(records: list[dict]) -> Table:
    """A row a size, dtype and layout: every value."""
    rows = [
        [
            targets.Size(record["batch"], record["channels"], record["length"]).name,
            record["dtype"],
            record["layout"].upper(),
            *(f"{ratio(record, target):.2f}" for target in TARGETS),
        ]
        for record in records
    ]
    return "The same, size by size", ["N x C x L", "dtype", "layout", *(target.words for target in TARGETS)], rows


def steps_table(records: list[dict]) -> Table:
    """A row a size and dtype: microseconds of a step, and how many times faster than roll and sum it is."""
    rows = []
    for (dtype,), group in groups_of(records, "dtype").items():
        ratios = [record["times"]["slow"]["median"] / record["times"]["ours"]["median"] for record in group]
        for record, value in zip(group, ratios, strict=True):
            size = record["batch"], record["channels"]
            microseconds = judged(record["times"]["ours"]["median"] * 1e6, targets.STEP_US.get(size), less=True)
            rows.append([f"{size[0]}x{size[1]}", dtype, microseconds, f"{value:.2f}"])
        rows.append(["geometric mean", dtype, "", judged(statistics.geometric_mean(ratios), targets.STEP_RATIO)])
    return "A step of decoding, 1 thread: value / target", ["N x C", "dtype", "µs", "roll and sum / ours"], rows


def layers_table(records: list[dict]) -> Table:
    """A row a layer and layout: the share of the limit of each operation, on reused results."""
    operations = list(dict.fromkeys(record["operation"] for record in records))
    rows = []
    for (layout,), of_layout in groups_of(records, "layout").items():
        shares: dict[str, list[float]] = {operation: [] for operation in operations}
        for (name,), group in groups_of(of_layout, "name").items():
            for record in group:
                shares[record["operation"]].append(share(record, "reused"))
            rows.append([name, layout, *(f"{values[-1]:.2f}" for values in shares.values())])
        means = (judged(statistics.geometric_mean(values), targets.LAYER_SHARE) for values in shares.values())
        rows.append(["geometric mean", layout, *means])
    return "Long and dilated filters, float32, 1 thread: share of the limit", ["layer", "layout", *operations], rows

"""A whole run by kind: one line for each claim that the library makes, with the goal that it is built for."""

import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from torch_dwconv.bench.contestants import MODES
from torch_dwconv.bench.report import groups_of, ratio, share
from torch_dwconv.bench.suite import Table

from . import overhead

SHORT_CALL_S = 10e-6  # below it the call itself counts as much as the kernel: no share of the limit is asked of one
Values = list[tuple[float, str]]  # a value, and what it is the value of
# Forms of a whole model, each with the one that it is held against, and goals for the ratio in either memory format.
_PAIRS = {
    "converted": "plain",
    "fused": "plain",
    "compiled-converted": "compiled-plain",
    "frozen-converted": "frozen-plain",
    "frozen-fused": "onnxruntime",
}
_PAIR_GOALS = {"fused": 1.0, "compiled-converted": 0.95, "frozen-converted": 0.95, "frozen-fused": 1.0}


class Kind(NamedTuple):
    """A claim: its words, what it is about, the mean wanted and the worst allowed. Above the goal is better."""

    words: str
    values: Values
    mean: float | None = None
    worst: float | None = None


def table(results: dict) -> Table:
    """Geometric mean and worst of every kind that was measured, each beside its goal."""
    headers = ["kind", "cells", "mean", "goal", "worst", "goal", "met", "where it is worst"]
    rows = [_row(kind) for kind in kinds(results) if kind.values]
    return (
        "By kind (a ratio above 1: ours is faster; met: mean and worst reach their goals)",
        headers,
        rows,
    )


def _row(kind: Kind) -> list:
    values = [value for value, _ in kind.values]
    worst, where = min(kind.values)
    mean = statistics.geometric_mean(values)
    met = (kind.mean is None or mean >= kind.mean) and (kind.worst is None or worst >= kind.worst)
    goals = ["-" if goal is None else f"{goal:.3g}" for goal in (kind.mean, kind.worst)]
    return [kind.words, len(values), f"{mean:.2f}", goals[0], f"{worst:.2f}", goals[1], "yes" if met else "no", where]


def kinds(results: dict) -> Iterator[Kind]:
    for (threads,), records in groups_of(results["cells"], "threads").items():
        for kind in _of_cells(records):
            yield kind._replace(words=f"{kind.words}, {threads} thread{'s' * (threads > 1)}")
    yield from _of_models(results["models"])
    # Here less is better; the others are ratios of the other's time to ours, and so is this.
    for record, value in zip(calls := results.get("overhead", []), overhead.ratios(calls), strict=True):
        yield Kind(f"a tiny {record['call']} call, {record['step']}: torch / ours", [(1 / value, "")], 1 / 0.35)


def _of_cells(records: list[dict]) -> Iterator[Kind]:
    layouts = {"nchw": "NCHW", "nhwc": "NHWC"}
    goals = {  # operation, smallest and largest kernel: goal in NCHW, in NHWC
        ("forward", 1, 99): (4, 1.6),
        ("grad_input", 1, 99): (4, 1.8),
        ("grad_weight", 1, 4): (3, 1.7),
        ("grad_weight", 5, 99): (25, 12),
    }
    for position, (layout, layout_name) in enumerate(layouts.items()):
        for (operation, smallest, largest), both in goals.items():
            chosen = _only(records, dtype="f32", layout=layout, operation=operation)
            chosen = [r for r in chosen if smallest <= max(r["layer"]["kernel_h"], r["layer"]["kernel_w"]) <= largest]
            size = {(1, 4): ", kernels up to 4", (5, 99): ", kernels from 5"}.get((smallest, largest), "")
            yield Kind(
                f"f32 {layout_name} {operation}{size}: against torch in that layout", _against(chosen), both[position]
            )
    for dtype in ("bf16", "f16"):
        for layout, layout_name in layouts.items():
            for operation in ("forward", "grad_input", "grad_weight"):
                chosen = _only(records, dtype=dtype, layout=layout, operation=operation)
                yield Kind(f"{dtype} {layout_name} {operation}: against torch in that layout", _against(chosen), 3)
        yield Kind(f"{dtype} layers bound by bytes: against our own f32", _against_f32(records, dtype), 1, 1)
    yield Kind("everything: against torch in the same layout", _against(records), None, 0.95)
    for layout, layout_name in layouts.items():
        chosen = _only(records, dtype="f32", layout=layout, operation="forward")
        yield Kind(f"f32 {layout_name} forward: against the best of all at theirs", _best(chosen, records), 1.2, 0.9)
    yield from _shares(records, layouts)


def _shares(records: list[dict], layouts: dict[str, str]) -> Iterator[Kind]:
    for dtype in dict.fromkeys(record["dtype"] for record in records):
        for layout, layout_name in layouts.items():
            for operations, goal in (
                (("forward", "grad_input"), {"nchw": 0.65, "nhwc": 0.75}[layout]),
                (("grad_weight",), 0.6),
            ):
                chosen = [r for r in _only(records, dtype=dtype, layout=layout) if r["operation"] in operations]
                words = f"{dtype} {layout_name} {' and '.join(operations)}: share of the limit"
                long = [r for r in chosen if r["times"]["ours"]["reused"]["median"] >= SHORT_CALL_S]
                yield Kind(words, [(share(r, "reused"), _where(r)) for r in long], goal, 0.35)


def _of_models(records: list[dict]) -> Iterator[Kind]:
    # The parts of names that have a goal for the training step: NCHW, NHWC.
    goals = {"mobilenet": (1.25, 1), "convnext_tiny": (1.2, 1), "replknet": (30, 15)}
    for record in records:
        nhwc = record["layout"] == "nhwc"
        words = f"{record['dtype']} {record['layout'].upper()} {record['model']} N{record['batch']} {record['step']}"
        for form, twin in _PAIRS.items():
            if not {form, twin} <= record["times"].keys():
                continue
            value = record["times"][twin]["median"] / record["times"][form]["median"]
            goal = _PAIR_GOALS.get(form, 1.0 if nhwc else None)
            if form == "converted" and record["step"] == "training":
                goal = next((pair[nhwc] for part, pair in goals.items() if part in record["model"]), goal)
            yield Kind(
                f"{words}: {twin} / {form}, {record['threads']} thread{'s' * (record['threads'] > 1)}",
                [(value, "")],
                goal,
            )


def _only(records: Iterable[dict], **wanted) -> list[dict]:
    return [record for record in records if all(record[key] == value for key, value in wanted.items())]


def _where(record: dict) -> str:
    return f"{record['name']} N{record['batch']} {record['operation']} {record['dtype']} {record['layout']}"


def _values(records: Iterable[dict], value_of: Callable[[dict], float | None]) -> Values:
    pairs = [(value_of(record), _where(record)) for record in records]
    return [(value, where) for value, where in pairs if value is not None]


def _against(records: list[dict]) -> Values:
    """PyTorch eager in the same layout, whose results are always fresh."""
    return _values(records, lambda record: ratio(record, "torch", "fresh"))


def _twins(records: list[dict], *keys: str) -> dict[tuple, dict]:
    return {tuple(record[key] for key in keys): record for record in records}


def _against_f32(records: list[dict], dtype: str) -> Values:
    keys = ("name", "batch", "operation", "layout")
    twins = _twins(_only(records, dtype="f32"), *keys)

    def value(record: dict) -> float | None:
        twin = twins.get(tuple(record[key] for key in keys))
        if twin is None or twin["limit"]["bound"] != "bytes":
            return None
        return twin["times"]["ours"]["reused"]["median"] / record["times"]["ours"]["reused"]["median"]

    return _values(_only(records, dtype=dtype), value)


def _best(chosen: list[dict], records: list[dict]) -> Values:
    """The fastest contestant, like with like; those that keep to the cell's layout also in the other, where it ran."""
    keys = ("name", "batch", "operation", "dtype")
    other = {layout: _twins(_only(records, layout=layout), *keys) for layout in ("nchw", "nhwc")}

    def value(record: dict) -> float | None:
        ratios = [ratio(record, name, mode) for name in record["times"] if name != "ours" for mode in MODES]
        if len(record["times"]) < 3:  # ours and one other: no "all"
            return None
        twin = other["nchw" if record["layout"] == "nhwc" else "nhwc"].get(tuple(record[key] for key in keys))
        ours = record["times"]["ours"]
        for name in ("torch", "compile"):
            if twin is not None and name in twin["times"]:
                ratios += [time["median"] / ours[mode]["median"] for mode, time in twin["times"][name].items()]
        return min((value for value in ratios if value is not None), default=None)

    return _values(chosen, value)

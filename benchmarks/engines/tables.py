"""The results beside the targets. Of several runs of the same cell the median counts."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from torch_dwconv.bench.report import groups_of, model_table
from torch_dwconv.bench.suite import Table

from . import targets
from .targets import CAPPABLE, CAPPED_MEAN, COLUMNS, OTHERS, OURS, PYTORCH, Column

Wanted = Callable[[str], float | None]  # of a column, by its name


def tables(results: dict) -> Iterator[Table]:
    """Those of what was measured: the targets, PyTorch's best form, and all times."""
    records = results["models"]
    machine = results["machine"]
    if against := [record for record in records if targets.fastest_of(record, OTHERS)]:
        yield target_table(against, capped=machine["isa"] != machine["cpu_isa"])
    if against := [record for record in records if {"compiled-plain", "frozen-plain"} <= record["times"].keys()]:
        yield pytorch_table(against)
    if records:
        yield model_table(records)


def target_table(records: list[dict], capped: bool) -> Table:
    """A row a model and dtype: how many times as fast as the best other engine, which that is, what is wanted.

    Args:
        capped: the instruction set is less than the machine's: something is wanted of the means only, and another mean
            is taken against those that can be capped alike.
    """
    rows: list[list] = []
    reached: Counter[bool] = Counter()
    for (dtype,), of_dtype in groups_of(records, "dtype").items():
        means: dict[str, tuple[str, ...]] = {"geometric mean": OTHERS}
        if capped:
            means[f"geometric mean, {', '.join(CAPPABLE)} alone"] = CAPPABLE
        for (model,), group in groups_of(of_dtype, "model").items():
            wanted: Wanted = (lambda _: None) if capped else partial(targets.ratio_wanted, model, dtype)
            value_of = partial(targets.ratio, others=OTHERS)
            rows.append([model, dtype, *_row(group, value_of, wanted, reached, _best)])
            wanted = partial(targets.share_wanted, model, dtype)
            if not capped and any(wanted(column) for column in COLUMNS):
                rows.append([f"{model}, of FMA peak", dtype, *_row(group, targets.share, wanted, reached)])
        for words, others in means.items():
            value_of, wanted = partial(targets.ratio, others=others), (lambda _: CAPPED_MEAN if capped else None)
            rows.append([words, dtype, *_row(of_dtype, value_of, wanted, reached)])
    title = f"Time of the best other engine ({', '.join(OTHERS)}) / {OURS}: value (best other) / target"
    title += f"; {reached[True]} of {reached.total()} targets reached"
    return title, ["model", "dtype", *(column.words for column in COLUMNS.values())], rows


def _row(
    records: list[dict],
    value_of: Callable[[dict], float | None],
    wanted: Wanted,
    reached: Counter[bool],
    note_of: Callable[[list[dict]], str] = lambda records: "",
) -> list[str]:
    """A text for each column: the mean over models of the median of each."""
    texts = []
    for name, column in COLUMNS.items():
        chosen = [record for record in records if Column(record["batch"], record["threads"]) == column]
        medians = []
        for of_model in groups_of(chosen, "model").values():
            if values := [value for record in of_model if (value := value_of(record)) is not None]:
                medians.append(statistics.median(values))
        mean = statistics.geometric_mean(medians) if medians else None
        texts.append(_cell(mean, wanted(name), reached, note_of(chosen)))
    return texts


def _cell(value: float | None, wanted: float | None, reached: Counter[bool], note: str = "") -> str:
    if value is None:
        return "-"
    text = f"{value:.2f}{note}"
    if wanted is None:
        return text
    reached[value >= wanted] += 1
    return f"{text} / {wanted:.2f} {'reached' if value >= wanted else 'NOT REACHED'}"


def _best(records: list[dict]) -> str:
    """The other engine that was fastest most often."""
    names = [best[0] for record in records if (best := targets.fastest_of(record, OTHERS))]
    return f" ({statistics.mode(names)})" if names else ""


def pytorch_table(records: list[dict]) -> Table:
    """A row a model, dtype, batch and number of threads: PyTorch's best form against ours; and the mean of all."""
    rows: list[list] = []
    means = []
    for (model, dtype, batch, threads), group in groups_of(records, "model", "dtype", "batch", "threads").items():
        ratios = [value for record in group if (value := targets.ratio(record, PYTORCH)) is not None]
        if not ratios:
            continue
        means.append(value := statistics.median(ratios))
        best, ours = (
            [pair for record in group if (pair := targets.fastest_of(record, forms))] for forms in (PYTORCH, (OURS,))
        )
        times = (f"{statistics.median(seconds for _, seconds in pairs) * 1e3:.2f}" for pairs in (best, ours))
        name = statistics.mode(name for name, _ in best)
        rows.append([model, dtype, batch, threads, name, *times, *_judged(value, targets.PYTORCH_EACH)])
    if means:
        mean = _judged(statistics.geometric_mean(means), targets.PYTORCH_MEAN)
        rows.append(["geometric mean", "", "", "", f"{len(means)} cells", "", "", *mean])
    headers = ["model", "dtype", "batch", "threads", "PyTorch's best", "its ms", f"{OURS} ms", "ratio", "target", ""]
    return f"Time of PyTorch's best form ({', '.join(PYTORCH)}) / {OURS}", headers, rows


def _judged(value: float, wanted: float) -> list[str]:
    return [f"{value:.2f}", f"{wanted:.2f}", "reached" if value >= wanted else "NOT REACHED"]

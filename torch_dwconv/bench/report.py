"""Tables of the records that cells.measure makes, and what they come to together."""

import statistics
from collections.abc import Iterable, Iterator

from .contestants import MODES
from .suite import Suite, Table

_GROUP = ("threads", "dtype", "layout", "operation")


def ratio(record: dict, name: str, mode: str) -> float | None:
    """Time of the contestant / time of ours, both in `mode`; above 1 ours is faster. None if one is missing."""
    times = record["times"]
    if mode not in times.get(name, {}) or mode not in times["ours"]:
        return None
    return times[name][mode]["median"] / times["ours"][mode]["median"]


def best_ratio(record: dict) -> float | None:
    """The smallest ratio to any contestant in any mode: where ours is below 1, somebody was faster."""
    ratios = [ratio(record, name, mode) for name in record["times"] if name != "ours" for mode in MODES]
    return min((value for value in ratios if value is not None), default=None)


def share(record: dict, mode: str) -> float:
    """The limit's time / ours: 1 is a kernel that the machine cannot beat."""
    return record["limit"]["seconds"] / record["times"]["ours"][mode]["median"]


def contestants_of(records: Iterable[dict]) -> list[str]:
    """Those other than ours that were timed at least once, in order."""
    return list(dict.fromkeys(name for record in records for name in record["times"] if name != "ours"))


def groups_of(records: Iterable[dict], *keys: str) -> dict[tuple, list[dict]]:
    """The records by their values of `keys`, in order of appearance."""
    groups: dict = {}
    for record in records:
        groups.setdefault(tuple(record[key] for key in keys), []).append(record)
    return groups


def cell_tables(records: list[dict]) -> Iterator[Table]:
    """One table for each number of threads, dtype, layout and operation: a row a layer and mode.

    Times are microseconds; "±" is half the distance of the quartiles in percent; a ratio says how many times longer a
    contestant took than ours.
    """
    for (threads, dtype, layout, operation), group in groups_of(records, *_GROUP).items():
        names = contestants_of(group)
        headers = [
            "layer",
            "N",
            "result",
            "ours µs",
            "±%",
            "of limit",
            "bound",
            *(f"{name} µs (ratio)" for name in names),
        ]
        rows = [
            _row(record, mode, names)
            for record in group
            for mode in MODES
            if any(mode in times for times in record["times"].values())
        ]
        title = f"{operation}, {dtype}, {layout.upper()}, {threads} thread{'s' if threads > 1 else ''}"
        yield title, headers, rows


def _row(record: dict, mode: str, names: list[str]) -> list:
    ours = record["times"]["ours"][mode]
    return [
        record["name"],
        record["batch"],
        mode,
        _microseconds(ours["median"]),
        _spread(ours),
        f"{share(record, mode):.2f}",
        record["limit"]["bound"],
        *(_opponent(record, name, mode) for name in names),
    ]


def _spread(timing: dict) -> str:
    """Half the distance of the quartiles, in percent of the median."""
    return f"{50 * (timing['high'] - timing['low']) / timing['median']:.0f}"


def _opponent(record: dict, name: str, mode: str) -> str:
    value = ratio(record, name, mode)
    if value is None:
        return "-"
    return f"{_microseconds(record['times'][name][mode]['median'])} ({value:.2f})"


def _microseconds(seconds: float) -> str:
    value = seconds * 1e6
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def summary_table(records: list[dict]) -> Table:
    """Geometric means, and the worst layer beside each, for each number of threads, dtype, layout and operation."""
    names = contestants_of(records)
    headers = ["operation", "dtype", "layout", "threads", "layers", "result", "of limit (worst)"]
    headers += [f"{name} (worst)" for name in names] + ["best of all (worst)"] * (len(names) > 1)
    rows = []
    for (threads, dtype, layout, operation), group in groups_of(records, *_GROUP).items():
        for mode in MODES:
            cells = [_mean_and_worst([share(record, mode) for record in group])]
            cells += [_mean_and_worst([ratio(record, name, mode) for record in group]) for name in names]
            if len(names) > 1:
                cells.append(_mean_and_worst([best_ratio(record) for record in group]) if mode == MODES[-1] else "")
            rows.append([operation, dtype, layout, threads, len(group), mode, *cells])
    return "Geometric means of ratios (above 1: ours is faster)", headers, rows


def _mean_and_worst(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.geometric_mean(known):.2f} ({min(known):.2f})" if known else "-"


def refusals(records: list[dict]) -> list[str]:
    """A line for each contestant and kind of reason (what stands before a parenthesis), with the number of cells."""
    counts: dict = {}
    for record in records:
        for name, text in record["refused"].items():
            reason = text.partition(" (")[0]
            counts[name, reason] = counts.get((name, reason), 0) + 1
    return [f"{name}: {reason} ({count} of {len(records)})" for (name, reason), count in counts.items()]


def render(table: Table, style: str) -> str:
    """`style` is tabulate's: "simple" for a terminal, "github" for Markdown."""
    from tabulate import tabulate

    title, headers, rows = table
    heading = f"### {title}" if style == "github" else title
    alignment = ["left", *["right"] * (len(headers) - 1)]
    return f"{heading}\n\n{tabulate(rows, headers, tablefmt=style, disable_numparse=True, colalign=alignment)}\n"


def machine_lines(facts: dict) -> list[str]:
    caches = ", ".join(f"{level} {size}" for level, size in facts["caches"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["contestants"].items())
    commit = f", commit {facts['commit']}" if facts["commit"] else ""
    return [
        f"{facts['cpu']}, {facts['cores']} cores, {caches}; ISA {facts['isa']} (this CPU: {facts['cpu_isa']}); "
        f"load before the run {facts['load']:.1f}",
        f"torch_dwconv {facts['torch_dwconv']}{commit}; {versions}; Python {facts['python']}, {facts['system']}",
        ", ".join([facts["date"], *(f"{name}={value}" for name, value in facts.get("caps", {}).items())]),
        *([f"`{facts['command']}`"] if "command" in facts else []),
    ]


def peak_share(record: dict, name: str) -> float | None:
    """FLOPs of a whole model / (time of that form x FMA peak); None for training, and for a result of before."""
    if not record.get("flops"):
        return None
    return record["flops"] / (record["times"][name]["median"] * record["fma_flops_per_second"])


def model_table(records: list[dict]) -> Table:
    """A row a model, step, dtype, layout and number of threads: milliseconds of each form, plain / that form, and the
    share of the FMA peak."""
    keys = ("model", "step", "batch", "dtype", "layout", "threads")
    names = list(dict.fromkeys(name for record in records for name in record["times"]))
    headers = [*keys, *(f"{name} (of peak)" if name == "plain" else f"{name} (ratio, of peak)" for name in names)]
    rows = [[*(record[key] for key in keys), *(_form(record, name) for name in names)] for record in records]
    return "Whole models: milliseconds, ±% of them (time plain / that, share of the FMA peak)", headers, rows


def _form(record: dict, name: str) -> str:
    times = record["times"]
    if name not in times:
        return "-"
    timing, share_of_peak = times[name], peak_share(record, name)
    notes = [] if name == "plain" else [f"{times['plain']['median'] / timing['median']:.2f}"]
    notes += [] if share_of_peak is None else [f"{share_of_peak:.2f}"]
    text = f"{timing['median'] * 1e3:.2f} ±{_spread(timing)}"
    return f"{text} ({', '.join(notes)})" if notes else text


def not_timed(records: list[dict]) -> Iterator[str]:
    """A list of who refused, if anybody did."""
    if lines := refusals(records):
        yield "\n".join(["Not timed:", "", *(f"- {line}" for line in lines)]) + "\n"


def document(results: dict, style: str, suite: Suite) -> Iterator[str]:
    """The whole report, part by part; `style` as for `render`."""
    yield "\n".join(machine_lines(results["machine"])) + "\n"
    if cells := results["cells"]:
        for table in cell_tables(cells):
            yield render(table, style)
        yield render(summary_table(cells), style)
        yield from not_timed(cells)
    if models := results["models"]:
        yield render(model_table(models), style)
        yield from not_timed(models)
    for name, extra in suite.extras.items():
        if records := results.get(name):
            yield render(extra.table(records), style)
    if suite.summary:
        yield render(suite.summary(results), style)

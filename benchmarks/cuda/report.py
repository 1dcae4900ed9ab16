"""Tables of what was timed. Nothing here needs torch."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import items

from . import CONTESTANTS


def lines_of(folder: Path) -> list[dict]:
    """All lines that the processes of a run have left in a folder."""
    return [line for path in sorted(folder.glob("benchmark-*.jsonl")) for line in items.read(path)]


def rows_of(lines: Iterable[dict]) -> list[dict]:
    """Those of cells that were timed, or that have a problem."""
    return [line for line in lines if "seconds" in line]


def interrupted(lines: Sequence[dict]) -> Iterator[str]:
    """What ended before it was done: cells that were lost, and processes that did not start."""
    yield from (f"lost: {line['name']}: {line['lost']}" for line in lines if "lost" in line)
    yield from (f"failed: {line['failed']}" for line in lines if "failed" in line)


def share(row: dict) -> float:
    """How much of the copy's bandwidth ours reaches."""
    return row["bytes"] / row["bandwidth"] / row["seconds"]["ours"]


def slowest(rows: Iterable[dict], count: int) -> list[dict]:
    """Of each kernel the cell that is the furthest from the copy; of these the worst, at most so many."""
    worst: dict[str, dict] = {}
    for row in rows:
        if "ours" in row["seconds"]:
            known = worst.setdefault(row["kernel"], row)
            worst[row["kernel"]] = min(known, row, key=share)
    return sorted(worst.values(), key=share)[:count]


def table(rows: Sequence[dict]) -> Iterator[str]:
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
        shares = [share(row) for row in group if "ours" in row["seconds"]]
        others = "".join(f"{spread(ratios[name]):<20}" for name in ("native", "cudnn"))
        yield f"{operation:<12}{dtype:<6}{layout:<7}{len(group):>5}  {others}{spread(shares)}"
    for row in rows:
        for name, problem in row["problems"].items():
            yield f"{name}: {row['name']}: {problem}"

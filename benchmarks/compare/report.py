"""What the times of two builds come to: geometric means, the worst, and how sure both are."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch_dwconv.bench.suite import Table

from .processes import Subject, Times

SHORT_CALL_S = 15e-6
NOT_SLOWER = "not slower"
Rounds = Mapping[Subject, Sequence[Times]]  # by subject: its times in each round


class Verdict(NamedTuple):
    """On a subject that seemed slower, from the rounds of its last look alone."""

    subject: Subject
    rounds: Sequence[Times]
    words: str


def median_ratio(rounds: Sequence[Times]) -> float:
    return statistics.median(times.ratio for times in rounds)


def shortest_ratio(rounds: Sequence[Times]) -> float:
    """Of the shortest sample of each build in all rounds."""
    return min(times.before for times in rounds) / min(times.after for times in rounds)


def suspects(first: Rounds, limit: float) -> list[Subject]:
    """Those that are below the limit at first sight, the worst first."""
    slow = [subject for subject, rounds in first.items() if median_ratio(rounds) < limit]
    return sorted(slow, key=lambda subject: median_ratio(first[subject]))


def verdicts(again: Rounds, limit: float) -> list[Verdict]:
    """The worst first: slower (in every round, and below the limit both in the median and of the shortest samples),
    unclear (one of the three does not say so), or not slower.

    An earlier look chose these subjects because they looked slow, so its times would make them look slower than they
    are.
    """
    found = []
    for subject, rounds in again.items():
        below = [median_ratio(rounds) < limit, shortest_ratio(rounds) < limit]
        slower = all(below) and max(times.ratio for times in rounds) < 1
        found.append(Verdict(subject, rounds, "SLOWER" if slower else "unclear" if any(below) else NOT_SLOWER))
    return sorted(found, key=lambda verdict: median_ratio(verdict.rounds))


def tables(first: Rounds, again: Rounds, limit: float) -> Iterator[Table]:
    """All that there is to show. A ratio is before / after: above 1 the build of after is faster."""
    yield _groups("Geometric means of before / after (above 1: after is faster)", first)
    short = {
        subject: rounds
        for subject, rounds in first.items()
        if statistics.median(times.before for times in rounds) < SHORT_CALL_S
    }
    if short:
        yield _groups(f"Of those, calls under {SHORT_CALL_S * 1e6:.0f} µs", short)
    tiny = {subject: rounds for subject, rounds in first.items() if subject.kind == "tiny"}
    if tiny:
        yield _each("Tiny calls", tiny)
    worst = sorted(first, key=lambda subject: median_ratio(first[subject]))[:10]
    yield _each("The ten worst at first sight", {subject: first[subject] for subject in worst})
    if again:
        yield _last_look(verdicts(again, limit), limit)


def other_bits(first: Rounds) -> list[str]:
    """A line for each subject whose results differ, the largest difference first."""
    largest = {subject: max(times.difference for times in rounds) for subject, rounds in first.items()}
    return [
        f"{subject.name}: {value:.1e}"
        for subject, value in sorted(largest.items(), key=lambda item: -item[1])
        if value > 0
    ]


def _groups(title: str, rounds: Rounds) -> Table:
    groups: dict[tuple, list[Subject]] = {}
    for subject in rounds:
        groups.setdefault(subject.group, []).append(subject)
    if len(groups) > 1:
        groups["all", "", "", ""] = list(rounds)
    rows = []
    for group, subjects in groups.items():
        each_round = [
            statistics.geometric_mean(times.ratio for times in one)
            for one in zip(*(rounds[subject] for subject in subjects), strict=True)
        ]
        ratios = [median_ratio(rounds[subject]) for subject in subjects]
        mean = statistics.geometric_mean(ratios)
        rows.append([*group, len(subjects), f"{mean:.3f}", _range(each_round), f"{min(ratios):.2f}"])
    headers = ["operation", "dtype", "layout", "threads", "calls", "mean", "in each round", "worst"]
    return title, headers, rows


def _each(title: str, rounds: Rounds) -> Table:
    return title, ["call", *_TIMES], [[subject.name, *_times(times)] for subject, times in rounds.items()]


def _last_look(found: list[Verdict], limit: float) -> Table:
    left = [verdict for verdict in found if verdict.words != NOT_SLOWER]
    title = (
        f"{len(found)} were below {limit:g} and timed again, in other processes; by their last look alone "
        f"{len(found) - len(left)} of them are not slower. The others"
    )
    rows = [
        [verdict.subject.name, *_times(verdict.rounds), f"{shortest_ratio(verdict.rounds):.3f}", verdict.words]
        for verdict in left
    ]
    return title, ["call", *_TIMES, "of the shortest", "verdict"], rows


_TIMES = ("before µs", "after µs", "ratio", "in each round")


def _times(rounds: Sequence[Times]) -> list[str]:
    before, after = (statistics.median(getattr(times, build) for times in rounds) for build in ("before", "after"))
    ratios = [times.ratio for times in rounds]
    return [f"{before * 1e6:.2f}", f"{after * 1e6:.2f}", f"{median_ratio(rounds):.3f}", _range(ratios)]


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.3f} to {max(values):.3f}"

"""Turns, repeats and medians, on a clock that the test sets."""

import gc

import pytest

from torch_dwconv.bench import timing
from torch_dwconv.bench.timing import Options, Run, fastest, time_in_turns

pytestmark = pytest.mark.serial


class Clocked(Run):
    """Takes the seconds that it was given, in turn; notes every sample in a list shared between runs."""

    def __init__(self, name, diary, seconds, pool="openmp"):
        super().__init__(call=lambda: None, pool=pool)
        self.name, self.diary, self.per_call = name, diary, seconds
        self.sampled = 0

    def seconds(self, repeats):
        self.diary.append((self.name, repeats))
        if repeats == 1:
            return self.per_call[0]
        per_call = self.per_call[self.sampled % len(self.per_call)]
        self.sampled += 1
        return per_call * repeats


def test_contestants_take_turns_and_each_begins_a_round():
    diary = []
    runs = {name: Clocked(name, diary, [1e-4]) for name in "ABC"}
    time_in_turns(runs, Options(4, 1e-3))
    rounds = [entry for entry in diary if entry[1] > 1][-24:]
    assert "".join(name for name, _ in rounds[::2]) == "ABC" + "BCA" + "CAB" + "ABC"


@pytest.mark.parametrize(("seconds", "warm"), [(1e-5, None), (1e-3, timing.WARM_CALLS)])
def test_a_sample_lasts_long_enough_and_is_preceded_by_calls_that_are_not_timed(seconds, warm):
    diary = []
    result = time_in_turns({"A": Clocked("A", diary, [seconds])}, Options(3, 2e-3))["A"]
    assert 2e-3 <= result.repeats * seconds <= 3.5e-3
    assert diary[-6:] == [("A", warm or result.repeats), ("A", result.repeats)] * 3


def test_slow_first_calls_do_not_make_a_call_long():
    per_call = iter([5e-3, 5e-3])
    run = Run(lambda: None)
    run.seconds = lambda repeats: repeats * next(per_call, 1e-4)
    assert timing.repeats_of(run, 2e-3)[0] >= 20


def test_a_long_call_is_not_repeated():
    result = time_in_turns({"A": Run(lambda: sum(range(100_000)))}, Options(2, 1e-5))["A"]
    assert (result.repeats, result.samples) == (1, 2)


def test_median_and_quartiles():
    run = Clocked("A", [], [1.0])
    run.per_call = [9e-4, 1e-4, 5e-4, 2e-4, 3e-4]
    repeats, _ = timing.repeats_of(run, 2e-3)
    run.sampled = 0
    samples = [run.seconds(repeats) / repeats for _ in range(5)]
    assert timing._timing(samples, repeats) == pytest.approx((3e-4, 2e-4, 5e-4, 5, repeats))
    assert timing._timing([4.0], 1) == (4.0, 4.0, 4.0, 1, 1)


@pytest.mark.parametrize(("seconds", "samples"), [(1e-3, 9), (0.02, 9), (0.04, 5), (0.5, 3)])
def test_long_calls_give_fewer_samples(seconds, samples):
    diary = []
    runs = {"A": Clocked("A", diary, [seconds]), "B": Clocked("B", diary, [1e-3])}
    result = time_in_turns(runs, Options(9, 1e-3, max_seconds=0.2))
    assert (result["A"].samples, result["B"].samples) == (samples, 9)


def test_no_call_goes_before_one_that_is_long():
    diary = []
    time_in_turns({"A": Clocked("A", diary, [1.0])}, Options(3, 1e-3))
    assert diary == [("A", 1)] * (2 + 3)


@pytest.mark.parametrize(("threads", "pauses"), [(1, 0), (2, 6)])  # ABC BCA CAB
def test_a_pause_separates_pools_of_threads(monkeypatch, threads, pauses):
    slept = []
    monkeypatch.setattr(timing.time, "sleep", slept.append)
    runs = {name: Clocked(name, [], [1e-3], pool) for name, pool in (("A", "x"), ("B", "x"), ("C", "y"))}
    time_in_turns(runs, Options(3, 1e-3), threads=threads)
    assert slept == [timing.POOL_PAUSE_S] * pauses


def test_the_collector_rests_while_times_are_taken():
    seen = []
    time_in_turns({"A": Run(lambda: seen.append(gc.isenabled()))}, Options(1, 1e-6))
    assert gc.isenabled()
    assert not any(seen)


def test_the_fastest_candidate_wins():
    candidates = {name: Clocked(name, [], [seconds]) for name, seconds in (("slow", 3e-4), ("fast", 1e-4))}
    assert fastest(candidates) == ("fast", candidates["fast"])

"""A cell's record: everybody is checked before anybody is timed."""

import json
from types import SimpleNamespace

import pytest
import torch

from torch_dwconv.bench import contestants
from torch_dwconv.bench.cells import measure
from torch_dwconv.bench.contestants import Refused, eager, ours
from torch_dwconv.bench.layers import parse_layer
from torch_dwconv.bench.problem import DTYPES, LAYOUTS, OPERATIONS, Cell, Problem
from torch_dwconv.bench.timing import Options, Run

QUICK = Options(samples=1, min_seconds=1e-6)


def cell(text="2,3,9,8,3,2", operation="forward", dtype="f32", layout="nchw", threads=1):
    batch, layer = parse_layer(text)
    return Cell(layer, batch, operation, dtype, layout, threads)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_ours_and_torch_agree_and_are_timed(operation, dtype, layout):
    record = measure(cell(operation=operation, dtype=dtype, layout=layout), {"ours": ours, "torch": eager}, QUICK)
    assert record["refused"] == {}
    assert {name: list(times) for name, times in record["times"].items()} == {
        "ours": ["fresh", "reused"],
        "torch": ["fresh"],
    }
    assert json.loads(json.dumps(record)) == record
    assert record["limit"]["seconds"] >= record["limit"]["stream_seconds"] > 0


def changed(change):
    """PyTorch, with its fresh result put through `change`."""

    def runs(problem):
        run = eager.runs(problem)["fresh"]
        return {"fresh": Run(run.call, lambda result: change(run.tensor(result)))}

    return SimpleNamespace(runs=runs)


@pytest.mark.parametrize(
    "change", [lambda y: y * 1.01, lambda y: y[..., 1:], lambda y: y * float("nan")], ids=["values", "size", "nan"]
)
def test_other_numbers_are_not_timed(change):
    record = measure(cell(), {"ours": ours, "torch": eager, "wrong": changed(change)}, QUICK)
    assert list(record["times"]) == ["ours", "torch"]
    assert record["refused"]["wrong"].startswith("other numbers")


def test_alone_against_a_wrong_contestant_float64_decides():
    wrong = changed(lambda y: y * 1.01)
    assert list(measure(cell(), {"ours": ours, "wrong": wrong}, QUICK)["times"]) == ["ours"]
    with pytest.raises(AssertionError, match="other numbers"):
        measure(cell(), {"ours": wrong, "torch": eager}, QUICK)


def test_our_own_modes_must_agree():
    def runs(problem):
        offered = ours.runs(problem)
        return {"fresh": offered["fresh"], "reused": Run(offered["reused"].call, lambda y: y + 1)}

    with pytest.raises(AssertionError, match="other numbers"):
        measure(cell(), {"ours": SimpleNamespace(runs=runs), "torch": eager}, QUICK)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Refused("no gradients"), "no gradients"), (ZeroDivisionError("by 0\nx"), "ZeroDivisionError: by 0")],
)
def test_who_does_not_compute_it_says_why(error, reason):
    def runs(problem):
        raise error

    record = measure(cell(), {"ours": ours, "other": SimpleNamespace(runs=runs)}, QUICK)
    assert record["refused"] == {"other": reason}


def test_threads_are_set_and_restored():
    before, seen = torch.get_num_threads(), []

    def runs(problem):
        seen.append(torch.get_num_threads())
        return ours.runs(problem)

    measure(cell(threads=before + 1), {"ours": SimpleNamespace(runs=runs)}, QUICK)
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_our_reused_result_is_the_buffer():
    problem = Problem(cell(operation="grad_input"))
    run = ours.runs(problem)["reused"]
    assert run.tensor(run.call()).data_ptr() == run.tensor(run.call()).data_ptr()


def test_every_contestant_is_a_module():
    for contestant in (contestants.OURS, *contestants.OTHERS.values()):
        module, version = contestants.load(contestant)
        assert callable(module.runs)
        assert version

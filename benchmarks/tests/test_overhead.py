"""A tiny call: what is timed is what it says."""

import json

import pytest
import torch

from benchmarks import overhead
from torch_dwconv.bench.timing import Options


def test_every_way_of_calling_is_timed_for_both():
    threads = torch.get_num_threads()
    records = overhead.measure(Options(samples=2, min_seconds=1e-5))
    assert torch.get_num_threads() == threads
    assert [(r["call"], r["step"]) for r in records] == [(c, s) for c in ("function", "module") for s in overhead.STEPS]
    assert json.loads(json.dumps(records)) == records
    assert all(value > 0 for value in overhead.ratios(records))
    _, headers, rows = overhead.table(records)
    assert len(rows) == 6 and len(headers) == len(rows[0]) == 5


@pytest.mark.parametrize("call", ["function", "module"])
def test_the_steps_do_what_they_are_called(call):
    (torch_function, torch_leaves), (ours, leaves) = overhead.calls()[call].values()
    output = overhead.step_of("no gradient", ours, leaves)()
    assert not output.requires_grad and output.shape == torch_function().shape == overhead.SIZE
    assert overhead.step_of("training forward", ours, leaves)().requires_grad
    for function, those in ((torch_function, torch_leaves), (ours, leaves)):
        overhead.step_of("forward and backward", function, those)()
        assert len(those) == 3 and all(leaf.grad is not None for leaf in those)


def test_a_ratio_is_ours_over_theirs():
    record = {"times": {"ours": {"median": 1.0}, "torch": {"median": 4.0}}}
    assert overhead.ratios([record]) == [0.25]

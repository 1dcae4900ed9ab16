"""Ratios, shares and their means, from records written by hand."""

import pytest

from torch_dwconv.bench import report
from torch_dwconv.bench.suite import SUITE


def timing(median):
    return {"median": median, "low": 0.9 * median, "high": 1.1 * median, "samples": 9, "repeats": 10, "note": ""}


def record(name, ours, limit=1e-6, **others):
    """A forward cell; `ours` and others are (fresh, reused) seconds or None where they have no such mode."""
    modes = {"ours": ours, **others}
    times = {
        who: {mode: timing(t) for mode, t in zip(("fresh", "reused"), pair, strict=True) if t is not None}
        for who, pair in modes.items()
    }
    cell = {"name": name, "batch": 1, "operation": "forward", "dtype": "f32", "layout": "nchw", "threads": 1}
    limit = {"seconds": limit, "bound": "bytes"}
    return {**cell, "times": times, "refused": {}, "limit": limit}


RECORDS = [
    record("a", (4e-6, 2e-6), torch=(8e-6, None), onednn=(None, 1e-6)),
    record("b", (2e-6, 2e-6), torch=(16e-6, None), onednn=(None, 4e-6)),
]


def test_ratios_compare_like_with_like():
    assert report.ratio(RECORDS[0], "torch", "fresh") == pytest.approx(2)
    assert report.ratio(RECORDS[0], "torch", "reused") is None
    assert report.ratio(RECORDS[0], "onednn", "reused") == pytest.approx(0.5)
    assert report.ratio(RECORDS[0], "litert", "fresh") is None


def test_the_best_of_all_is_the_fastest_contestant():
    assert [report.best_ratio(r) for r in RECORDS] == pytest.approx([0.5, 2])
    assert report.best_ratio(record("alone", (1e-6, 1e-6))) is None


def test_share_of_the_limit():
    assert report.share(RECORDS[0], "fresh") == pytest.approx(0.25)
    assert report.share(RECORDS[0], "reused") == pytest.approx(0.5)


def test_a_cell_has_a_row_for_each_mode():
    ((title, headers, rows),) = report.cell_tables(RECORDS)
    assert title == "forward, f32, NCHW, 1 thread"
    assert headers[-2:] == ["torch µs (ratio)", "onednn µs (ratio)"]
    assert rows[0] == ["a", 1, "fresh", "4.0", "10", "0.25", "bytes", "8.0 (2.00)", "-"]
    assert rows[1] == ["a", 1, "reused", "2.0", "10", "0.50", "bytes", "-", "1.0 (0.50)"]


def test_the_summary_has_geometric_means_and_the_worst():
    _, headers, (fresh, reused) = report.summary_table(RECORDS)
    assert headers[-3:] == ["torch (worst)", "onednn (worst)", "best of all (worst)"]
    assert fresh == ["forward", "f32", "nchw", 1, 2, "fresh", "0.35 (0.25)", "4.00 (2.00)", "-", ""]
    assert reused == ["forward", "f32", "nchw", 1, 2, "reused", "0.50 (0.50)", "-", "1.00 (0.50)", "1.00 (0.50)"]


def test_refusals_are_counted_by_their_kind():
    refused = [{"refused": {"x": "other numbers (1e-3)"}}, {"refused": {"x": "other numbers (2e-3)", "y": "no f16"}}]
    assert report.refusals(refused) == ["x: other numbers (2 of 2)", "y: no f16 (1 of 2)"]


@pytest.mark.parametrize(("style", "heading"), [("simple", "title\n\n"), ("github", "### title\n\n|")])
def test_tables_for_the_terminal_and_for_markdown(style, heading):
    assert report.render(("title", ["a", "b"], [["x", "1"]]), style).startswith(heading)


def test_a_model_has_a_column_for_each_form_that_was_timed():
    keys = {"model": "m", "batch": 1, "dtype": "f32", "layout": "nhwc", "threads": 1}
    inference = {**keys, "step": "inference", "times": {"plain": timing(4e-3), "fused": timing(1e-3)}}
    training = {**keys, "step": "training", "times": {"plain": timing(8e-3)}, "flops": None}
    _, headers, table = report.model_table([inference, training])
    assert headers[-2:] == ["plain (of peak)", "fused (ratio, of peak)"]
    assert [row[-2:] for row in table] == [["4.00 ±10", "1.00 ±10 (4.00)"], ["8.00 ±10", "-"]]
    inference |= {"flops": 6e8, "fma_flops_per_second": 1.2e12}
    _, _, (row,) = report.model_table([inference])
    assert row[-2:] == ["4.00 ±10 (0.12)", "1.00 ±10 (4.00, 0.50)"]


def test_who_did_not_run_a_model_is_said():
    record = {"model": "m", "batch": 1, "dtype": "f32", "layout": "nhwc", "threads": 1, "step": "inference"}
    record |= {"times": {"plain": timing(1.0)}, "refused": {"backend": "there is none"}}
    machine = {"cpu": "", "cores": 1, "caches": {}, "isa": "", "cpu_isa": "", "load": 0, "torch_dwconv": ""}
    machine |= {"commit": "", "contestants": {}, "python": "", "system": "", "date": ""}
    text = "".join(report.document({"machine": machine, "cells": [], "models": [record]}, "simple", SUITE))
    assert "Not timed:\n\n- backend: there is none (1 of 1)" in text

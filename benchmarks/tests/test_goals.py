"""The summary by kind, from records written by hand."""

import pytest

from benchmarks import goals


def cell(
    name="a", kernel=3, operation="forward", dtype="f32", layout="nchw", ours=2e-5, limit=1e-5, threads=1, **others
):
    """`ours` and the limit in seconds; others by name in seconds, fresh for torch and compile and reused else."""
    times = {"ours": {mode: {"median": ours} for mode in ("fresh", "reused")}}
    for who, seconds in others.items():
        times[who] = {"fresh" if who in ("torch", "compile") else "reused": {"median": seconds}}
    record = {
        "name": name,
        "layer": {"kernel_h": kernel, "kernel_w": kernel},
        "batch": 1,
        "operation": operation,
        "dtype": dtype,
    }
    record |= {"layout": layout, "threads": threads, "times": times, "limit": {"seconds": limit, "bound": "bytes"}}
    return record


def rows(cells, models=(), overhead=()):
    _, headers, rows = goals.table({"cells": list(cells), "models": list(models), "overhead": list(overhead)})
    assert all(len(row) == len(headers) for row in rows)
    return {row[0]: row[1:] for row in rows}


def test_the_mean_the_worst_and_where_it_is():
    table = rows([cell("a", torch=4e-5), cell("b", torch=32e-5)])
    assert table["f32 NCHW forward: against torch in that layout, 1 thread"] == [
        *(2, "5.66", "4", "2.00", "-", "yes"),
        "a N1 forward f32 nchw",
    ]
    assert "f32 NHWC forward: against torch in that layout, 1 thread" not in table


def test_a_missed_goal_is_said():
    table = rows([cell(torch=3e-5), cell("slow", torch=1e-5)])
    assert table["f32 NCHW forward: against torch in that layout, 1 thread"][-2] == "no"
    assert table["everything: against torch in the same layout, 1 thread"] == [
        *(2, "0.87", "-", "0.50", "0.95", "no"),
        "slow N1 forward f32 nchw",
    ]


def test_small_and_large_kernels_have_goals_of_their_own():
    cells = [cell(str(k), k, operation="grad_weight", torch=2e-5 * k) for k in (3, 4, 5, 31)]
    table = rows(cells)
    small, large = (f"f32 NCHW grad_weight, kernels {size}: against torch in that layout, 1 thread" for size in SIZES)
    assert (table[small][0], table[small][3]) == (2, "3.00")
    assert (table[large][0], table[large][3]) == (2, "5.00")


SIZES = ("up to 4", "from 5")


def test_16_bit_is_compared_with_our_own_f32_where_bytes_are_the_limit():
    flops = cell("flops")
    flops["limit"]["bound"] = "flops"
    cells = [cell(ours=2e-5), cell(dtype="bf16", ours=1e-5), flops, cell("flops", dtype="bf16", ours=9e-5)]
    assert rows(cells)["bf16 layers bound by bytes: against our own f32, 1 thread"][:2] == [1, "2.00"]


def test_the_best_of_all_counts_torch_in_the_other_layout():
    nchw, nhwc = cell(torch=8e-5, onednn=6e-5), cell(layout="nhwc", torch=3e-5, onednn=7e-5)
    table = rows([nchw, nhwc])
    for layout in ("NCHW", "NHWC"):
        assert table[f"f32 {layout} forward: against the best of all at theirs, 1 thread"][3] == "1.50"
    assert not any("best of all" in kind for kind in rows([cell(torch=8e-5)]))


def test_no_share_of_the_limit_is_asked_of_a_call_of_microseconds():
    table = rows([cell("a"), cell("short", ours=9e-6, limit=1e-6)])
    assert table["f32 NCHW forward and grad_input: share of the limit, 1 thread"][:2] == [1, "0.50"]


@pytest.mark.parametrize(
    ("model", "step", "layout", "goal"),
    [
        ("mobilenet_v2", "training", "nchw", "1.25"),
        ("replknet_31b_stage1", "training", "nhwc", "15"),
        ("resnet", "inference", "nhwc", "1"),
        ("mobilenet_v2", "inference", "nchw", "-"),
    ],
)
def test_whole_models(model, step, layout, goal):
    record = {"model": model, "step": step, "layout": layout, "dtype": "f32", "batch": 1, "threads": 2}
    record["times"] = {"plain": {"median": 3.0}, "converted": {"median": 2.0}}
    ((kind, row),) = rows([], [record]).items()
    assert kind == f"f32 {layout.upper()} {model} N1 {step}: plain / converted, 2 threads"
    assert row[1:3] == ["1.50", goal]


def test_each_form_of_a_model_is_held_against_its_own():
    times = {"plain": 8.0, "converted": 4.0, "fused": 2.0, "frozen-fused": 1.0, "onnxruntime": 1.5, "frozen-plain": 3.0}
    record = {"model": "mobilenet_v2", "step": "inference", "layout": "nchw", "dtype": "f32", "batch": 1, "threads": 1}
    table = rows([], [{**record, "times": {name: {"median": seconds} for name, seconds in times.items()}}])
    start = "f32 NCHW mobilenet_v2 N1 inference: "
    assert {kind.removeprefix(start): row[1:3] for kind, row in table.items()} == {
        "plain / converted, 1 thread": ["2.00", "-"],
        "plain / fused, 1 thread": ["4.00", "1"],
        "onnxruntime / frozen-fused, 1 thread": ["1.50", "1"],
    }


def test_threads_are_apart_and_a_tiny_call_has_its_line():
    overhead = {"call": "module", "step": "no gradient", "times": {"ours": {"median": 1.0}, "torch": {"median": 4.0}}}
    table = rows([cell(torch=4e-5), cell(torch=4e-5, threads=2)], overhead=[overhead])
    assert sum("everything" in kind for kind in table) == 2
    assert table["a tiny module call, no gradient: torch / ours"][1:6] == ["4.00", "2.86", "4.00", "-", "yes"]

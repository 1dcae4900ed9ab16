"""Causal convolutions and layers of sequences: what is measured at small sizes, and the tables beside the targets."""

import json

import pytest
import torch

from benchmarks.sequences import __main__ as program
from benchmarks.sequences import measure, tables, targets
from benchmarks.sequences.targets import Size
from torch_dwconv.bench.timing import Options

QUICK = ["--samples", "1", "--min-ms", "0.01", "--sizes", "1"]


def timings(**milliseconds: float) -> dict:
    return {name: {"median": ms / 1e3} for name, ms in milliseconds.items()}


def test_means_and_the_worst_beside_their_targets():
    sizes = {"batch": 1, "channels": 2, "length": 3, "dtype": "f32", "layout": "ncl"}
    times = timings(copy=1, plain=2, silu=2, gradients=5, training=1, torch=16)
    slower = timings(copy=1, plain=1, silu=2, gradients=5, training=1, torch=9)
    _, headers, rows = tables.targets_table([{**sizes, "times": times}, {**sizes, "times": slower}])
    assert all(len(row) == len(headers) for row in rows)
    assert [row[3:] for row in rows] == [
        ["0.71 / 0.65 reached", "0.50 / 0.45 reached"],
        ["0.50 / 0.45 reached", "0.50 / 0.30 reached"],
        ["12.00 / 10.00 reached", "9.00 / 3.00 reached"],
        ["2.50 / 3.00 reached", "2.50"],
    ]


def test_16_bit_types_have_targets_of_their_own():
    record = {
        "dtype": "bf16",
        "layout": "nlc",
        "times": timings(copy=1, plain=4, silu=4, gradients=1, training=1, torch=1),
    }
    _, _, rows = tables.targets_table([record])
    assert [row[4] for row in rows[:2]] == ["0.25 / 0.30 NOT REACHED", "0.25 / 0.15 reached"]


def test_steps_beside_their_targets():
    record = {"batch": 1, "channels": 1536, "dtype": "f32", "times": timings(ours=0.006, slow=0.060)}
    _, headers, rows = tables.steps_table([record])
    assert rows == [
        ["1x1536", "f32", "6.00 / 5.00 NOT REACHED", "10.00"],
        ["geometric mean", "f32", "", "10.00 / 6.00 reached"],
    ]
    assert len(headers) == 4


@pytest.mark.parametrize("dtype", targets.DTYPES)
@pytest.mark.parametrize("layout", targets.LAYOUTS)
def test_sizes_are_compared_and_timed(dtype, layout):
    record = measure.measure(Size(2, 17, 33), dtype, layout, Options(1, 1e-5))
    assert record["times"].keys() == {"copy", "plain", "silu", "gradients", "training", "torch"}


def test_what_is_wrong_is_not_timed(monkeypatch):
    right = measure.by_us
    monkeypatch.setattr(measure, "by_us", lambda x, weight, bias: right(x, weight, bias) * 1.01)
    with pytest.raises(AssertionError, match="2x3x4, f32: results differ by 1e-02"):
        measure.measure(Size(2, 3, 4), "f32", "ncl", Options(1, 1e-5))
    monkeypatch.setattr(measure, "causal_conv1d_update", lambda x, *_: torch.zeros_like(x))
    with pytest.raises(AssertionError, match="a step of 1x8, f32: results differ"):
        measure.measure_step(1, 8, "f32", Options(1, 1e-5))


def test_a_run_can_be_read_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(targets, "SIZES", (Size(1, 16, 40),))
    assert program.main([*QUICK, "--dtypes", "f32", "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for words in ("share of a copy", "A step of decoding", "conformer-c512-1x1000-k1x31", "geometric mean"):
        assert words in shown
    assert program.main(["--read", str(tmp_path / "results.json")]) == 0
    assert capsys.readouterr().out == shown
    results = json.loads((tmp_path / "results.json").read_text())
    assert [len(results[kind]) for kind in ("sequences", "steps", "cells")] == [2, 1, 6]
    assert results["machine"]["command"].startswith("python -m benchmarks.sequences --samples 1")


def test_words_that_are_not_known_are_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["--kinds", "causal,other"])
    assert "must be among causal,steps,layers; got other" in capsys.readouterr().err

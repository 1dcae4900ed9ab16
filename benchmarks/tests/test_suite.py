"""What ``python -m benchmarks`` adds to the package's benchmark: presets, forms, goals; and what it refuses."""

import json

import pytest

from benchmarks.contestants import CONTESTANTS
from benchmarks.suite import SUITE
from torch_dwconv.bench import cli, estimate, runner
from torch_dwconv.bench.contestants import OURS
from torch_dwconv.bench.problem import LAYOUTS, OPERATIONS
from torch_dwconv.bench.timing import Options

QUICK = ["--samples", "2", "--min-ms", "0.01"]
STAGE = ["--model", "convnext_tiny_stage4", "--layouts", "nchw"]


def main(arguments):
    return runner.main(SUITE, arguments)


def _models(arguments, tmp_path):
    assert main([*STAGE, *arguments, "--output", str(tmp_path), *QUICK]) == 0
    return json.loads((tmp_path / "results.json").read_text())["models"]


def test_a_model_in_onnxruntime_and_its_goal(tmp_path, capsys):
    inference, training = _models(["--forms", "converted,fused,onnxruntime"], tmp_path)
    assert list(inference["times"]) == ["plain", "converted", "fused", "onnxruntime"]
    assert list(training["times"]) == ["plain", "converted"]
    assert set(inference["differences"]) == {"plain", "converted", "fused", "onnxruntime"}
    assert "plain / fused, 1 thread" in capsys.readouterr().out


def test_onnxruntime_takes_float32_only(tmp_path):
    inference, _ = _models(["--forms", "onnxruntime", "--dtypes", "bf16"], tmp_path)
    assert inference["refused"] == {"onnxruntime": "no torch.bfloat16"}


def test_goals_are_the_last_table(capsys):
    assert main(["--layer", "1,16,14,14,3,1", "--operations", "forward", *QUICK]) == 0
    last = capsys.readouterr().out.partition("By kind")[2]
    assert "f32 NCHW forward: against torch in that layout, 1 thread" in last


def test_a_preset_is_its_parts_with_what_stands_beside_it(tmp_path, capsys):
    """The smoke run: a cell of every kind, and the options beside the preset replace its own."""
    assert main(["--preset", "smoke", "--samples", "1", "--output", str(tmp_path)]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["cells"]) == 2 * 3 * 2 * 2 + 2 * 2  # layers, operations, layouts, threads; dtypes, layouts
    assert {cell["threads"] for cell in results["cells"]} == {1, 2}
    assert {cell["dtype"] for cell in results["cells"]} == {"f32", "bf16", "f16"}
    assert [model["step"] for model in results["models"]] == ["inference", "training"]
    assert len(results["overhead"]) == 6
    timings = [t for cell in results["cells"] for modes in cell["times"].values() for t in modes.values()]
    assert all(timing["samples"] == 1 for timing in timings)
    printed = capsys.readouterr()
    for title in ("A tiny call", "Whole models", "Geometric means", "By kind"):
        assert title in printed.out
    assert f"{28 + 2 + 1} cells, about 1 min" in printed.err
    assert {path.name for path in tmp_path.iterdir()} >= {
        "results.json",
        "results.md",
        "glance.png",
        "roofline-f32-1t.png",
    }


def test_the_published_run_is_about_twenty_minutes():
    """By the estimate; and the parts of it that the README shows are there."""
    parts = cli.parts_of(SUITE, ["--preset", "published"])
    seconds = 0
    for part in parts:
        those = [OURS, *(CONTESTANTS[name] for name in part.against)]
        how = Options(part.samples, part.min_ms / 1e3, part.max_s)
        seconds += sum(estimate.cell_seconds(cell, those, how) for cell in cli.cells_of(part))
    assert 300 < seconds < 1500
    cells = [cell for part in parts for cell in cli.cells_of(part)]
    assert {(cell.dtype, cell.layout, cell.operation) for cell in cells} == {
        (dtype, layout, operation) for dtype in ("f32", "bf16", "f16") for layout in LAYOUTS for operation in OPERATIONS
    }
    assert {cell.batch for cell in cells} == {1, 16, 32} and {cell.threads for cell in cells} == {1, 2}
    assert any("overhead" in part.extras for part in parts)
    assert {word for part in parts for word in part.against} == set(CONTESTANTS)


def test_an_unknown_preset_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--preset", "everything"])
    assert "invalid choice: 'everything'" in capsys.readouterr().err

"""Whole models against other engines: what is planned, and the tables beside the targets, from records by hand."""

import json

import pytest
import torch

from benchmarks.engines import __main__ as program
from benchmarks.engines import models, tables, targets
from benchmarks.forms import FORMS
from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.models.forms import Form


def record(model="mobilenet_v2", dtype="f32", batch=1, threads=1, flops=6e8, **times):
    """`times` are milliseconds; the FMA peak is 100 GFLOP/s."""
    timings = {
        name.replace("_", "-"): {"median": ms / 1e3, "low": ms / 1e3, "high": ms / 1e3} for name, ms in times.items()
    }
    cell = {"model": model, "dtype": dtype, "batch": batch, "threads": threads, "layout": "nchw", "step": "inference"}
    return {**cell, "flops": flops, "fma_flops_per_second": 1e11, "times": timings, "refused": {}}


def rows(records, capped=False):
    title, headers, rows = tables.target_table(records, capped)
    assert headers[2:] == ["batch 1, 1 thread", "batch 16, 1 thread", "batch 1, 2 threads"]
    assert all(len(row) == len(headers) for row in rows)
    return title, {(row[0], row[1]): row[2:] for row in rows}


def test_the_best_other_engine_stands_beside_the_target():
    title, table = rows(
        [
            record(fused=10, onnxruntime=13.1, openvino=14),
            record(batch=16, fused=10, onnxruntime=13, openvino=12),
            record(dtype="bf16", fused=5, openvino=6),
        ]
    )
    assert table["mobilenet_v2", "f32"] == [
        "1.31 (onnxruntime) / 1.30 reached",
        "1.20 (openvino) / 1.25 NOT REACHED",
        "-",
    ]
    assert table["mobilenet_v2", "bf16"] == ["1.20 (openvino) / 1.15 reached", "-", "-"]
    assert table["mobilenet_v2, of FMA peak", "f32"] == ["0.60 / 0.70 NOT REACHED", "0.60 / 0.65 NOT REACHED", "-"]
    assert ("mobilenet_v2, of FMA peak", "bf16") not in table
    assert title.endswith("2 of 5 targets reached")


@pytest.mark.parametrize(
    ("model", "dtype", "wanted"),
    [
        ("mobilenet_v1", "f32", [1.3, 1.25, 1.2]),
        ("efficientnet_b0", "f32", [1.2, 1.15, 1.1]),
        ("convnext_tiny", "f32", [1.15, 1.1, 1.1]),
        ("convnext_tiny", "bf16", [1.15, 1.1, 1.05]),
        ("resnet50", "f32", [None] * 3),
        ("convnext_tiny", "f16", [None] * 3),
    ],
)
def test_every_model_dtype_and_column_has_its_target(model, dtype, wanted):
    assert [targets.ratio_wanted(model, dtype, column) for column in targets.COLUMNS] == wanted


def test_of_several_runs_the_median_counts_and_the_mean_is_over_models():
    runs = [record(fused=1, onnxruntime=ratio, flops=None) for ratio in (1.0, 4.0, 2.0)]
    _, table = rows([*runs, record("convnext_tiny", fused=1, onnxruntime=8)])
    assert table["mobilenet_v2", "f32"][0] == "2.00 (onnxruntime) / 1.30 reached"
    assert table["geometric mean", "f32"] == ["4.00", "-", "-"]


def test_with_capped_instructions_only_the_mean_has_a_target():
    title, table = rows([record(fused=10, openvino=12.5, onnxruntime=10.5)], capped=True)
    assert table == {
        ("mobilenet_v2", "f32"): ["1.05 (onnxruntime)", "-", "-"],
        ("geometric mean", "f32"): ["1.05 / 1.10 NOT REACHED", "-", "-"],
        ("geometric mean, openvino alone", "f32"): ["1.25 / 1.10 reached", "-", "-"],
    }
    assert title.endswith("1 of 2 targets reached")


def test_a_cell_that_we_refused_has_no_ratio():
    _, table = rows([record(onnxruntime=10)])
    assert table["mobilenet_v2", "f32"] == table["mobilenet_v2, of FMA peak", "f32"] == ["-", "-", "-"]


def test_pytorch_is_taken_in_its_best_form():
    _, _, table = tables.pytorch_table(
        [
            record("a", fused=2, plain=9, plain_nhwc=8, compiled_plain=7, frozen_plain=4),
            record("b", fused=2, plain=1, plain_nhwc=8, compiled_plain=7, frozen_plain=4),
        ]
    )
    assert table[0][4:] == ["frozen-plain", "4.00", "2.00", "2.00", "1.00", "reached"]
    assert table[1][4:] == ["plain", "1.00", "2.00", "0.50", "1.00", "NOT REACHED"]
    assert table[2][4:] == ["2 cells", "", "", "1.00", "1.50", "NOT REACHED"]


def test_mobilenet_v1_is_the_paper_s():
    """569 million multiply-adds and 4.2 million parameters, table 8 there."""
    from torch.utils.flop_counter import FlopCounterMode

    model = models.mobilenet_v1().to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)
    assert round(counter.get_total_flops() / 2e6) == 569
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 4.2


def plan(*arguments, monkeypatch):
    monkeypatch.setattr(models, "find_model", lambda name: models.Model(name, models.mobilenet_v1))
    options = program.parser().parse_args(arguments)
    return program.cells_of(options), program.forms_of(options)


def test_the_whole_table_is_planned(monkeypatch):
    cells, forms = plan(monkeypatch=monkeypatch)
    assert len(set(cells)) == len(cells) == 8 * 3 * 2
    assert {(cell.batch, cell.threads) for cell in cells} == {(1, 1), (16, 1), (1, 2)}
    assert {cell.dtype for cell in cells} == {"f32", "bf16"} and {cell.step for cell in cells} == {"inference"}
    assert forms == ["fused", "plain-nhwc", "onnxruntime", "openvino"]


def test_twenty_models_are_planned_against_pytorch(monkeypatch):
    cells, forms = plan("--pytorch", "--forms", "backend", monkeypatch=monkeypatch)
    assert len({cell.model.name for cell in cells}) == len(cells) == 20
    assert forms == ["fused", *targets.PYTORCH, "backend"] and set(targets.PYTORCH) <= FORMS.keys()


def test_a_part_is_planned_and_what_is_not_there_is_said(monkeypatch, capsys):
    def find_model(name):
        raise ValueError(f"no model {name!r}")

    monkeypatch.setattr(models, "find_model", find_model)
    arguments = ["--models", "mobilenet_v1,other", "--columns", "1x2", "--dtypes", "bf16"]
    (cell,) = program.cells_of(program.parser().parse_args(arguments))
    assert (cell.model.name, cell.batch, cell.threads, cell.dtype) == ("mobilenet_v1", 1, 2, "bf16")
    assert "other: left out (no model 'other')" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--columns", "--dtypes", "--forms"])
def test_unknown_words_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        program.main([option, "8x8"])
    assert "must be among" in capsys.readouterr().err


def _refuse(model, images):
    raise Refused("not here")


def _run(tmp_path, monkeypatch, forms, *arguments):
    monkeypatch.setattr(program, "BOTH_LAYOUTS", {**FORMS, **forms})
    quick = ["--models", "mobilenet_v1", "--image-size", "32", "--samples", "1", "--max-s", "0.01"]
    status = program.main([*quick, *arguments, "--output", str(tmp_path)])
    return status, json.loads((tmp_path / "results.json").read_text())


@pytest.mark.serial
def test_the_command(tmp_path, monkeypatch, capsys):
    """With PyTorch in the place of the engines; and the benchmark of layers reads its results too."""
    forms = {"onnxruntime": Form(package="torch"), "openvino": Form(run=_refuse, package="no-such-package")}
    arguments = ["--columns", "1x1", "--dtypes", "f32,bf16", "--repeat", "2"]
    status, results = _run(tmp_path, monkeypatch, forms, *arguments)
    assert status == 0 and len(results["models"]) == 4 and results["failures"] == []
    machine = results["machine"]
    assert machine["command"].startswith("python -m benchmarks.engines --models mobilenet_v1 ")
    assert machine["contestants"] == {"torch": torch.__version__}
    printed = capsys.readouterr().out
    assert "Time of the best other engine (onnxruntime, openvino) / fused" in printed
    assert "- openvino: not here (4 of 4)" in printed
    assert printed == _printed_by(program.main, tmp_path, capsys)
    from benchmarks.suite import SUITE
    from torch_dwconv.bench import runner

    assert "mobilenet_v1" in _printed_by(lambda arguments: runner.main(SUITE, arguments), tmp_path, capsys)


def _printed_by(main, folder, capsys):
    assert main(["--read", str(folder / "results.json")]) == 0
    return capsys.readouterr().out


def test_a_wrong_form_of_ours_is_a_failure_and_not_the_end(tmp_path, monkeypatch, capsys):
    def wrong_for_bf16(model, images):
        return lambda images: model(images) * (2 if images.dtype == torch.bfloat16 else 1)

    forms = {"fused": Form(run=wrong_for_bf16), "onnxruntime": Form(), "openvino": Form(), "plain-nhwc": Form()}
    status, results = _run(tmp_path, monkeypatch, forms, "--columns", "1x1", "--dtypes", "bf16,f32")
    assert status == 1 and [record["dtype"] for record in results["models"]] == ["f32"]
    (failure,) = results["failures"]
    assert "mobilenet_v1 N1 inference bf16 nchw t1: AssertionError: the output of the fused model differs" in failure
    assert failure in capsys.readouterr().out

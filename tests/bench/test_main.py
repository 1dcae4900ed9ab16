"""The command: what it prints and writes, and what it refuses."""

import json
import subprocess
import sys

import pytest

import torch_dwconv
from torch_dwconv.bench import cli, contestants, estimate, forms, run
from torch_dwconv.bench.__main__ import main
from torch_dwconv.bench.problem import LAYOUTS, OPERATIONS

QUICK = ["--samples", "2", "--min-ms", "0.01"]
LAYERS = ["--layer", "1,16,14,14,3,1", "--layer", "2,6,9,9,5,2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    assert main([*LAYERS, *QUICK, "--operations", "forward,grad_weight", "--output", str(folder)]) == 0
    return folder


def test_the_json_says_what_was_measured_and_where(folder):
    results = json.loads((folder / "results.json").read_text())
    assert len(results["cells"]) == 2 * 2 * 2  # layers, operations, layouts
    machine = results["machine"]
    assert machine["torch_dwconv"] == torch_dwconv.__version__
    assert set(machine["contestants"]) == {"ours", "torch"}
    for key in ("cpu", "isa", "date", "cores", "commit"):
        assert key in machine


def test_plots_are_pngs(folder):
    names = {path.name for path in folder.glob("*.png")}
    assert {
        "roofline-f32-1t.png",
        "glance.png",
        "speedup-forward-f32-1t.png",
        "speedup-grad_weight-f32-1t.png",
    } <= names
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_an_earlier_result_is_shown_again(folder, capsys):
    assert main(["--read", str(folder / "results.json")]) == 0
    printed = capsys.readouterr().out
    assert "Geometric means" in printed
    assert printed.partition("By kind")[0].count("cli-c16-14x14-k3x3-s1x1") == 2 * 2 * 2  # operations, layouts, modes
    assert "By kind" in printed and "f32 NCHW forward: against torch in that layout, 1 thread" in printed
    assert (folder / "results.md").read_text().count("### ") == 2 * 2 + 2


def test_who_is_not_installed_is_left_out(monkeypatch, capsys):
    def load(name, load=contestants.load):
        if name == "litert":
            raise ImportError("No module named 'ai_edge_litert'")
        return load(name)

    monkeypatch.setattr(contestants, "load", load)
    arguments = ["--layer", "1,4,6,6,3,1", "--operations", "forward", "--layouts", "nchw", "--against", "litert,torch"]
    assert main([*arguments, *QUICK]) == 0
    captured = capsys.readouterr()
    assert "litert: left out (No module named 'ai_edge_litert')" in captured.err
    assert "torch µs (ratio)" in captured.out


def test_a_whole_model(capsys):
    arguments = ["--model", "mobilenet_v2", "--image-size", "32", "--batch", "2", "--layouts", "nhwc"]
    assert main([*arguments, *QUICK]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mobilenet_v2")]
    assert [line[1] for line in lines] == ["inference", "training"]
    assert all(float(line[-1].strip("()")) > 0 for line in lines)


def _forms(names, tmp_path):
    arguments = ["--model", "convnext_tiny_stage4", "--layouts", "nchw", "--forms", names, "--output", str(tmp_path)]
    assert main([*arguments, *QUICK]) == 0
    return json.loads((tmp_path / "results.json").read_text())["models"]


def test_forms_of_a_model(tmp_path, capsys):
    inference, training = _forms("converted,fused,onnxruntime", tmp_path)
    assert list(inference["times"]) == ["plain", "converted", "fused", "onnxruntime"]
    assert list(training["times"]) == ["plain", "converted"]
    assert set(inference["differences"]) == {"converted", "fused", "onnxruntime"}
    assert "plain / fused, 1 thread" in capsys.readouterr().out


@pytest.mark.slow
def test_compiled_forms_of_a_model(tmp_path, fresh_compiler):
    names = ["compiled-plain", "compiled-converted", "frozen-plain", "frozen-converted", "frozen-fused"]
    inference, training = _forms(",".join(names), tmp_path)
    assert list(inference["times"]) == ["plain", *names]
    assert list(training["times"]) == ["plain", *names[:2]]


def test_a_form_that_differs_is_noticed(monkeypatch):
    def wrong(plain, images):
        return lambda images: 2 * plain(images)

    monkeypatch.setitem(forms._FORMS, "fused", (forms._plain, wrong))
    with pytest.raises(AssertionError, match="the output of the fused model differs by"):
        main(["--model", "convnext_tiny_stage4", "--layouts", "nchw", "--forms", "fused", *QUICK])


def test_onnxruntime_takes_float32_only(tmp_path, capsys):
    arguments = ["--model", "convnext_tiny_stage4", "--layouts", "nchw", "--forms", "onnxruntime", "--dtypes", "bf16"]
    assert main([*arguments, "--output", str(tmp_path), *QUICK]) == 0
    inference, _ = json.loads((tmp_path / "results.json").read_text())["models"]
    assert inference["refused"] == {"onnxruntime": "no torch.bfloat16"}


def test_a_stage_of_depthwise_layers(capsys):
    arguments = ["--model", "convnext_tiny_stage4", "--threads", "2", "--dtypes", "f32,bf16", "--layouts", "nchw"]
    assert main([*arguments, *QUICK]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("convnext_tiny_stage4")]
    assert [line[1:6] for line in lines] == [
        [step, "1", dtype, "nchw", "2"] for dtype in ("f32", "bf16") for step in ("inference", "training")
    ]


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


def test_a_preset_leaves_out_models_that_are_not_installed(monkeypatch, capsys):
    def find_model(name, find=cli.find_model):
        if name == "convnext_tiny":
            raise ValueError("no model 'convnext_tiny' in examples")
        return find(name)

    monkeypatch.setattr(cli, "find_model", find_model)
    part = ["--model", "mobilenet_v2", "--model", "convnext_tiny", "--batch", "16"]
    assert cli._with_models_that_there_are(part) == ["--model", "mobilenet_v2", "--batch", "16"]
    assert "convnext_tiny: left out (no model 'convnext_tiny' in examples)" in capsys.readouterr().err
    assert cli._with_models_that_there_are(part[2:]) == []
    assert cli._with_models_that_there_are(["--overhead"]) == ["--overhead"]


def test_what_was_measured_survives_an_interrupt(monkeypatch, tmp_path, capsys):
    def measure(cell, *arguments, measured=run.measure):
        if cell.layout == "nhwc":
            raise KeyboardInterrupt
        return measured(cell, *arguments)

    monkeypatch.setattr(run, "measure", measure)
    assert main([*LAYERS, *QUICK, "--operations", "forward", "--output", str(tmp_path)]) == 0
    assert [cell["layout"] for cell in json.loads((tmp_path / "results.json").read_text())["cells"]] == ["nchw"] * 2
    assert "interrupted" in capsys.readouterr().err


def test_the_published_run_is_about_twenty_minutes():
    """By the estimate; and the parts of it that the README shows are there."""
    parts = cli.parts_of(["--preset", "published"])
    seconds = 0
    for part in parts:
        how = run.Options(part.samples, part.min_ms / 1e3, part.max_s)
        seconds += sum(estimate.cell_seconds(cell, ["ours", *part.against], how) for cell in cli.cells_of(part))
    assert 300 < seconds < 1500
    cells = [cell for part in parts for cell in cli.cells_of(part)]
    assert {(cell.dtype, cell.layout, cell.operation) for cell in cells} == {
        (dtype, layout, operation) for dtype in ("f32", "bf16", "f16") for layout in LAYOUTS for operation in OPERATIONS
    }
    assert {cell.batch for cell in cells} == {1, 16, 32} and {cell.threads for cell in cells} == {1, 2}
    assert any(part.overhead for part in parts)
    assert {word for part in parts for word in part.against} == set(contestants.OTHERS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "resnet"], "--layers must be a CSV file, all, or one of"),
        (["--layer", "1,2,3"], "--layer must be N,C,H,W,k,s"),
        (["--operations", "backward"], "must be among forward,grad_input,grad_weight; got backward"),
        (["--threads", "0"], "must be positive whole numbers"),
        (["--batch", "x"], "must be positive whole numbers"),
        (["--samples", "0"], "invalid positive int value: '0'"),
        (["--model", "no_such_model"], "no model 'no_such_model' in"),
        (["--model", "mobilenet_v2_stage2"], "do not follow one another"),
        (["--model", "replknet_31b_stage5"], "no model 'replknet_31b_stage5' in"),
        (["--max-s", "-1"], "invalid positive float value: '-1'"),
        (["--preset", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_what_the_command_needs_is_named(tmp_path):
    (tmp_path / "tabulate.py").write_text("raise ImportError(\"No module named 'tabulate'\")")
    command = (
        "import sys; sys.path.insert(0, sys.argv[1]); from torch_dwconv.bench.__main__ import main; sys.exit(main([]))"
    )
    result = subprocess.run([sys.executable, "-c", command, tmp_path], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install 'torch_dwconv[bench]'" in result.stderr

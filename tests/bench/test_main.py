"""The command: what it prints and writes, and what it refuses."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch._inductor.utils import run_and_get_code

import torch_dwconv
from torch_dwconv.bench import cells, cli, runner
from torch_dwconv.bench.contestants import OTHERS, Contestant
from torch_dwconv.bench.models import forms
from torch_dwconv.bench.models.forms import FORMS, Form
from torch_dwconv.bench.suite import SUITE

QUICK = ["--samples", "2", "--min-ms", "0.01"]
LAYERS = ["--layer", "1,16,14,14,3,1", "--layer", "2,6,9,9,5,2"]


def main(arguments, suite=SUITE):
    return runner.main(suite, arguments)


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
    assert printed.count("cli-c16-14x14-k3x3-s1x1") == 2 * 2 * 2  # operations, layouts, modes
    assert (folder / "results.md").read_text().count("### ") == 2 * 2 + 1


def test_who_is_not_installed_is_left_out(capsys):
    suite = replace(SUITE, contestants={**OTHERS, "absent": Contestant("an_engine_that_is_absent")})
    arguments = ["--layer", "1,4,6,6,3,1", "--operations", "forward", "--layouts", "nchw", "--against", "absent,torch"]
    assert main([*arguments, *QUICK], suite) == 0
    captured = capsys.readouterr()
    assert "absent: left out (No module named 'an_engine_that_is_absent')" in captured.err
    assert "torch µs (ratio)" in captured.out


def test_a_whole_model(capsys):
    arguments = ["--model", "mobilenet_v2", "--image-size", "32", "--batch", "2", "--layouts", "nhwc"]
    assert main([*arguments, *QUICK]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mobilenet_v2")]
    assert [line[1] for line in lines] == ["inference", "training"]
    assert all(float(line[-1].strip("()")) > 0 for line in lines)


def _forms(names, tmp_path, suite=SUITE):
    arguments = ["--model", "convnext_tiny_stage4", "--layouts", "nchw", "--forms", names, "--output", str(tmp_path)]
    assert main([*arguments, *QUICK], suite) == 0
    return json.loads((tmp_path / "results.json").read_text())["models"]


def test_forms_of_a_model(tmp_path):
    inference, training = _forms("converted,fused", tmp_path)
    assert list(inference["times"]) == ["plain", "converted", "fused"]
    assert list(training["times"]) == ["plain", "converted"]
    assert set(inference["differences"]) == {"plain", "converted", "fused"}
    assert inference["differences"]["plain"] == 0
    assert inference["flops"] == 2 * 768 * 7 * 7 * 49 * 3 and training["flops"] is None


def test_the_backend_is_a_form(tmp_path):
    inference, training = _forms("backend", tmp_path)
    assert list(inference["times"]) == ["plain", "backend"] and list(training["times"]) == ["plain"]
    assert inference["differences"]["backend"] < 1e-3 and not inference["refused"]


def test_an_unknown_backend_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "BACKEND", "no_such_backend")
    inference, _ = _forms("backend", tmp_path)
    assert inference["refused"] == {"backend": "torch.compile has no backend 'no_such_backend' here"}


def test_a_form_may_have_a_layout_of_its_own(tmp_path):
    inference, _ = _forms("plain-nhwc", tmp_path)
    assert {name: times["note"] for name, times in inference["times"].items()} == {
        "plain": "nchw",
        "plain-nhwc": "nhwc",
    }


def test_of_several_layouts_the_faster_one_is_timed(tmp_path):
    def slow_in_nchw(plain, images):
        times = 3 if images.is_contiguous() else 1
        return lambda images: [plain(images) for _ in range(times)][-1]

    suite = replace(SUITE, forms={**FORMS, "fused": Form(run=slow_in_nchw, layouts=("nchw", "nhwc"))})
    inference, _ = _forms("fused", tmp_path, suite)
    assert inference["times"]["fused"]["note"] == "nhwc"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda y: 2 * y, "AssertionError: the output of the other model differs by 1.0e+00"),
        (lambda y: y * float("nan"), "AssertionError: the output of the other model differs by inf"),
        (lambda y: y[0, 0, 0, 99], "IndexError: index 99 is out of bounds for dimension 3 with size 7"),
    ],
    ids=["values", "nan", "raises"],
)
def test_another_engine_that_is_wrong_is_left_out(change, reason, tmp_path):
    def wrong(plain, images):
        return lambda images: change(plain(images))

    suite = replace(SUITE, forms={**FORMS, "other": Form(run=wrong, package="other")})
    inference, _ = _forms("other", tmp_path, suite)
    assert list(inference["times"]) == ["plain"] and inference["refused"] == {"other": reason}


@pytest.mark.slow
def test_compiled_forms_of_a_model(tmp_path, fresh_compiler):
    names = ["compiled-plain", "compiled-converted", "frozen-plain", "frozen-converted", "frozen-fused"]
    inference, training = _forms(",".join(names), tmp_path)
    assert list(inference["times"]) == ["plain", *names]
    assert list(training["times"]) == ["plain", *names[:2]]


@pytest.mark.slow
def test_the_compiled_plain_model_is_pytorchs_own(fresh_compiler):
    """Depthwise layers too, although this package is imported."""
    model, images = (
        torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.BatchNorm2d(8)),
        torch.ones(2, 8, 9, 9),
    )
    compiled = FORMS["compiled-plain"].make(model, images)
    _, code = run_and_get_code(lambda: compiled.train()(images).sum().backward())
    assert len(code) == 2 and all("aten.convolution" in text or "extern_kernels.convolution" in text for text in code)
    assert not any("torch_dwconv" in text for text in code)


def test_a_form_that_differs_is_noticed():
    def doubled(plain, images):
        return lambda images: 2 * plain(images)

    suite = replace(SUITE, forms={**FORMS, "fused": Form(run=doubled)})
    with pytest.raises(AssertionError, match="the output of the fused model differs by"):
        main(["--model", "convnext_tiny_stage4", "--layouts", "nchw", "--forms", "fused", *QUICK], suite)


def test_a_stage_of_depthwise_layers(capsys):
    arguments = ["--model", "convnext_tiny_stage4", "--threads", "2", "--dtypes", "f32,bf16", "--layouts", "nchw"]
    assert main([*arguments, *QUICK]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("convnext_tiny_stage4")]
    assert [line[1:6] for line in lines] == [
        [step, "1", dtype, "nchw", "2"] for dtype in ("f32", "bf16") for step in ("inference", "training")
    ]


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
    def measure(cell, *arguments, measured=cells.measure):
        if cell.layout == "nhwc":
            raise KeyboardInterrupt
        return measured(cell, *arguments)

    monkeypatch.setattr(cells, "measure", measure)
    assert main([*LAYERS, *QUICK, "--operations", "forward", "--output", str(tmp_path)]) == 0
    assert [cell["layout"] for cell in json.loads((tmp_path / "results.json").read_text())["cells"]] == ["nchw"] * 2
    assert "interrupted" in capsys.readouterr().err


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
        (["--preset", "published"], "unrecognized arguments: --preset published"),
        (["--against", "onednn"], "must be among torch; got onednn"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_what_the_command_needs_is_named(tmp_path):
    (tmp_path / "tabulate.py").write_text("raise ImportError(\"No module named 'tabulate'\")")
    command = (
        "import sys; sys.path.insert(0, sys.argv[1]); from torch_dwconv.bench import runner, suite; "
        "sys.exit(runner.main(suite.SUITE, []))"
    )
    result = subprocess.run([sys.executable, "-c", command, tmp_path], capture_output=True, text=True)
    assert result.returncode == 1
    assert "pip install 'torch-depthwise[bench]'" in result.stderr

"""The command: what it prints and writes, and what it refuses."""

import json
import subprocess
import sys

import pytest

import torch_dwconv
from torch_dwconv.bench import contestants
from torch_dwconv.bench.__main__ import main

QUICK = ["--samples", "2", "--min-ms", "0.01"]
LAYERS = ["--layer", "1,16,14,14,3,1", "--layer", "2,6,9,9,5,2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    assert main([*LAYERS, *QUICK, "--maps", "forward,grad_weight", "--output", str(folder)]) == 0
    return folder


def test_the_json_says_what_was_measured_and_where(folder):
    results = json.loads((folder / "results.json").read_text())
    assert len(results["cells"]) == 2 * 2 * 2  # layers, maps, layouts
    machine = results["machine"]
    assert machine["torch_dwconv"] == torch_dwconv.__version__
    assert set(machine["contestants"]) == {"ours", "torch"}
    for key in ("cpu", "isa", "date", "cores", "commit"):
        assert key in machine


def test_plots_are_pngs(folder):
    names = {path.name for path in folder.glob("*.png")}
    assert {"roofline.png", "speedup-forward-f32-1t.png", "speedup-grad_weight-f32-1t.png"} <= names
    for name in names:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_an_earlier_result_is_shown_again(folder, capsys):
    assert main(["--read", str(folder / "results.json")]) == 0
    printed = capsys.readouterr().out
    assert "Geometric means" in printed
    assert printed.count("cli-c16-14x14-k3x3-s1x1") == 2 * 2 * 2  # maps, layouts, modes
    assert (folder / "results.md").read_text().count("### ") == 2 * 2 + 1


def test_who_is_not_installed_is_left_out(monkeypatch, capsys):
    def load(name, load=contestants.load):
        if name == "litert":
            raise ImportError("No module named 'ai_edge_litert'")
        return load(name)

    monkeypatch.setattr(contestants, "load", load)
    arguments = ["--layer", "1,4,6,6,3,1", "--maps", "forward", "--layouts", "nchw", "--against", "litert,torch"]
    assert main([*arguments, *QUICK]) == 0
    captured = capsys.readouterr()
    assert "litert: left out (No module named 'ai_edge_litert')" in captured.err
    assert "torch µs (ratio)" in captured.out


def test_a_whole_model(capsys):
    arguments = ["--model", "mobilenet_v2", "--image-size", "32", "--batch", "2", "--layouts", "nhwc"]
    assert main([*arguments, *QUICK]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("mobilenet_v2")]
    assert [line[1] for line in lines] == ["inference", "training"]
    assert all(float(line[-1]) > 0 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "resnet"], "--layers must be a CSV file, all, or one of"),
        (["--layer", "1,2,3"], "--layer must be N,C,H,W,k,s"),
        (["--maps", "backward"], "must be among forward,grad_input,grad_weight; got backward"),
        (["--threads", "0"], "must be positive whole numbers"),
        (["--batch", "x"], "must be positive whole numbers"),
        (["--samples", "0"], "invalid positive int value: '0'"),
        (["--model", "no_such_model"], "no model 'no_such_model' in"),
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

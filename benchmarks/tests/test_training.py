"""Training steps and BatchNorm: what is measured at small sizes, and the tables beside the targets."""

import json
import math

import pytest
import torch

from benchmarks.training import __main__ as program
from benchmarks.training import curves, memory, norms, tables, targets
from benchmarks.training.targets import Norm
from torch_dwconv.bench.timing import Options

QUICK = Options(1, 1e-4)


def timing(ms: float) -> dict:
    return {"median": ms / 1e3}


def test_steps_beside_their_targets():
    times = {"plain": timing(17), "converted": timing(15), "blocks": timing(10), "compiled-plain": timing(11)}
    record = {"model": "mobilenet_v2", "layout": "nchw", "times": times}
    other = {"model": "other", "layout": "nhwc", "times": {"plain": timing(9), "blocks": timing(10)}}
    title, headers, rows = tables.steps_table([record, other])
    assert headers[2:6] == ["plain ms", "converted ms", "blocks ms", "compiled-plain ms"]
    assert rows[0] == [
        "mobilenet_v2", "nchw", "17.0", "15.0", "10.0", "11.0", "1.70 / 1.70 reached", "1.10 / 1.15 NOT REACHED"
    ]  # fmt: skip
    assert rows[1] == ["other", "nhwc", "9.0", "-", "10.0", "-", "0.90", "-"]
    assert "2 threads" in title


def test_memory_beside_its_target():
    records = [
        {"model": "demo", "layout": "nchw", "bytes": {"plain": 100e6, "blocks": 80e6}},
        {"model": "demo", "layout": "nhwc", "bytes": {"plain": 100e6, "blocks": 90e6}},
    ]
    _, headers, rows = tables.memory_table(records)
    assert all(len(row) == len(headers) for row in rows)
    assert [row[-1] for row in rows] == ["0.80 / 0.80 reached", "0.90 / 0.80 NOT REACHED"]


def test_means_of_norms_beside_their_targets():
    def record(forward, backward):
        times = {"torch forward": forward, "ours forward": 1, "torch backward": backward, "ours backward": 1}
        norm = Norm(2, 3, 4, "relu")._asdict()
        return {**norm, "layout": "nhwc", "times": {name: timing(ms) for name, ms in times.items()}}

    _, headers, rows = tables.norms_table([record(2, 1), record(8, 2)])
    assert rows[0] == ["2x3x4x4", "relu", "nhwc", "2.00", "1.00"]
    assert rows[2] == ["geometric mean", "", "nhwc", "4.00 / 4.00 reached", "1.41 / 2.00 NOT REACHED"]
    assert all(len(row) == len(headers) for row in rows)


def test_peak_of_a_call():
    """Two tensors are held at once, the first one is freed before the third comes."""
    megabyte = 1 << 18  # of float32

    def call():
        first = torch.empty(megabyte)
        second = torch.empty(2 * megabyte)
        del first
        third = torch.empty(megabyte)
        del second, third

    assert memory.peak_bytes(call) == pytest.approx(3 << 20, rel=0.01)


@pytest.mark.parametrize("layout", targets.LAYOUTS)
@pytest.mark.parametrize("activation", [None, "relu6"])
def test_norms_are_compared_and_timed(layout, activation):
    record = norms.measure(Norm(2, 5, 6, activation), layout, QUICK)
    assert record["times"].keys() == {"ours forward", "ours backward", "torch forward", "torch backward"}
    json.dumps(record)


def test_a_norm_that_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(norms, "_ours", lambda x, weight, bias, activation: norms._torch(x, weight, bias, "relu"))
    with pytest.raises(AssertionError, match="gradients differ by"):
        norms.measure(Norm(2, 5, 6, None), "nchw", QUICK)


def test_a_small_run(monkeypatch, capsys, tmp_path):
    demo = targets.CASES["demo"]
    monkeypatch.setitem(targets.CASES, "demo", demo._replace(batch=2, image_size=16))
    monkeypatch.setattr(targets, "NORMS", (Norm(2, 5, 6, "silu"),))
    assert (
        program.main(f"--models demo --no-compiled --layouts nhwc --samples 1 --max-s 0 --output {tmp_path}".split())
        == 0
    )
    printed = capsys.readouterr().out
    assert "plain / blocks" in printed and "2x5x6x6" in printed and "Peak memory" in printed
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["memory"][0]["bytes"]["blocks"] < results["memory"][0]["bytes"]["plain"]
    assert list(results["models"][0]["times"]) == ["plain", "converted", "blocks"]
    assert program.main(["--read", str(tmp_path / "results.json")]) == 0
    assert "plain / blocks" in capsys.readouterr().out


class Small(torch.nn.Sequential):
    """A depthwise convolution, BatchNorm, dropout and a classifier."""

    def __init__(self):
        layers = torch.nn.Conv2d(3, 6, 3, groups=3), torch.nn.BatchNorm2d(6), torch.nn.ReLU6(), torch.nn.Dropout()
        super().__init__(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 4))


def small_results(monkeypatch, tmp_path) -> dict:
    monkeypatch.setattr(targets, "CASES", {"small": targets.Case("small", Small, 3, 9, (1.0, None))})
    monkeypatch.setattr(targets, "NORMS", ())
    arguments = f"--models small --layouts nchw --samples 1 --max-s 0 --output {tmp_path}"
    assert program.main(arguments.split()) == 0
    return json.loads((tmp_path / "results.json").read_text())


@pytest.mark.slow
def test_the_compiled_plain_model_takes_part(monkeypatch, capsys, tmp_path, fresh_compiler):
    """With its loss compared, although there is dropout."""
    (record,) = small_results(monkeypatch, tmp_path)["models"]
    assert list(record["times"]) == ["plain", "converted", "blocks", "compiled-plain"]
    assert "/ 1.15 " in capsys.readouterr().out


def test_a_compiled_model_with_another_loss_is_not_timed(monkeypatch, tmp_path):
    class Halved(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model
            self.train(model.training)

        def forward(self, x):
            return self.model(x) / (2 if self.training else 1)

    form = program.FORMS["compiled-plain"]._replace(run=lambda model, images: Halved(model))
    monkeypatch.setitem(program.FORMS, "compiled-plain", form)
    with pytest.raises(AssertionError, match=r"the loss of the compiled-plain model is .*, that of the plain one"):
        small_results(monkeypatch, tmp_path)


def test_unknown_models_are_refused(capsys):
    with pytest.raises(SystemExit):
        program.main(["--models", "resnet50"])
    assert "must be among demo,mobilenet_v2" in capsys.readouterr().err


def test_curves(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(curves, "SIZE", 32)
    assert curves.main(2, tmp_path) == 0
    found = json.loads((tmp_path / "curves.json").read_text())
    assert list(found) == ["plain", "blocks", "plain, nudged"] and all(len(values) == 2 for values in found.values())
    assert found["blocks"][0] == pytest.approx(found["plain"][0], rel=1e-4) and not math.isnan(found["blocks"][1])
    assert "apart in the first step" in capsys.readouterr().out
    assert (tmp_path / "curves.svg").stat().st_size > 1000

"""examples/train_mobilenetv2.py: runs, stops, goes on, on a handful of digits at a quarter of the width."""

import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import train_mobilenetv2
import training
from PIL import Image

import torch_dwconv

PROGRAM = Path(train_mobilenetv2.__file__)
# One thread: the work of a step is too small to share. The package is the one that this process tests.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(torch_dwconv.__file__).parents[1])}
TINY = ["--limit", "48", "--size", "8", "--width", "0.25", "--epochs", "2", "--batch-size", "8", "--device", "cpu"]
STEPS = 6  # in an epoch of TINY


def train(output, *arguments):
    return train_mobilenetv2.main([*TINY, "--output", str(output), *arguments])


def checkpoint(output):
    return torch.load(output / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """The output folder of a run that was never interrupted."""
    output = tmp_path_factory.mktemp("whole")
    assert train(output) == 0
    return output


def interrupt_at(monkeypatch, step_number):
    """Sends Ctrl-C to this process during the given step, counted from 0 over the whole run."""
    step, count = training.Learner.step, iter(range(1000))

    def interrupted_step(self, *arguments):
        if next(count) == step_number:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(training.Learner, "step", interrupted_step)


def assert_same(first, second, place=""):
    assert type(first) is type(second), place
    if isinstance(first, dict):
        assert first.keys() == second.keys(), place
        for key in first:
            assert_same(first[key], second[key], f"{place}/{key}")
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), place
        for index, pair in enumerate(zip(first, second, strict=True)):
            assert_same(*pair, f"{place}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), place
    else:
        assert first == second, place


@pytest.mark.parametrize("step", [0, STEPS - 1, STEPS + 2], ids=["first step", "last of an epoch", "second epoch"])
def test_resumed_run_equals_the_whole_run(tmp_path, monkeypatch, whole_run, step):
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        assert train(tmp_path) == 130
    stopped = checkpoint(tmp_path)["progress"]
    assert stopped["epoch"] * STEPS + stopped["step"] == step + 1
    assert train(tmp_path, "--resume") == 0
    assert_same(checkpoint(tmp_path), checkpoint(whole_run))


def test_a_finished_run_resumes_to_itself(tmp_path, whole_run, capsys):
    before = checkpoint(whole_run)
    assert train(whole_run, "--resume") == 0
    assert_same(checkpoint(whole_run), before)
    assert "Test accuracy" in capsys.readouterr().out


def test_another_seed_gives_another_run(tmp_path, whole_run):
    assert train(tmp_path, "--seed", "1") == 0
    assert checkpoint(tmp_path)["progress"]["losses"] != checkpoint(whole_run)["progress"]["losses"]


def test_curves_are_a_picture(whole_run):
    with Image.open(whole_run / "curves.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("L").getcolors(256)) > 10  # not an empty canvas


def test_channels_last_gives_the_same_first_loss(tmp_path, whole_run):
    assert train(tmp_path, "--channels-last") == 0
    losses, plain = (checkpoint(output)["progress"]["losses"] for output in (tmp_path, whole_run))
    assert losses[0] == pytest.approx(plain[0], rel=1e-4)
    assert all(map(math.isfinite, losses))


def test_bfloat16_gives_about_the_same_first_loss(tmp_path, whole_run):
    assert train(tmp_path, "--amp", "bfloat16") == 0
    losses, plain = (checkpoint(output)["progress"]["losses"] for output in (tmp_path, whole_run))
    # Batch normalisation over 8 images of 1x1 enlarges the rounding; equal losses would mean that nothing was rounded.
    assert losses[0] == pytest.approx(plain[0], rel=0.1) and losses[0] != plain[0]
    assert all(map(math.isfinite, losses))


def test_compare_prints_losses_times_and_agreement(tmp_path, capsys):
    assert train(tmp_path, "--compare") == 0
    out, err = capsys.readouterr()
    assert err == ""  # no progress bar: this is no terminal
    *ours, plain = re.findall(r"first-step loss ([\d.]+), median step [\d.]+ ms", out)
    assert len(ours) == 2
    assert [float(loss) for loss in ours] == pytest.approx([float(plain)] * 2, abs=1e-5)
    for name in ("DepthwiseConv2d", "with blocks"):
        assert re.search(rf"nn.Conv2d takes [\d.]+x the time of {name}", out)
    assert float(re.search(r"logits differ by at most (\S+)", out)[1]) < 1e-3


def test_bad_data_path_gives_one_sentence(tmp_path, capsys):
    assert train(tmp_path, "--data", str(tmp_path / "nowhere")) == 2
    err = capsys.readouterr().err
    assert err == f"train_mobilenetv2.py: There is no folder {tmp_path / 'nowhere'}.\n"


def test_too_few_images_give_one_sentence(tmp_path, capsys):
    assert train(tmp_path, "--batch-size", "64") == 2
    assert "48 training and 48 test images are too few for --batch-size 64" in capsys.readouterr().err


def test_unusable_checkpoints_give_one_sentence(tmp_path, whole_run, capsys):
    path = tmp_path / "checkpoint.pt"
    whole = (whole_run / "checkpoint.pt").read_bytes()

    def refusal(*arguments):
        assert train(tmp_path, "--resume", *arguments) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        return err

    assert "There is no checkpoint" in refusal()
    path.write_bytes(whole[: len(whole) // 2])
    assert "is not a whole checkpoint" in refusal()
    path.write_bytes(b"")
    assert "is not a whole checkpoint" in refusal()
    torch.save({"model": {}}, path)
    assert "is not a checkpoint of this program" in refusal()
    path.write_bytes(whole)
    assert "was made with epochs = 2, not 3" in refusal("--epochs", "3")


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch, whole_run):
    config = training.Config(**checkpoint(whole_run)["config"])
    path = tmp_path / "checkpoint.pt"
    training.save_checkpoint(path, {"value": 1}, config)

    def full_disk(state, file):
        file.write(b"half a check")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        training.save_checkpoint(path, {"value": 2}, config)
    assert training.load_checkpoint(path, config)["value"] == 1


def test_ctrl_c_leaves_a_usable_checkpoint(tmp_path):
    arguments = [*TINY, "--output", str(tmp_path)]
    arguments[arguments.index("--epochs") + 1] = "1000"
    command = [sys.executable, str(PROGRAM), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        for line in process.stdout:
            if line.startswith("epoch 1:"):
                break
        time.sleep(0.2)  # somewhere inside the next epochs
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "--resume goes on from" in rest
    progress = checkpoint(tmp_path)["progress"]
    assert len(progress["losses"]) == progress["epoch"] * STEPS + progress["step"] >= STEPS


def test_torchrun_trains_on_two_processes(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(PROGRAM)]
    subprocess.run([*command, *TINY, "--output", str(tmp_path)], check=True, env=ENVIRONMENT, timeout=120)
    state = checkpoint(tmp_path)
    assert state["config"]["world_size"] == 2
    assert state["progress"]["epoch"] == 2
    assert all(map(math.isfinite, state["progress"]["losses"]))


@pytest.mark.slow
def test_compiled_training(tmp_path, whole_run):
    assert train(tmp_path, "--compile") == 0
    losses, plain = (checkpoint(output)["progress"]["losses"] for output in (tmp_path, whole_run))
    assert losses[0] == pytest.approx(plain[0], rel=0.1)  # inductor draws other numbers for dropout
    assert all(map(math.isfinite, losses))


@pytest.mark.slow
def test_digits_reach_98_percent(tmp_path):
    assert train_mobilenetv2.main(["--output", str(tmp_path)]) == 0
    rows = checkpoint(tmp_path)["progress"]["epochs"]
    assert len(rows) == 8
    assert rows[-1]["test_accuracy"] >= 0.98

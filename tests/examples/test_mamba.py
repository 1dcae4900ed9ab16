"""examples/mamba_generate.py: its two forms of the model agree, it learns, and it runs from end to end."""

import math
import re

import mamba_generate
import pytest
import torch
from mamba import CONVOLUTIONS, Mamba
from PIL import Image

TINY = ["--width", "16", "--layers", "2", "--length", "24", "--batch-size", "4", "--letters", "20"]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Mamba(11, width=16, layers=2, heads=4, states=8).double()


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_steps_are_the_sequence(model, name):
    tokens = torch.randint(11, (3, 15))
    expected = model.convolve_by("PyTorch")(tokens)
    model.convolve_by(name)
    torch.testing.assert_close(model(tokens), expected)
    with torch.no_grad():
        states = model.new_states(batch=3)
        steps = [model.step(tokens[:, i], states) for i in range(15)]
    torch.testing.assert_close(torch.stack(steps, 1), expected.detach())


def test_it_sees_the_past_only(model):
    tokens = torch.randint(11, (1, 15))
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % 11
    equal = torch.isclose(model(tokens), model(changed), rtol=1e-12).all(2)[0]
    assert equal[:9].all() and not equal[9:].any()


def test_a_run(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("the cat sat on the mat; " * 60, encoding="utf-8")
    output = tmp_path / "out"
    arguments = [*TINY, "--text", str(text), "--output", str(output), "--steps", "60", "--learning-rate", "0.01"]
    assert mamba_generate.main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""  # no progress bar: this is no terminal
    # 12 letters: a model that has learnt nothing has a loss of 2.5.
    assert float(re.search(r"has not seen: ([\d.]+)", out)[1]) < 0.8 * math.log(12)
    assert all(re.search(rf"{name} +\d+ letters/s generated, +[\d.]+ ms", out) for name in CONVOLUTIONS)
    assert "Both wrote the same text" in out
    with Image.open(output / "loss.png") as image:
        assert image.format == "PNG" and len(image.convert("L").getcolors(256)) > 10


def test_python_documents_itself(tmp_path, capsys):
    assert mamba_generate.main([*TINY, "--output", str(tmp_path), "--steps", "2"]) == 0
    assert len(mamba_generate.documentation()) > 100_000
    assert "\nThe " in capsys.readouterr().out


def test_texts_that_cannot_be_used_give_one_sentence(tmp_path, capsys):
    (tmp_path / "short").write_text("abc")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for name, message in (("nowhere", "cannot be read"), ("bytes", "cannot be read"), ("short", "is too short")):
        assert mamba_generate.main([*TINY, "--text", str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    for wrong in (["--steps", "0"], ["--width", "6"], ["--temperature", "0"]):
        with pytest.raises(SystemExit):
            mamba_generate.main([*TINY, *wrong])


def test_rare_letters_share_a_number():
    text = mamba_generate.Text("aaabbc" * 50, most=2)
    assert text.letters == "\ufffdab"
    assert text.encode("abcx").tolist() == [1, 2, 0, 0]
    assert text.decode([1, 2, 0]) == "ab\ufffd"
    assert len(text.train) + len(text.test) == 300 and len(text.test) == 15

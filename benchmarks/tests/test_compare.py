"""Two builds against each other: who is called slower, and that each build is timed as it is."""

import json
import shutil

import numpy as np
import pytest
import torch

from benchmarks.compare import report
from benchmarks.compare.__main__ import main
from benchmarks.compare.processes import ROOT, Pair, Subject, Times, difference
from benchmarks.compare.worker import digest_of
from torch_dwconv.bench.layers import parse_layer
from torch_dwconv.bench.problem import Cell

QUICK = ["--rounds", "1", "--turns", "1", "--min-ms", "0.01", "--looks", "1", "--again", "1"]
FUNCTION = Subject("tiny", "function", "no gradient")


def cell(text="1,8,14,14,3,1", operation="forward"):
    batch, layer = parse_layer(text)
    return Subject("cell", Cell(layer, batch, operation, "f32", "nchw", 1), "reused")


def rounds(*ratios, before=1e-4, difference=0.0):
    return [Times(before, before / ratio, difference) for ratio in ratios]


def test_only_what_is_below_the_limit_is_timed_again_the_worst_first():
    first = {cell("1,8,9,9,3,1"): rounds(0.9, 1.2, 0.95), cell(): rounds(0.5, 0.8, 1.3), FUNCTION: rounds(0.98, 0.98)}
    assert report.suspects(first, 0.97) == [cell(), cell("1,8,9,9,3,1")]


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((0.9, 0.92, 0.96), "SLOWER"),
        ((0.9, 0.92, 1.01), "unclear"),
        ((0.9, 0.98, 0.99), "not slower"),
        ((1.2, 1.1, 1.3), "not slower"),
    ],
)
def test_the_second_look_decides(ratios, words):
    (verdict,) = report.verdicts({cell(): rounds(*ratios)}, 0.97)
    assert verdict.words == words


def test_one_undisturbed_sample_of_each_build_makes_it_unclear():
    disturbed = [Times(1e-4, 1.2e-4, 0.0), Times(1e-4, 1.1e-4, 0.0), Times(1.005e-4, 1.01e-4, 0.0)]
    (verdict,) = report.verdicts({cell(): disturbed}, 0.97)
    assert report.median_ratio(disturbed) < 0.97 < report.shortest_ratio(disturbed)
    assert verdict.words == "unclear"


def test_means_are_of_each_operation_and_of_each_round():
    first = {
        cell("1,8,9,9,3,1"): rounds(1.0, 4.0, before=1e-6),
        cell(): rounds(1.0, 1.0),
        cell(operation="grad_weight"): rounds(0.5, 0.5),
    }
    (_, _, groups), (_, _, short), *_ = report.tables(first, {}, 0.97)
    assert groups[0] == ["forward", "f32", "nchw", 1, 2, "1.581", "1.000 to 2.000", "1.00"]
    assert groups[1] == ["grad_weight", "f32", "nchw", 1, 1, "0.500", "0.500 to 0.500", "0.50"]
    assert groups[2][4:] == [3, "1.077", "0.794 to 1.260", "0.50"]
    assert short == [["forward", "f32", "nchw", 1, 1, "2.500", "1.000 to 4.000", "2.50"]]


def test_other_numbers_are_said():
    first = {cell(): rounds(1.0, 1.0), FUNCTION: [*rounds(1.0), *rounds(1.0, difference=1e-7)]}
    assert report.other_bits(first) == ["tiny function, no gradient: 1.0e-07"]


def test_a_difference_is_relative_and_infinite_for_what_cannot_be_compared():
    ones = np.ones((2, 2))
    assert difference(ones, ones * 1.5) == pytest.approx(0.5)
    assert difference(ones, np.ones((2, 1))) == difference(ones, ones * np.nan) == np.inf


def test_a_digest_sees_every_bit():
    zeros = torch.zeros(3, dtype=torch.bfloat16)
    assert digest_of(zeros) == digest_of(zeros.clone()) != digest_of(-zeros)
    assert digest_of(None) == ""


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A build whose function takes a millisecond more and returns a hundredth more."""
    folder = tmp_path_factory.mktemp("changed")
    shutil.copytree(ROOT / "torch_dwconv", folder / "torch_dwconv", ignore=shutil.ignore_patterns("bench", "lib"))
    (folder / "torch_dwconv" / "lib").symlink_to(ROOT / "torch_dwconv" / "lib")
    with (folder / "torch_dwconv" / "__init__.py").open("a") as file:
        file.write(
            "\nimport time\n"
            "def depthwise_conv2d(*arguments, right=depthwise_conv2d):\n"
            "    time.sleep(1e-3)\n"
            "    return right(*arguments) * 1.01\n"
        )
    return folder


@pytest.mark.serial
def test_each_build_is_timed_as_it_is(changed):
    with Pair([changed, ROOT], turns=2, min_seconds=1e-4) as pair:
        tiny, layer = pair.time(FUNCTION), pair.time(cell())
    assert tiny.before > 1e-3 > tiny.after
    assert tiny.difference == pytest.approx(0.01 / 1.01, rel=1e-3)
    assert layer.difference == 0 and layer.ratio < 10


@pytest.mark.slow
@pytest.mark.serial
def test_the_command(changed, tmp_path, capsys):
    output = tmp_path / "times.json"
    arguments = ["--layer", "1,16,14,14,3,1", "--operations", "forward", "--dtypes", "f32,bf16", *QUICK]
    assert main([str(ROOT), str(changed), *arguments, "--output", str(output)]) == 1
    printed = capsys.readouterr().out
    for line in (
        "Geometric means of before / after",
        "Of those, calls under 15 µs",
        "and timed again, in other processes",
        "SLOWER",
    ):
        assert line in printed
    assert "tiny function, no gradient: 1.0e-02" in printed
    written = json.loads(output.read_text())
    assert len(written["first"]) == 2 * 2 + 6 and "tiny function, no gradient" in written["again"]


def test_a_build_that_cannot_be_loaded_is_said(tmp_path, capfd):
    with pytest.raises(RuntimeError, match="ended, see above"), Pair([tmp_path, ROOT], 1, 1e-4) as pair:
        pair.time(FUNCTION)
    assert f"is not in {tmp_path}" in capfd.readouterr().err

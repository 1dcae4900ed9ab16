"""The checks hold: each catches the kernels with the fault it is there for, and lets the sound one through."""

import pytest

from tests.kernels.harness import CHECKS, PLACEMENTS, extension, failures, planted
from tests.kernels.shapes import Shape

# Kernel 3x3 over 7 columns in 3 channels: no vector width divides any of it, no buffer is a whole number of pages.
SHAPE = Shape(2, 3, 1, 6, 7, 3, 3, 6, 7, pad_top=1, pad_left=1)


def caught(fault: str, *checks: str, **options) -> str:
    return "\n".join(failures([planted()[fault]], SHAPE, checks, **options))


@pytest.mark.parametrize("with_bias", [True, False])
def test_sound_kernel_passes_every_check(with_bias):
    for seed in range(5):
        assert caught("none", *CHECKS, "threads", placements=PLACEMENTS, with_bias=with_bias, seed=seed) == ""


@pytest.mark.parametrize(
    ("fault", "placement", "message"),
    [
        ("reads_after_input", "back", "0 bytes after the end of input"),
        ("reads_before_input", "front", "4 bytes before input"),
        ("reads_after_weight", "back", "0 bytes after the end of weight"),
        ("writes_after_result", "back", "0 bytes after the end of result"),
        ("writes_before_result", "front", "4 bytes before result"),
        ("writes_after_result", "inside", f"wrote to byte {2 * 3 * 6 * 7 * 4} of its result"),
        ("writes_before_result", "inside", "wrote to byte -4 of its result"),
        ("writes_weight", "inside", "a write to byte 0 of the read-only weight"),
        ("reads_bias_always", "back", "a null pointer"),
        ("writes_plan", "back", "a write to byte 0 of the read-only plan"),
    ],
)
def test_guards_catch(fault, placement, message):
    assert message in caught(fault, "exact", placements=[placement], with_bias=False)


@pytest.mark.parametrize("fault", ["uses_result_unset", "uses_workspace_unset", "skips_last_column", "wraps_rows"])
def test_exact_values_catch(fault):
    assert "are wrong, element" in caught(fault, "exact")


@pytest.mark.parametrize("fault", ["skips_last_column", "wraps_rows"])
def test_bounded_values_catch(fault):
    assert "+-" in caught(fault, "bounded")


def test_special_values_catch_multiplied_borders():
    assert caught("multiplies_border", "exact") == ""
    assert "is nan, not" in caught("multiplies_border", "special")


def test_scaled_values_catch_flushed_subnormals():
    assert caught("flushes_subnormals", "exact") == ""
    assert "scaled: result" in caught("flushes_subnormals", "scaled")


@pytest.mark.parametrize(
    ("fault", "hows"),
    [
        ("depends_on_begin", ("one by one", "reversed", "in random chunks", "in other random chunks")),
        ("depends_on_order", ("reversed",)),
    ],
)
def test_partitions_catch(fault, hows):
    for how in hows:
        assert f"result changes when run {how}" in caught(fault, "partitions")


def test_activations_catch():
    """A kernel that is right without an activation, and takes one for another."""
    assert caught("wrong_activation", *(check for check in CHECKS if check != "activations")) == ""
    for activation in ("relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh"):
        assert "activations: result" in caught("wrong_activation", "activations", activation=activation)


@pytest.mark.parametrize("items", [0, 1, 2, 7, 100])
def test_partitions_cover_every_item_once(items):
    partitions = extension().Partition.__members__.values()
    assert len(partitions) == 5
    for partition in partitions:
        ranges = extension().ranges(items, partition, 3)
        assert sorted(i for begin, end in ranges for i in range(begin, end)) == list(range(items))

"""Which kernel is chosen of those that can: the tables of csrc/cuda/*/choice.h, at both sides of every limit."""

import pytest

from tests.cuda.build import extension
from tests.cuda.harness import all_kernels
from tests.kernels.cases import random_cases
from tests.kernels.harness import DTYPES
from tests.kernels.shapes import EDGES, Shape

NONE, SILU = 0, 4  # enum Activation
NAMES = [kernel.kernel.name for kernel in all_kernels()]


def square(n: int, c: int, side: int, k: int, s: int = 1) -> Shape:
    out = -(-side // s)
    return Shape(n, c, 1, side, side, k, k, out, out, s, s, pad_top=k // 2, pad_left=k // 2)


def selected(shape: Shape, dtype: str = "f32", activation: int = NONE, operation: int = 0, capability: int = 90) -> str:
    """The method and the size in the name of what is chosen for a contiguous tensor."""
    name = extension().selected(operation, list(DTYPES).index(dtype), 0, shape, activation, capability)
    return name.split(f"_{dtype}_")[1].removesuffix("_cuda")


def passed_over(shape: Shape, method: str, dtype: str = "f32") -> str | None:
    """Why those of the method are, of forward on contiguous tensors, which do not refuse the shape."""
    found = [
        index
        for index, name in enumerate(NAMES)
        if name.startswith(f"forward_nchw_{dtype}_{method}") and extension().refusal(index, shape, NONE, 90) is None
    ]
    assert len(found) == 1
    return extension().passed_over(found[0], shape, NONE, 90)


@pytest.mark.parametrize(
    "method, dtype, taken, left, because, instead",
    [
        ("planes", "f32", square(64, 32, 7, 3), square(63, 32, 7, 3), "fewer than 64 blocks", "runs_k3s1"),
        ("planes", "f16", square(1, 1024, 14, 5), square(1, 1023, 14, 5), "fewer than 64 blocks", "runs_k5s1"),
        ("planes", "f32", square(64, 32, 14, 3, 2), square(63, 32, 14, 3, 2), "fewer than 64 blocks", "runs_k3s2"),
        ("runs", "f32", square(64, 64, 9, 3), square(1, 64, 9, 3), "fewer than 128 runs", "stream_k3s1"),
        ("runs", "f32", square(64, 64, 9, 3), square(64, 64, 8, 3), "rows are whole vectors", "stream_k3s1"),
        ("runs", "f16", square(64, 64, 10, 5), square(64, 64, 12, 5), "rows are whole vectors", "stream_k5s1"),
        ("runs", "f16", square(64, 64, 10, 7), square(64, 64, 16, 7), "rows are whole vectors", "stream_k7s1"),
        ("runs", "f32", square(64, 64, 18, 3, 2), square(64, 64, 16, 3, 2), "rows are whole vectors", "stream_k3s2"),
        ("toeplitz", "bf16", square(2, 3, 30, 9), square(2, 3, 30, 8), "fewer than 9 columns or 3 rows", "tiles"),
        ("tiles", "f32", square(2, 3, 30, 4), square(2, 3, 30, 2), "fewer than nine taps", "window"),
    ],
)
def test_rows_of_the_tables(method, dtype, taken, left, because, instead):
    assert passed_over(taken, method, dtype) is None
    assert selected(taken, dtype).startswith(method)
    reason = passed_over(left, method, dtype)
    assert reason.startswith("supports, but: ") and because in reason
    assert selected(left, dtype) == instead


def test_rows_of_taps_and_rows_of_toeplitz():
    shape = square(2, 3, 30, 9)
    for few in (shape._replace(KH=2), shape._replace(KW=8)):
        assert passed_over(few, "toeplitz", "f16") is not None
        assert selected(few, "f16") == "tiles"
    assert selected(shape, "f16") == "toeplitz"
    assert selected(shape, "f16", capability=75) == "tiles"  # no tensor cores for bfloat16 and mma.m16n8k16


def test_the_activation_is_part_of_the_choice():
    small, large = square(64, 32, 7, 3), square(2, 32, 56, 3)
    assert (selected(small), selected(large)) == ("planes_k3s1", "stream_k3s1")
    assert selected(small, activation=SILU) == selected(large, activation=SILU) == "tiles"
    assert selected(square(2, 32, 56, 3, 2), activation=SILU) == "window"


def test_gradients_have_the_same_tables():
    assert selected(square(64, 32, 7, 3), operation=1) == "planes_k3s1"
    assert selected(square(63, 32, 7, 3), operation=1) == "runs_k3s1"
    assert selected(square(1, 32, 7, 3), operation=1) == "stream_k3s1"


def test_what_takes_every_shape_is_never_passed_over():
    for shape in (*EDGES.values(), *(case.shape for case in random_cases(40, "cuda choice"))):
        for index, name in enumerate(NAMES):
            if "_window_" in name:
                assert extension().refusal(index, shape, SILU, 75) is None
                assert extension().passed_over(index, shape, SILU, 75) is None

"""forward with an activation fused: every kernel, and what is selected."""

import pytest

from tests.cuda.build import extension
from tests.cuda.harness import all_kernels
from tests.cuda.shapes import CUDA_EDGES
from tests.kernels.harness import ACTIVATIONS, DTYPES, assert_none, failures
from tests.kernels.shapes import Shape

CODES = {name: code for code, name in enumerate(ACTIVATIONS)}
# What kernels with dozens of results a thread compute; they refuse the others.
SHORT = ("none", "relu", "relu6", "hardswish")
FEW_ACTIVATIONS = "it computes ReLU, ReLU6 and Hardswish only"
SHAPES = [
    Shape(2, 3, 1, 9, 16, 3, 3, 9, 16, pad_top=1, pad_left=1),
    Shape(1, 3, 1, 10, 16, 5, 5, 5, 8, stride_h=2, stride_w=2, pad_top=2, pad_left=2),
    Shape(1, 2, 2, 5, 7, 2, 3, 4, 7, pad_left=1),
    Shape(2, 8, 1, 9, 10, 3, 3, 9, 10, pad_top=1, pad_left=1),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    pass


def refusal(index: int, shape: Shape, activation: str) -> str | None:
    """On a device that every kernel runs on."""
    return extension().refusal(index, shape, CODES[activation], 90)


def check(shape: Shape, activation: str, kind: str = "") -> int:
    """How many kernels with this in their names take the shape and the activation; all compute what they should."""
    chosen = [
        kernel
        for index, (kernel, _) in enumerate(all_kernels())
        if kernel.operation == "forward" and kind in kernel.name and refusal(index, shape, activation) is None
    ]
    for with_bias in (True, False):
        assert_none(failures(chosen, shape, ["activations"], activation=activation, with_bias=with_bias), shape)
    return len(chosen)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_activations(shape, activation):
    assert check(shape, activation) >= 8


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_who_refuses_what(shape, activation):
    """And computes nothing that it refuses, whoever asks."""
    refused = []
    for index, (kernel, _) in enumerate(all_kernels()):
        if kernel.operation != "forward" or kernel.refusal(shape) is not None:
            continue
        if reason := refusal(index, shape, activation):
            assert reason == FEW_ACTIVATIONS
            assert extension().launch(index, shape, {}, CODES[activation]) == reason
            refused.append(kernel.name)
    tuned = {k.kernel.name for k in all_kernels() if "_k" in k.kernel.name and k.kernel.refusal(shape) is None}
    assert set(refused) == (set() if activation in SHORT else {name for name in tuned if name.startswith("forward")})


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_what_is_selected_takes_the_activation(layout, dtype, activation):
    place = [0, list(DTYPES).index(dtype), ["nchw", "nhwc"].index(layout)]
    for shape in (*SHAPES, *(CUDA_EDGES[edge] for edge in ("runs_7x7", "planes_14x14", "toeplitz_9", "nhwc_k5s2"))):
        selected = extension().selected(*place, shape, CODES[activation], 90)
        index = [kernel.kernel.name for kernel in all_kernels()].index(selected)
        assert refusal(index, shape, activation) is None
        assert extension().passed_over(index, shape, CODES[activation], 90) is None
        assert activation in SHORT or "_k" not in selected


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardswish"])
@pytest.mark.parametrize("edge", ["runs_7x7", "planes_7x7", "planes_14x14", "planes_14x14_to_7x7"])
def test_activations_of_small_planes(edge, activation):
    assert check(CUDA_EDGES[edge], activation, edge.split("_")[0]) == 3

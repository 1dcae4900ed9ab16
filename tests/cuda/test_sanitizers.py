"""Every CUDA kernel under AddressSanitizer with UBSan, and under ThreadSanitizer, on small shapes."""

import itertools

import pytest

from tests.cuda.harness import ORDERS, checker
from tests.cuda.shapes import CUDA_EDGES
from tests.kernels.cases import random_cases
from tests.kernels.shapes import EDGES

MAX_WORK = {"asan": 20_000, "tsan": 1_500}
COUNT = {"asan": 24, "tsan": 8}


def shapes(build: str, what: str, count: int):
    edges = [shape for shape in EDGES.values() if shape.work <= MAX_WORK[build] and shape.N * shape.C <= 64]
    return edges + [case.shape for case in random_cases(count, what, MAX_WORK[build])]


@pytest.mark.slow
@pytest.mark.parametrize("build", ["asan", "tsan"])
def test_clean(build):
    ran = checker(build, "ascending", shapes=shapes(build, f"cuda {build}", COUNT[build]))
    assert ran.returncode == 0, ran.stdout[-4000:]


# Kernels that take none of the shapes above, and some that they take, or have to refuse.
OTHERS = {
    "runs": ("runs_7x7_of_some_images", "runs_14x14_stride_2", "runs_stride_2_of_3x5"),
    "planes": (
        *("planes_7x7_of_odd_channels", "planes_14x14", "planes_14x14_kernel_7", "planes_14x14_to_7x7"),
        *("runs_7x7_more_padding_left", "runs_7x7_more_padding_above", "runs_7x7_to_7x6"),
    ),
    "tiles": ("tiles_12_cropped", "tiles_row", "tiles_17_rows_no_padding"),
    "toeplitz": ("toeplitz_12_cropped",),
    "k3s1": ("k3s1_groups_of_columns", "k3s1_splits"),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", OTHERS)
@pytest.mark.parametrize("build", ["asan", "tsan"])
def test_others_are_clean(build, part):
    ran = checker(build, "random", "only", part, shapes=[CUDA_EDGES[edge] for edge in OTHERS[part]])
    assert ran.returncode == 0, ran.stdout[-4000:]


def slow_or_full(build: str, order: str):
    """Two orders under ASan take three minutes, and no order of threads moves an access out of its buffer."""
    mark = pytest.mark.full if build == "asan" and order != "random" else pytest.mark.slow
    return pytest.param(build, order, marks=mark)


@pytest.mark.parametrize("build, order", [slow_or_full(*both) for both in itertools.product(("asan", "tsan"), ORDERS)])
def test_more_are_clean(build, order):
    ran = checker(build, order, shapes=shapes(build, f"cuda {build} {order}", 6 * COUNT[build]))
    assert ran.returncode == 0, ran.stdout[-4000:]


@pytest.mark.slow
def test_wrong_shapes_are_not_a_pass():
    assert checker("asan", "ascending", shapes=[]).returncode == 1

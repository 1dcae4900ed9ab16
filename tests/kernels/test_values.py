"""Every kernel passes every check: on the edges of the contract, on real layers, on random shapes."""

import pytest

from tests.kernels.cases import MAX_CROPPED_WORK, Case, edge_cases, layer_cases, random_cases
from tests.kernels.days import today_or_full
from tests.kernels.harness import CHECKS, PLACEMENTS, assert_none, failures, kernels
from tests.kernels.shapes import Shape

EDGES = {case.name: case.shape for case in edge_cases()}
LAYERS = {case.name: case for case in layer_cases(batch=2) if case.shape.work <= 2 * MAX_CROPPED_WORK}
# Less cropped, to have more rows and channels.
LARGER_LAYERS = {case.name: case for case in layer_cases(2_000_000)}
WHOLE_LAYERS = {case.name: case for case in layer_cases(2**62, batch=2)}
MAX_SLOW_WORK = 100_000_000
CHUNKS, PER_CHUNK = 16, 20


def check(case: Case, checks=CHECKS, **options) -> None:
    assert_none(failures(kernels(case.shape), case.shape, checks, seed=case.seed, **options), case.shape)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("kind", CHECKS)
def test_edges(kind, name):
    """Exact values with buffers in all three places."""
    check(Case(name, EDGES[name]), [kind], placements=PLACEMENTS if kind == "exact" else ())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", CHECKS)
def test_layers(kind, name):
    check(LAYERS[name], [kind])


@pytest.mark.parametrize("name", LARGER_LAYERS)
@pytest.mark.parametrize("kind", ["exact", "bounded"])
def test_larger_layers(kind, name):
    check(LARGER_LAYERS[name], [kind])


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", CHECKS)
def test_random_shapes(kind, chunk):
    for case in random_cases(PER_CHUNK * CHUNKS)[chunk::CHUNKS]:
        check(case, [kind])


def test_results_past_the_caches():
    """Above 7 MB the channels_last kernels of forward and grad_input store past the caches and fetch ahead."""
    for stride, out in ((1, (241, 240)), (2, (121, 120))):
        shape = Shape(1, 32, 1, 241, 240, 3, 3, *out, stride, stride, pad_top=1, pad_left=1)
        chosen = [kernel for kernel in kernels(shape) if kernel.layout == "nhwc" and kernel.operation != "grad_weight"]
        assert_none(failures(chosen, shape, ["exact"], placements=["back"]), shape)


TERMS = 16 * 112 * 112
LONG_SUMS = {
    "images": Shape(16, 11, 1, 112, 112, 3, 3, 112, 112, pad_top=1, pad_left=1),  # 17 MB: from memory
    "channels": Shape(4, 17, 1, 224, 224, 1, 1, 224, 224),
    "batch": Shape(TERMS, 2, 1, 1, 1, 1, 1, 1, 1),
    "row": Shape(1, 2, 1, 1, TERMS, 1, 3, 1, TERMS, pad_left=1),
    "column": Shape(1, 2, 1, TERMS, 1, 3, 1, TERMS, 1, pad_top=1),
    "strided": Shape(16, 2, 1, 224, 224, 3, 3, 112, 112, 2, 2, 1, 1, 1, 1),
}


@pytest.mark.parametrize("name", LONG_SUMS)
def test_long_sums(name):
    """A weight or bias gradient of a large batch adds up 200,704 products, and keeps its digits.

    Of positive numbers, so that a plain running sum in the dtype loses more than the bound allows, whichever way the
    terms lie in memory. 16-bit dtypes get numbers of both signs: sums of positive ones leave float16's range.
    """
    shape = LONG_SUMS[name]
    chosen = [kernel for kernel in kernels(shape) if kernel.operation == "grad_weight"]
    for sixteen_bit, data in ((False, "positive"), (True, "eight_bits")):
        some = [kernel for kernel in chosen if (kernel.dtype in ("bf16", "f16")) == sixteen_bit]
        assert_none(failures(some, shape, ["bounded"], placements=["back"], with_bias=True, data=data), shape)


def slow_or_full(name: str):
    """What the oracle and the reference kernels take half a minute for is left to `make full`."""
    work = WHOLE_LAYERS[name].shape.work
    return pytest.param(name, marks=pytest.mark.full if work > MAX_SLOW_WORK else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow_or_full(layer) for layer in WHOLE_LAYERS])
def test_whole_layers_exact(name):
    check(WHOLE_LAYERS[name], ["exact"], placements=["back"])


@pytest.mark.parametrize("chunk", [today_or_full(chunk) for chunk in range(200)])
def test_many_random_shapes(chunk):
    for case in random_cases(PER_CHUNK, f"many-{chunk}"):
        check(case)

"""Every kernel of sequences passes every check: edges, every tail, every number of taps, random shapes."""

import pytest

from tests.kernels.cases import Case, sequence_cases, sequence_edge_cases
from tests.kernels.days import today_or_full
from tests.kernels.harness import CHECKS, PLACEMENTS, assert_none, failures, kernels
from tests.kernels.sequences import sequence

EDGES = {case.name: case for case in sequence_edge_cases()}
CHUNKS, PER_CHUNK = 8, 10


def check(case: Case, checks=CHECKS, **options) -> None:
    chosen = kernels(case.shape, "sequence")
    assert chosen
    assert_none(failures(chosen, case.shape, checks, seed=case.seed, **options), case.shape)


@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("kind", CHECKS)
def test_edges(kind, name):
    """Exact values with buffers in all three places."""
    check(EDGES[name], [kind], placements=PLACEMENTS if kind == "exact" else ())


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("kind", CHECKS)
def test_random_shapes(kind, chunk):
    for case in sequence_cases(PER_CHUNK * CHUNKS, max_work=50_000)[chunk::CHUNKS]:
        check(case, [kind])


@pytest.mark.parametrize("chunk", [today_or_full(chunk) for chunk in range(30)])
def test_many_random_shapes(chunk):
    for case in sequence_cases(PER_CHUNK, f"many-{chunk}"):
        check(case)


@pytest.mark.parametrize("chunk", range(4))
def test_every_number_of_positions(chunk):
    for length in range(1 + chunk, 131, 4):
        width = (2, 3, 4, 9)[length // 4 % 4]
        check(Case(f"positions-{length}", sequence(3, length, width), "sequence"), ["exact", "activations"])
        check(Case(f"dilated-{length}", sequence(2, length, 3, 5), "sequence"), ["exact"], placements=["back"])


@pytest.mark.parametrize("chunk", range(4))
def test_every_number_of_channels(chunk):
    for channels in range(1 + chunk, 131, 4):
        width = (4, 2, 3, 9)[channels // 4 % 4]
        check(Case(f"channels-{channels}", sequence(channels, 11, width), "sequence"), ["exact", "activations"])
        check(Case(f"step-{channels}", sequence(channels, 1, 4), "sequence"), ["exact"], placements=["back"])


@pytest.mark.parametrize("channels", [5, 15, 20, 35, 65, 80, 130])
def test_steps_with_a_cache_of_four_positions(channels):
    """So that many are drawn which lie channel after channel, and are shifted: that is a path of its own."""
    shape = sequence(channels, 1, 4, batch=1 + channels % 3)
    for draw in range(12):
        check(Case(f"quads-{channels}-{draw}", shape, "sequence"), ["exact", "special", "activations"])


@pytest.mark.parametrize("width", [*range(1, 11), 31, 64])
def test_every_number_of_taps(width):
    for length, dilation in ((1, 1), (20, 1), (75, 1), (75, 2), (75, 7)):
        shape = sequence(19, length, width, dilation, batch=2)
        check(Case(f"taps-{width}-{length}-{dilation}", shape, "sequence"), ["exact", "special", "activations"])


def test_long_sums():
    """A weight's gradient of 131,072 products keeps its digits: of positive numbers, which do not cancel."""
    for shape in (sequence(3, 65_536, 4, batch=2), sequence(3, 64, 3, batch=2048)):
        chosen = [kernel for kernel in kernels(shape, "sequence") if kernel.operation == "sequence_backward"]
        for sixteen_bit, data in ((False, "positive"), (True, "eight_bits")):
            some = [kernel for kernel in chosen if (kernel.dtype in ("bf16", "f16")) == sixteen_bit]
            assert_none(failures(some, shape, ["bounded"], placements=["back"], data=data), shape)

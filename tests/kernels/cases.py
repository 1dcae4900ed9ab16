"""What every kernel is checked on: the edges, real layers, and random shapes. The only list of them.

The tests here run these cases in this process, against F.conv2d. The stand-alone checker reads the same cases from a
file, and so runs them under sanitizers, under valgrind and under an emulator:

    python -m tests.kernels.cases [--random N] [--max-work N] [--layers PATTERN] [--edges PATTERN] [--whole] > FILE

What a check does with a case (data, placements, bias, activations, partitions) follows from the case's seed, in
``checker/checks.cpp``.
"""

import argparse
import fnmatch
import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tests.kernels.blocks import (
    BATCH_NORM_EDGES,
    CHANNELWISE_EDGES,
    DENSE_EDGES,
    POINTWISE_EDGES,
    random_batch_norm,
    random_dense,
    random_pixels,
    random_pointwise,
)
from tests.kernels.sequences import SEQUENCE_EDGES, random_sequence
from tests.kernels.shapes import EDGES, SEED, Shape, from_layer, full
from tests.layers import cropped, distinct_geometries

MAX_WORK = 300_000  # multiply-adds of a random shape
MAX_LAYER_WORK = 500_000  # beyond it layers are cropped; some cannot lose so much
MAX_CROPPED_WORK = 2_000_000  # and are left out


class Case(NamedTuple):
    """A shape to check a kind's kernels on (``harness.KINDS``); all that is random about it follows from its name and
    from SEED."""

    name: str
    shape: Shape
    kind: str = "depthwise"

    @property
    def seed(self) -> int:
        return zlib.crc32(f"{SEED}/{self.name}".encode())


def edge_cases() -> list[Case]:
    return [Case(name, shape) for name, shape in EDGES.items()]


def block_edge_cases() -> list[Case]:
    """The edges of the operations of blocks, with BatchNorm and pointwise convolutions in training."""
    edges = {
        "dense": DENSE_EDGES,
        "channelwise": CHANNELWISE_EDGES,
        "batch_norm": BATCH_NORM_EDGES,
        "pointwise": POINTWISE_EDGES,
    }
    return [Case(name, shape, kind) for kind, shapes in edges.items() for name, shape in shapes.items()]


def sequence_edge_cases() -> list[Case]:
    return [Case(name, shape, "sequence") for name, shape in SEQUENCE_EDGES.items()]


def layer_cases(max_work: int = MAX_LAYER_WORK, batch: int = 1) -> list[Case]:
    """Layers of real networks, each geometry once, cropped to about ``max_work`` multiply-adds an image."""
    smaller = {layer.name: cropped(layer, max_work) for layer in distinct_geometries()}
    return [Case(name, from_layer(layer, batch)) for name, layer in smaller.items()]


def random_cases(count: int, what: str = "random", max_work: int = MAX_WORK) -> list[Case]:
    """``what`` keeps the sequences of different tests apart."""
    return [Case(name, random_shape(f"{SEED}/{name}", max_work)) for name in (f"{what}-{i}" for i in range(count))]


def block_cases(count: int, what: str = "random", max_work: int = MAX_WORK) -> list[Case]:
    """Random shapes for the operations of blocks: two for dense, one for each other kind, and so on."""
    kinds = (
        ("dense", random_dense),
        ("channelwise", random_pixels),
        ("dense", random_dense),
        ("batch_norm", random_batch_norm),
        ("pointwise", random_pointwise),
    )
    cases = []
    for i in range(count):
        kind, draw = kinds[i % len(kinds)]
        name = f"{what}-{kind}-{i}"
        cases.append(Case(name, _within(max_work, f"{SEED}/{name}", draw), kind))
    return cases


def sequence_cases(count: int, what: str = "random", max_work: int = MAX_WORK) -> list[Case]:
    """Random shapes for the operations of sequences."""
    names = (f"{what}-sequence-{i}" for i in range(count))
    return [Case(name, _within(max_work, f"{SEED}/{name}", random_sequence), "sequence") for name in names]


def within(max_work: int, cases: Iterable[Case]) -> list[Case]:
    """Without those that take too long beside random shapes of ``max_work`` multiply-adds."""
    return [case for case in cases if case.shape.work <= 20 * max_work]


def lines(cases: Iterable[Case]) -> Iterator[str]:
    """The cases as the checker reads them."""
    yield ",".join(("name", "seed", "kind", *Shape._fields)) + "\n"
    for case in cases:
        yield ",".join(map(str, (case.name, case.seed, case.kind, *case.shape))) + "\n"


# --- random shapes --------------------------------------------------------------------------------------------------


class Axis(NamedTuple):
    """One axis of a shape."""

    size: int
    kernel: int
    out: int
    stride: int
    dilation: int
    before: int


def random_size(rng: random.Random, largest: int) -> int:
    """A size up to ``largest``: often one next to a multiple of a vector width, often small, or anything."""
    near_vector = rng.choice([4, 8, 16, 32, 48, 64, 128]) + rng.choice([-1, 0, 1])
    return min(largest, rng.choice([near_vector, rng.randint(1, 9), rng.randint(1, largest)]))


def random_axis(rng: random.Random, kernel: int, stride: int, dilation: int, largest: int) -> Axis:
    """Consistent padding and output, or deliberately not."""
    reach = (kernel - 1) * dilation
    same = reach // 2
    size = random_size(rng, largest)
    before = rng.choice([same, same, same, 0, rng.randint(0, reach + 3)])
    after = rng.choice([same, before, rng.randint(0, reach + 3)])
    out = max(1, full(size, kernel, stride, dilation, before, after))
    out = rng.choice([out, out, out, rng.randint(1, out), out + rng.randint(1, 5)])
    return Axis(size, kernel, out, stride, dilation, before)


def assembled(batch: int, channels: int, multiplier: int, h: Axis, w: Axis) -> Shape:
    """The fields of Axis, those of h and of w by turns."""
    return Shape(batch, channels, multiplier, *(number for pair in zip(h, w, strict=True) for number in pair))


def any_geometry(rng: random.Random) -> Shape:
    square = rng.choice([3, 3, 5, 7, rng.randint(1, 9)])
    kernel = rng.choice([(square, square), (square, square), (rng.randint(1, 9), rng.randint(1, 9))])
    stride = rng.choice([(1, 1), (1, 1), (2, 2), (rng.randint(1, 4), rng.randint(1, 4))])
    dilation = rng.choice([(1, 1), (1, 1), (1, 1), (2, 2), (rng.randint(1, 4), rng.randint(1, 4))])
    h, w = (random_axis(rng, *numbers) for numbers in zip(kernel, stride, dilation, (40, 90), strict=True))
    return assembled(rng.choice([1, 1, 2, 3]), random_size(rng, 70), rng.choice([1, 1, 1, 2, 3]), h, w)


def small_planes(rng: random.Random) -> Shape:
    """Of 1 to 20 pixels a side, with channels enough to fill vectors."""
    kernel, stride, largest = rng.choice([3, 3, 5, 7, 2, 4, 9]), rng.choice([1, 1, 2]), rng.choice([7, 14, 20])
    # One time in three the sides differ by one in a single number, which kernels made for equal ones have to refuse.
    odd = rng.randint(0, 8)
    axes = [
        random_axis(rng, kernel, stride, 1, largest),
        random_axis(rng, kernel + (odd == 0), stride + (odd == 1), 1 + (odd == 2), largest),
    ]
    rng.shuffle(axes)
    multiplier = rng.choice([1, 1, 1, 1, 1, 2, 4, rng.randint(1, 40)])
    return assembled(rng.randint(1, 5), rng.randint(1, 9 if multiplier > 4 else 150), multiplier, *axes)


def large_kernels(rng: random.Random) -> Shape:
    """Rows and columns of taps, and kernels of 9 to 31, even ones too."""
    kernels = [long := rng.randint(9, 31), rng.choice([1, 1, long, long, rng.randint(1, 31)])]
    rng.shuffle(kernels)
    h = random_axis(rng, kernels[0], rng.choice([1, 1, 1, 2]), 1, 40)
    w = random_axis(rng, kernels[1], rng.choice([1, 1, 1, 2]), 1, 60)
    return assembled(rng.randint(1, 2), random_size(rng, 40), rng.choice([1, 1, 1, 2]), h, w)


def wide_rows(rng: random.Random) -> Shape:
    """Of hundreds of pixels, so that unrolled loops repeat."""
    kernel, stride = rng.choice([3, 3, 5, 7]), rng.choice([1, 1, 2])
    h, w = (random_axis(rng, kernel, stride, 1, largest) for largest in (9, 600))
    return assembled(rng.randint(1, 2), rng.randint(1, 20), 1, h, w)


def many_channels(rng: random.Random) -> Shape:
    """Hundreds, so that blocks of them repeat."""
    kernel, stride = rng.choice([3, 3, 5, 7]), rng.choice([1, 1, 2])
    h, w = (random_axis(rng, kernel, stride, 1, 9) for _ in range(2))
    return assembled(rng.randint(1, 3), rng.randint(60, 700), rng.choice([1, 1, 1, 2]), h, w)


DEPTHWISE = [any_geometry] * 4 + [small_planes] * 2 + [large_kernels] * 2 + [wide_rows, many_channels]


def _within(max_work: int, seed: str, draw: Callable[[random.Random], Shape]) -> Shape:
    """A shape of at most ``max_work`` multiply-adds; the same one for the same seed, everywhere."""
    rng = random.Random(seed)
    while True:
        shape = draw(rng)
        if shape.work <= max_work:
            return shape


def random_shape(seed: str, max_work: int = MAX_WORK) -> Shape:
    """A depthwise convolution, likewise."""
    return _within(max_work, seed, lambda rng: rng.choice(DEPTHWISE)(rng))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--random", type=int, default=100, help="how many random shapes")
    parser.add_argument("--max-work", type=int, default=MAX_WORK, help="multiply-adds of a random shape or a layer")
    parser.add_argument("--layers", default="*", help="a pattern of names; '' for none")
    parser.add_argument("--edges", default="*", help="a pattern of names; '' for none")
    parser.add_argument("--whole", action="store_true", help="layers as they are, of four images, to be timed")
    chosen = parser.parse_args()
    layers = layer_cases(2**62, batch=4) if chosen.whole else layer_cases(chosen.max_work)
    edges = edge_cases() + block_edge_cases() + sequence_edge_cases()
    named = [(layers, chosen.layers), (edges, chosen.edges)]
    cases = [case for cases, pattern in named for case in cases if fnmatch.fnmatch(case.name, pattern)]
    cases = cases if chosen.whole else within(chosen.max_work, cases)
    drawn = [some(chosen.random, max_work=chosen.max_work) for some in (random_cases, block_cases, sequence_cases)]
    print("".join(lines(sum(drawn, cases))), end="")


if __name__ == "__main__":
    main()

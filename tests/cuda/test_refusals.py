"""Tuned kernels count with 32 bits within a plane or an image, and refuse what is larger: asked, not run."""

import random

import pytest

from tests.cuda.harness import all_kernels
from tests.kernels.harness import Kernel
from tests.kernels.shapes import SEED, Shape

TUNED = [kernel.kernel for kernel in all_kernels() if "_window_" not in kernel.kernel.name]
LIMIT = {"nchw": 1 << 29, "nhwc": 1 << 30}


def accepting(shape: Shape) -> list[Kernel]:
    return [kernel for kernel in TUNED if kernel.refusal(shape) is None]


def square(kernel: int, stride: int, H: int, W: int, OH: int, OW: int, C: int = 1, pad: int = 0) -> Shape:
    return Shape(1, C, 1, H, W, kernel, kernel, OH, OW, stride, stride, pad_top=pad, pad_left=pad)


def spanned(shape: Shape, layout: str) -> int:
    """Elements of a plane of the input, or of what the output spans; of an image in channels_last."""
    height, width = max(shape.H, shape.OH * shape.stride_h), max(shape.W, shape.OW * shape.stride_w)
    return height * width * (shape.C if layout == "nhwc" else 1)


def logarithmic(rng: random.Random, largest: int) -> int:
    return int(2 ** rng.uniform(0, largest))


def test_every_tuned_kernel_is_accepted_somewhere():
    shapes = [square(k, s, 30, 31, 30 // s, 31 // s, C=70, pad=k // 2) for k in (3, 5, 7, 13) for s in (1, 2)]
    shapes += [square(k, s, 7, 7, -(-7 // s), -(-7 // s), C=70, pad=k // 2) for k in (3, 5, 7) for s in (1, 2)]
    shapes += [square(k, 2, 14, 14, 7, 7, C=70, pad=k // 2) for k in (3, 5, 7)]
    taken = {kernel.name for shape in shapes for kernel in accepting(shape)}
    assert taken == {kernel.name for kernel in TUNED}


@pytest.mark.parametrize("kernel", [3, 5, 7, 13])
@pytest.mark.parametrize("stride", [1, 2])
def test_nothing_too_large_is_accepted(kernel, stride):
    rng = random.Random(f"{SEED}/{kernel}/{stride}")
    accepted = 0
    for _ in range(4000):
        sides = [logarithmic(rng, 26) for _ in range(4)]
        shape = square(kernel, stride, *sides, C=logarithmic(rng, 17), pad=logarithmic(rng, 34) - 1)
        for taker in accepting(shape):
            accepted += 1
            assert spanned(shape, taker.layout) < LIMIT[taker.layout], (taker.name, shape)
            assert shape.pad_top < LIMIT[taker.layout], (taker.name, shape)
    assert accepted > 100 or (kernel, stride) == (13, 2)  # which no tuned kernel takes


@pytest.mark.parametrize("larger", ["H", "W", "OH", "OW"])
def test_each_side_is_asked_for(larger):
    """Of a plane that is just small enough, and of one that is not by a factor of two."""
    for stride in (1, 2):
        small = {"H": 1 << 14, "W": 1 << 14, "OH": 1, "OW": 1, "pad": 1}
        shape = square(3, stride, **small)
        assert len([kernel for kernel in accepting(shape) if kernel.layout == "nchw"]) >= 3
        factor = {"H": 4, "W": 4, "OH": (1 << 16) // stride, "OW": (1 << 16) // stride}[larger]
        assert accepting(square(3, stride, **(small | {larger: small[larger] * factor}))) == []


def test_padding_is_asked_for():
    assert accepting(square(3, 1, 9, 9, 9, 9, pad=1))
    for pad in (1 << 30, -(1 << 30)):
        assert accepting(square(3, 1, 9, 9, 9, 9, pad=pad)) == []
        assert accepting(square(3, 1, 9, 9, 9, 9)._replace(pad_top=pad)) == []
        assert accepting(square(3, 1, 9, 9, 9, 9)._replace(pad_left=pad)) == []


def test_other_geometry_is_refused_with_a_reason():
    shape = square(3, 1, 30, 32, 30, 32, C=64, pad=1)
    for change in ({"stride_h": 2}, {"stride_w": 2}, {"dilation_h": 2}, {"dilation_w": 2}, {"M": 2}):
        assert accepting(shape._replace(**change)) == [], change
    reasons = {kernel.refusal(shape._replace(M=2)) for kernel in TUNED if "_k3s1_" in kernel.name}
    assert "the channel multiplier is not 1" in reasons


@pytest.mark.parametrize("side", ["W", "H"])
def test_channels_last_refuses_what_one_launch_cannot_hold(side):
    for stride in (1, 2):
        long = square(3, stride, **({"H": 1, "W": 1, "OH": 1, "OW": 1, "pad": 1} | {side: 1 << 20}))
        taken = {kernel.operation for kernel in accepting(long) if kernel.layout == "nhwc"}
        assert taken == (set() if side == "W" else {"grad_weight"})


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [7, 14])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_whole_planes_are_of_one_form(kernel, side, stride):
    """Their kernel knows every border when it is compiled, and would not notice another."""

    def taken(shape: Shape) -> int:
        return len([kernel for kernel in accepting(shape) if "_planes_" in kernel.name])

    least = {7: 32, 14: 16}[side]  # channels: the planes of a block must be of as many
    shape = square(kernel, stride, side * stride, side * stride, side, side, C=least, pad=kernel // 2)
    operations = {(7, 1): 2, (14, 1): 2, (7, 2): 1, (14, 2): 0}[side, stride]
    assert taken(shape) == 3 * operations
    for name in ("H", "W", "OH", "OW", "pad_top", "pad_left"):
        for change in (-1, 1, 7):
            assert taken(shape._replace(**{name: getattr(shape, name) + change})) == 0, (name, change)
    assert taken(shape._replace(C=least - 1)) == 0
    assert taken(shape._replace(N=1000, C=least)) == 3 * operations
    assert taken(shape._replace(N=1000, C=least - 1)) == 0
    assert taken(shape._replace(N=1 << 31)) == 0

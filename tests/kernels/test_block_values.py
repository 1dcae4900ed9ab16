"""Every kernel of a block's operations passes every check: edges, real sizes, every tail, random shapes."""

import functools
import itertools

import pytest
import torch
import torch.nn.functional as F

from tests.kernels import harness
from tests.kernels.blocks import dense, pixels
from tests.kernels.cases import Case, block_cases, block_edge_cases
from tests.kernels.days import today_or_full
from tests.kernels.harness import CHECKS, PLACEMENTS, WITH_GATES, assert_none, failures, kernels, planted
from tests.kernels.shapes import Shape

EDGES = {case.name: case for case in block_edge_cases()}
CHUNKS, PER_CHUNK = 8, 24


def check(case: Case, checks=CHECKS, **options) -> None:
    chosen = kernels(case.shape, case.kind)
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
    for case in block_cases(PER_CHUNK * CHUNKS, max_work=100_000)[chunk::CHUNKS]:
        check(case, [kind])


@pytest.mark.parametrize("chunk", [today_or_full(chunk) for chunk in range(60)])
def test_many_random_shapes(chunk):
    for case in block_cases(PER_CHUNK, f"many-{chunk}"):
        check(case)


def test_every_number_of_channels():
    """Of the input of dense, and of pixels."""
    for channels in range(1, 71):
        check(Case(f"channels-{channels}", dense(channels, 19, 1, 5), "dense"), ["exact"], placements=["back"])
        check(Case(f"channels-{channels}", dense(channels, 5, 3, 7, (2, 3)), "dense"), ["exact"], placements=["front"])
        check(Case(f"pixels-{channels}", pixels(channels, 3, 5, 2), "channelwise"), ["exact", "bounded"])


@pytest.mark.parametrize("chunk", range(4))
def test_every_number_of_outputs(chunk):
    for outputs in [*range(1, 71), *(16 * k + e for k in range(5, 10) for e in (-1, 0, 1))][chunk::4]:
        for width in (1, 7, 13):
            case = Case(f"outputs-{outputs}-{width}", dense(3, outputs, 1, width), "dense")
            check(case, ["exact", "activations"], placements=["back"])


@pytest.mark.parametrize("outputs", [5, 16, 33, 48, 64])
def test_every_number_of_pixels(outputs):
    """In one row, where a row of each of several images ends, and where a 3x3 filter leaves as many."""
    for count in range(1, 41):
        check(Case(f"pixels-{outputs}-{count}", dense(5, outputs, 1, count), "dense"), ["exact"], placements=["back"])
        check(Case(f"rows-{outputs}-{count}", dense(2, outputs, 3, count + 2, (3, 3)), "dense"), ["exact"])


@pytest.mark.parametrize("chunk", range(4))
def test_every_number_of_channels_and_pixels_of_pointwise(chunk):
    """Of either side, where a panel, a group of panels and a tile of rows end; and of the pixels of two images."""
    for count in range(1 + chunk, 71, 4):
        shapes = (dense(count, 19, 3, 7, batch=2), dense(19, count, 3, 7, batch=2), dense(5, 9, 1, count, batch=2))
        for i, shape in enumerate(shapes):
            check(Case(f"pointwise-{i}-{count}", shape, "pointwise"), ["exact", "bounded"], placements=["back"])


@pytest.mark.parametrize("side", [7, 8, 14, 28, 33, 56])
@pytest.mark.parametrize(("channels", "outputs"), [(24, 72), (72, 24), (320, 64)])
def test_planes_of_real_models_of_pointwise(channels, outputs, side):
    shape = dense(channels, outputs, side, side, batch=3 if side < 20 else 1)
    check(Case(f"pointwise-{channels}-{outputs}-{side}", shape, "pointwise"), ["exact", "bounded", "partitions"])


@pytest.mark.parametrize("pixels_of_image", range(1, 41, 3))
def test_every_number_of_pixels_channelwise(pixels_of_image):
    for channels in (1, 16, 23, 70):
        shape = pixels(channels, 1, pixels_of_image, 2)
        check(Case(f"pixels-{channels}-{pixels_of_image}", shape, "channelwise"), placements=["back"])


@pytest.mark.parametrize("activation", WITH_GATES)
@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_every_ending_of_dense(with_bias, with_residual, activation):
    shapes = (dense(24, 40, 5, 9), dense(3, 17, 7, 15, (3, 3), (2, 2)), dense(64, 16, 1, 1))
    options = dict(with_bias=with_bias, with_residual=with_residual, activation=activation)
    for i, shape in enumerate(shapes):
        case = Case(f"ending-{i}-{with_bias}-{with_residual}-{activation}", shape, "dense")
        check(case, ["activations", "partitions"] if activation != "none" else CHECKS[:4], **options)


# Sizes of real models: MobileNetV2's expansions and projections, first layers, ConvNeXt's reductions, a classifier.
REAL = {
    "expand-16-96": dense(16, 96, 28, 28),
    "project-144-24": dense(144, 24, 14, 28),
    "project-960-160": dense(960, 160, 7, 7),
    "expand-160-960": dense(160, 960, 7, 7),
    "first-3-32": dense(3, 32, 65, 65, (3, 3), (2, 2)),
    "patches-3-96": dense(3, 96, 32, 32, (4, 4), (4, 4)),
    "downsample-96-192": dense(96, 192, 14, 14, (2, 2), (2, 2)),
    "residual-3x3-64": dense(64, 64, 14, 16, (3, 3)),
    "classifier-1280-1000": dense(1280, 1000, 1, 1),
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("kind", ["exact", "bounded", "partitions"])
def test_real_sizes(kind, name):
    check(Case(name, REAL[name], "dense"), [kind])


@pytest.mark.parametrize(("channels", "side"), [(17, 448), (3, 112), (64, 112)])
def test_long_channel_sums(channels, side):
    """Positive numbers, of 200,704 of which a running float32 sum loses more than the bound allows."""
    shape = pixels(channels, side, side)
    chosen = [kernel for kernel in kernels(shape, "channelwise") if kernel.operation == "channel_sum"]
    for sixteen_bit, data in ((False, "positive"), (True, "eight_bits")):
        some = [kernel for kernel in chosen if (kernel.dtype in ("bf16", "f16")) == sixteen_bit]
        assert_none(failures(some, shape, ["bounded"], placements=["back"], data=data), shape)


def test_long_channel_sums_catch_a_running_sum():
    (line,) = failures(
        [planted()["channel_sum_runs_one_sum"]], pixels(17, 448, 448), ["bounded"], placements=["back"], data="positive"
    )
    assert "+-" in line or "norm of the error" in line


@functools.cache
def numbers(channels: int, offset: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(channels)
    return torch.randn(1, channels, 9, 7, generator=generator, dtype=torch.float64) + offset


@pytest.mark.parametrize(("channels", "offset"), list(itertools.product([7, 96, 384, 768, 3000], [0, 3, 100, 10_000])))
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_layer_norm_is_as_accurate_as_torchs(dtype, channels, offset):
    """The error against float64 of the same numbers, in the norm.

    Where numbers differ little for their size PyTorch's is many times as large.
    """
    x = numbers(channels, offset).to(harness.DTYPES[dtype])
    right = F.layer_norm(x.double().movedim(1, -1), (channels,), eps=1e-6).movedim(-1, 1)
    torchs = F.layer_norm(x.movedim(1, -1).contiguous(), (channels,), eps=1e-6).movedim(-1, 1).double()
    shape = pixels(channels, 9, 7)
    operands = {"input": x, "epsilon": torch.tensor(1e-6)}
    for kernel in kernels(shape, "channelwise"):
        if (kernel.operation, kernel.dtype) == ("layer_norm", dtype):
            error = (harness.run(kernel, shape, operands)["result"] - right).norm()
            assert error <= 1.15 * (torchs - right).norm(), kernel.name


def test_a_large_dense_convolution_past_the_caches():
    """More input than the caches hold, and more blocks than one."""
    shape = Shape(2, 40, 24, 224, 225, 1, 1, 224, 225)
    chosen = [kernel for kernel in kernels(shape, "dense") if kernel.dtype in ("f32", "bf16")]
    assert_none(failures(chosen, shape, ["exact"], placements=["back"]), shape)

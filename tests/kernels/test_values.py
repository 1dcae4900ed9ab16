"""Every kernel computes the right numbers: on real layers, at the edges of the contract, on random shapes."""

import pytest

from tests.kernels.harness import kernels
from tests.kernels.nets import PLACEMENTS, assert_none, bounded_values, exact_values, scaled_values
from tests.kernels.shapes import EDGES, Shape, from_layer, random_shapes
from tests.layers import cropped, distinct_geometries

LAYERS = {layer.name: layer for layer in distinct_geometries()}
# Multiply-adds per image that a layer may have before it is cropped, to keep the reference kernels' share in seconds.
MAX_LAYER_WORK = 2_000_000
MAX_SLOW_WORK = 50_000_000
CHUNKS, PER_CHUNK = 16, 20


@pytest.mark.parametrize("name", LAYERS)
def test_layers_exact(name):
    shape = from_layer(cropped(LAYERS[name], MAX_LAYER_WORK), batch=1)
    assert_none(exact_values(kernels(shape), shape, "back"))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_bounded(name):
    shape = from_layer(cropped(LAYERS[name], MAX_LAYER_WORK), batch=1)
    assert_none(bounded_values(kernels(shape), shape, "inside"))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("edge", EDGES)
def test_edges_exact(edge, placement):
    shape = EDGES[edge]
    assert_none(exact_values(kernels(shape), shape, placement, with_bias=placement != "front"))


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_shapes_exact(chunk):
    for i, shape in enumerate(random_shapes(PER_CHUNK, f"exact/{chunk}")):
        assert_none(exact_values(kernels(shape), shape, PLACEMENTS[i % 3], with_bias=i % 2 == 0))


@pytest.mark.parametrize("chunk", range(CHUNKS // 4))
def test_random_shapes_bounded(chunk):
    for i, shape in enumerate(random_shapes(PER_CHUNK, f"bounded/{chunk}")):
        assert_none(bounded_values(kernels(shape), shape, PLACEMENTS[i % 3]))


def test_results_past_the_caches():
    """Above 7 MB the channels_last kernels of forward and grad_input store past the caches and fetch ahead."""
    for stride, out in ((1, (241, 240)), (2, (121, 120))):
        shape = Shape(1, 32, 1, 241, 240, 3, 3, *out, stride, stride, pad_top=1, pad_left=1)
        chosen = [kernel for kernel in kernels(shape) if kernel.layout == "nhwc" and kernel.operation != "grad_weight"]
        assert_none(exact_values(chosen, shape, "back"))


def test_subnormal_and_huge_numbers():
    for shape in (EDGES["one_channel"], EDGES["tensorflow_same_stride_2"], *random_shapes(10, "scaled")):
        assert_none(scaled_values(kernels(shape), shape))


def slow_or_full(name: str):
    """What the oracle and the reference kernels take half a minute for is left to `make full`."""
    work = from_layer(LAYERS[name], batch=1).work
    return pytest.param(name, marks=pytest.mark.full if work > MAX_SLOW_WORK else pytest.mark.slow)


@pytest.mark.parametrize("name", [slow_or_full(layer) for layer in LAYERS])
def test_whole_layers_exact(name):
    shape = from_layer(LAYERS[name], batch=2)
    assert_none(exact_values(kernels(shape), shape, "back"))


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(200))
def test_many_random_shapes(chunk):
    for i, shape in enumerate(random_shapes(PER_CHUNK, f"many/{chunk}")):
        assert_none(exact_values(kernels(shape), shape, PLACEMENTS[i % 3], with_bias=i % 2 == 0))

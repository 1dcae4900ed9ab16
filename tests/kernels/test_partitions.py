"""The same bits whatever the pieces and the order in which the work is done."""

import pytest

from tests.kernels.harness import kernels
from tests.kernels.nets import assert_none, partition_independence
from tests.kernels.shapes import EDGES, SEED, from_layer, random_shapes
from tests.layers import cropped, distinct_geometries

# Every layer small enough for many runs; what RepLKNet's kernels of 27 and more need is in EDGES.
LAYERS = {layer.name: cropped(layer, 500_000) for layer in distinct_geometries() if cropped(layer, 500_000).work < 2e6}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge):
    assert_none(partition_independence(kernels(EDGES[edge]), EDGES[edge], SEED))


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    shape = from_layer(LAYERS[name], batch=2)
    assert_none(partition_independence(kernels(shape), shape, SEED))


@pytest.mark.parametrize("chunk", range(4))
def test_random_shapes(chunk):
    for i, shape in enumerate(random_shapes(10, f"partition/{chunk}")):
        assert_none(partition_independence(kernels(shape), shape, SEED + i))

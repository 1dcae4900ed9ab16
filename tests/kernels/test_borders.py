"""NaN and Inf spread exactly as far as the sums they are in.

That no kernel reads or writes outside its buffers is part of every other test: they all run between guard pages.
"""

import pytest

from tests.kernels.harness import kernels
from tests.kernels.nets import assert_none, poison_reach
from tests.kernels.shapes import EDGES, from_layer, random_shapes
from tests.layers import cropped, distinct_geometries

# Every layer small enough for many runs; what RepLKNet's kernels of 27 and more need is in EDGES.
LAYERS = {layer.name: cropped(layer, 500_000) for layer in distinct_geometries() if cropped(layer, 500_000).work < 2e6}


@pytest.mark.parametrize("edge", EDGES)
def test_edges(edge):
    assert_none(poison_reach(kernels(EDGES[edge]), EDGES[edge]))


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    shape = from_layer(LAYERS[name], batch=1)
    assert_none(poison_reach(kernels(shape), shape))


@pytest.mark.parametrize("chunk", range(4))
def test_random_shapes(chunk):
    for shape in random_shapes(10, f"poison/{chunk}"):
        assert_none(poison_reach(kernels(shape), shape))

"""The backend on programs drawn at random: as exact as the model, also when weights and batches change."""

import copy
import random
import warnings

import pytest
import torch

from tests.fuse.fusing import as_list, assert_as_exact
from tests.fuse.random_graphs import Graph, in_dtype

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def check(seed: int) -> None:
    model, dtype = in_dtype(Graph(seed), seed)
    rng = random.Random(-seed)
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="torch_dwconv", dynamic=rng.choice([None, True, False]))
    image, other = model.inputs(len(model.example), dtype), model.inputs(rng.choice([1, 3]), dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", "a graph runs without blocks")  # a fault that the backend has found itself
        for x in (image, image, other, other, image, image):  # the first result of each program is the graph's
            try:
                expected = as_list(model(x))
            except (RuntimeError, ValueError, IndexError):  # which does not take this batch
                continue
            assert_as_exact(as_list(compiled(x)), expected, as_list(copy.deepcopy(model).double()(x.double())))
            if x is other and rng.random() < 0.5:
                for parameter in model.parameters():
                    parameter.mul_(1.1)


# 1101: the channels of a depthwise layer are a symbol to the compiler.
@pytest.mark.parametrize("seed", [*range(1000, 1012), 1101])
def test_graphs(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(4))
def test_more_graphs(chunk):
    for seed in range(1100 + 30 * chunk, 1130 + 30 * chunk):
        check(seed)

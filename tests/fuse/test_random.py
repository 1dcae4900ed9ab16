"""fuse on models drawn at random: as exact as the model, in both memory formats, for other batches."""

import copy
import random
import warnings

import pytest
import torch

from torch_dwconv import fuse
from torch_dwconv.operators.block.steps import KINDS

from .fusing import as_list, assert_as_exact, in_blocks, randomised
from .random_graphs import Graph, in_dtype
from .random_models import Random

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def check(seed: int) -> str:
    """Fuses the model of a seed and returns the steps of its blocks."""
    model, rng = randomised(Random(seed)), random.Random(-seed)
    dtype = rng.choice([torch.float32, torch.float32, torch.float16])
    size = [rng.choice([1, 2, 3]), model.in_channels, rng.randint(24, 40), rng.randint(24, 40)]
    image = torch.randn(size).to(dtype)
    if rng.random() < 0.5:
        image = image.contiguous(memory_format=torch.channels_last)
    _, report = in_blocks(model, image)
    return "; ".join(report.blocks.values())


@pytest.mark.parametrize("seed", range(24))
def test_random(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(4))
def test_more(chunk):
    """And all kinds of steps are among them."""
    steps = "; ".join(check(seed) for seed in range(100 + 20 * chunk, 120 + 20 * chunk))
    assert [kind for kind in KINDS if kind not in steps] == []


def check_graph(seed: int) -> None:
    model, dtype = in_dtype(Graph(seed), seed)
    wide, image = copy.deepcopy(model).double(), model.inputs(len(model.example), dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("error", ".* is fused without .*")  # a fault that fuse has found itself
        fused = fuse(model, image)
        for x in (image, model.inputs(1, dtype), model.inputs(3, dtype)):
            try:
                results = as_list(fused(x))
            except RuntimeError as error:  # of another batch than the example's
                assert "of which the program was made" in str(error)
                continue
            assert_as_exact(results, as_list(model(x)), as_list(wide(x.double())))


@pytest.mark.parametrize("seed", range(24))
def test_graphs(seed):
    check_graph(seed)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(4))
def test_more_graphs(chunk):
    for seed in range(100 + 50 * chunk, 150 + 50 * chunk):
        check_graph(seed)

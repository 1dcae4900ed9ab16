"""fuse on models drawn at random: as exact as the model, in both memory formats, for other batches."""

import random

import pytest
import torch

from torch_dwconv.operators.block.steps import KINDS

from .fusing import in_blocks, randomised
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

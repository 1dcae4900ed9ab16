"""Values for models without training: every layer counts."""

import torch
from torch import nn

from torch_dwconv.bench.models.values import fill


class Scaled(nn.Module):
    """A residual branch behind a scale that is nearly zero at first, as in ConvNeXt."""

    def __init__(self, size=6):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, size, 3), nn.BatchNorm2d(size))
        self.stem = nn.Conv2d(3, size, 3)
        self.scale = nn.Parameter(1e-6 * torch.ones(size, 1, 1))

    def forward(self, x):
        return self.stem(x) + self.scale * self.branch(x)


def test_no_branch_is_hidden_and_statistics_are_those_of_images():
    model = Scaled()
    images = torch.randn(2, 3, 16, 16)
    weights = model.stem.weight.clone()
    fill(model, (3, 16, 16))
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        whole, stem, branch = model(images), model.stem(images), model.branch(images)
    assert (whole - stem).norm() > 0.01 * whole.norm()
    norm = model.branch[1]
    normed = (branch - norm.bias.view(-1, 1, 1)) / norm.weight.view(-1, 1, 1)
    assert normed.mean().abs() < 0.3 and 0.7 < normed.std() < 1.3
    assert norm.momentum == 0.1 and 0.5 <= norm.weight.min() < norm.weight.max() <= 1.5
    assert torch.equal(model.stem.weight, weights)

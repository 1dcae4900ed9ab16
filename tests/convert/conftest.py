"""A small model with every kind of layer that convert must swap or leave, and the way models are compared."""

import pytest
import torch
from torch import nn


class Toy(nn.Module):
    """Two depthwise layers (one with a multiplier) among convolutions that are not; input (N, 3, H, W)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1)
        )
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.multiplied = nn.Conv2d(8, 16, 5, stride=2, padding=2, groups=8, padding_mode="reflect")
        self.head = nn.Linear(16, 5)

    def forward(self, input):
        features = self.stem(input)
        features = features + self.block(features)
        return self.head(self.multiplied(self.grouped(features)).mean((2, 3)))


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    """F.conv2d in float64, the oracle here, starts its threads once a group: on a busy machine that takes seconds."""


@pytest.fixture
def toy() -> Toy:
    """A Toy in float64, so that a wrong result cannot hide in rounding."""
    torch.manual_seed(0)
    return Toy().double()


@pytest.fixture
def toy_depthwise() -> list[str]:
    return ["block.0", "multiplied"]


@pytest.fixture
def run():
    """run(model, input): the output and the gradients of input and parameters, as a dict to compare whole."""

    def output_and_gradients(model, input):
        input = input.detach().clone().requires_grad_()
        model.zero_grad()
        output = model(input)
        output.square().sum().backward()
        parameters = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return {"output": output.detach(), "input": input.grad, **parameters}

    return output_and_gradients

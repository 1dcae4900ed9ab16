"""What the tests of the backend share."""

import copy

import torch
from torch import nn

from tests.fuse.fusing import randomised


class InvertedResidual(nn.Module):
    """A block of MobileNetV3: expand, depthwise, squeeze-and-excite, project, residual."""

    def __init__(self, channels: int = 8, wide: int = 24):
        super().__init__()
        self.expand, self.norm1 = nn.Conv2d(channels, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.depthwise = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.norm2, self.act = nn.BatchNorm2d(wide), nn.Hardswish(inplace=True)
        self.reduce, self.widen = nn.Conv2d(wide, 8, 1), nn.Conv2d(8, wide, 1)
        self.project, self.norm3 = nn.Conv2d(wide, channels, 1, bias=False), nn.BatchNorm2d(channels)

    def forward(self, x):
        y = self.act(self.norm2(self.depthwise(self.act(self.norm1(self.expand(x))))))
        y = y * torch.sigmoid(self.widen(torch.relu(self.reduce(y.mean((2, 3), keepdim=True)))))
        return x + self.norm3(self.project(y))


class Tokens(nn.Module):
    """A block of ConvNeXt, and a classifier."""

    def __init__(self, channels: int = 8, classes: int = 5):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm, self.scale = nn.LayerNorm(channels), nn.Parameter(torch.rand(channels))
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.head = nn.Linear(channels, classes)

    def forward(self, x):
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(nn.functional.gelu(self.wide(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(x.mean((2, 3)))


def made(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), InvertedResidual(), InvertedResidual(), Tokens())
    return randomised(model).float()


def compiled_and_reports(model, **options):
    """The compiled model, and the list in which the report of each graph in blocks arrives."""
    torch._dynamo.reset()
    reports = []
    return torch.compile(model, backend="torch_dwconv", options={"report": reports.append}, **options), reports


def assert_right(compiled, model, *inputs, tolerance: float = 1e-5) -> None:
    """Compares with the model in float64; twice, since AOTAutograd watches the first call of a graph."""
    right = copy.deepcopy(model).double()(*(input.double() for input in inputs))
    for _ in range(2):
        actual = compiled(*inputs)
        assert (actual.double() - right).norm() <= tolerance * right.norm()

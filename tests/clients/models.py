"""What the tests of clients share: a small model, its layers of ours, the distance of two results."""

import torch
from torch import nn

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, DepthwiseConvTranspose1d, DepthwiseConvTranspose2d

OURS = (DepthwiseConv1d, DepthwiseConv2d, DepthwiseConvTranspose1d, DepthwiseConvTranspose2d)


class Small(nn.Module):
    """Two depthwise layers, with and without a bias, a stride and BatchNorm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.dw = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.act = nn.ReLU()
        self.pw = nn.Conv2d(8, 16, 1)
        self.dw2 = nn.Conv2d(16, 16, 5, stride=2, padding=2, groups=16)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = self.act(self.bn(self.dw(self.stem(x))))
        return self.head(self.dw2(self.pw(x)).mean((2, 3)))


def small() -> Small:
    """In eval mode, with statistics that are not those of a fresh BatchNorm. The same weights at every call."""
    torch.manual_seed(0)
    model = Small()
    model.bn.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 16, 16))
    return model.eval()


def lively(model: nn.Module, *inputs, **keywords) -> nn.Module:
    """In eval mode and float64, with BatchNorm statistics of the inputs, without which the signal fades to nothing."""
    model.double()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(*inputs, **keywords)
    return model.eval()


def layers_of_ours(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, OURS)]


def distance(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the norms. A result of nothing but zeros or NaN is no result."""
    assert expected.isfinite().all() and expected.norm() > 1e-6
    return float((actual.detach() - expected).norm() / expected.norm())

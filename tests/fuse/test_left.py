"""fuse: what stays, and is said to, with the reason."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import fuse

from .fusing import depthwise, fused_and_report, kernel, randomised

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def image():
    return torch.randn(2, 4, 9, 8, dtype=torch.float64)


LEFT = {
    "twice": (
        lambda self, x: self.relu(self.norm_of_first(self.first(x))) + self.first(x),
        {"first": "BatchNorm2d, relu"},
        {"first (call 2)": "add follows"},
    ),
    "a branch": (
        lambda self, x: self.norm_of_first(y := self.first(x)) + y,
        {},
        {"first": "its result is used 2 times"},
    ),
    "a shared norm": (
        lambda self, x: self.norm_of_first(self.first(self.norm_of_first(x))),
        {"first": "BatchNorm2d"},
        {"first": "nothing follows"},
    ),
    "another activation": (
        lambda self, x: torch.tanh(self.norm_of_first(self.first(x))),
        {"first": "BatchNorm2d"},
        {"first": "tanh follows"},
    ),
    "other bounds": (
        lambda self, x: F.hardtanh(self.first(x)),
        {},
        {"first": "hardtanh follows"},
    ),
    "parameters elsewhere": (
        lambda self, x: self.norm_of_first(self.first(x)) * self.first.weight.norm(),
        {"first": "BatchNorm2d, mul"},
        {"first": "nothing follows"},
    ),
    "batch statistics": (
        lambda self, x: F.batch_norm(self.first(x), None, None, training=True),
        {},
        {"first": "its BatchNorm normalises by the batch"},
    ),
    "a weight of the input": (
        lambda self, x: self.norm_of_first(F.conv2d(x, self.first.weight * x.mean(), groups=4)).relu(),
        {},
        {"": "its weight or bias depends on the input"},
    ),
    "a constant for each pixel": (
        lambda self, x: self.first(x) + torch.arange(8.0, dtype=torch.float64),
        {},
        {"first": "add follows"},
    ),
    "scaled by the input": (
        lambda self, x: self.first(x) * x.mean(),
        {},
        {"first": "mul follows"},
    ),
    "an ordinary one before a LayerNorm": (
        lambda self, x: F.layer_norm(F.conv2d(x, self.first.weight.expand(4, 4, 3, 3)).permute(0, 2, 3, 1), (4,)),
        {},
        {"": "layer_norm follows, which depends on the input"},
    ),
    "a transposed one": (
        lambda self, x: self.norm_of_first(F.conv_transpose2d(x, self.first.weight, groups=4)),
        {},
        {"": "it is a transposed convolution, batch_norm stays"},
    ),
    "no batch": (
        lambda self, x: torch.stack([self.first(image) for image in x.unbind()]),
        {},
        {
            "first": "its input has 3 dimensions and no batch",
            "first (call 2)": "its input has 3 dimensions and no batch",
        },
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_leaves_and_says_why(name, image):
    forward, taken, left = LEFT[name]
    model = kernel(forward)
    reports = []
    fused = fuse(model, image, report=reports.append)
    torch.testing.assert_close(fused(image), model(image), rtol=1e-12, atol=1e-12)
    assert reports[0].left.items() >= left.items() and reports[0].fused == taken


def test_reads_of_a_changed_tensor_see_the_change(image):
    """In-place calls on what others read too, and on parts of it."""

    def forward(self, x):
        y = self.first(x)
        part = y[:, :2]
        part.relu_()
        z = self.second(y)
        total = z + part.sum()
        z[:, 1].mul_(2)
        return self.norm_of_first(z) + total

    _, report = fused_and_report(kernel(forward), image)
    assert {*report.left} == {"first", "second"}


def test_report_reads_well(image, capsys):
    model = nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8))
    fuse(randomised(model), image, report=print)
    assert capsys.readouterr().out.splitlines() == [
        "inputs: input: float64 (batch, 4, 9, 8); batch from 0",
        "converted: 1",
        "  0",
        "fused: 1",
        "  BatchNorm2d: 0",
        "blocks: 0, there are none in float64",
        "left: 2",
        "  tanh follows: 0",
        "  group_norm follows, which depends on the input: 3",
    ]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.other = depthwise(), nn.BatchNorm2d(8), depthwise()

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda y: self.norm(self.conv(y)), lambda y: self.other(y), (x,))


def test_branches_stay_and_are_named(image):
    model = randomised(Branches())
    reports = []
    fused = fuse(model, image, report=reports.append)
    for twin in (fused, copy.deepcopy(fused), pickle.loads(pickle.dumps(fused))):
        for input in (image.abs(), -image.abs()):
            torch.testing.assert_close(twin(input), model(input))
    assert len(reports[0].left) == 2
    assert all("a branch of the program that stays as it is" in reason for reason in reports[0].left.values())

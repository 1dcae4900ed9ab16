"""fuse: what stands before dense steps and goes into their weights."""

import pytest
import torch
from torch import nn

from .fusing import Call, calls, in_blocks, randomised

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def image():
    return torch.randn(2, 6, 9, 8)


def branches(self, x):
    first, second = x.split([4, 2], 1)
    return self.conv(self.norm(torch.cat([first, self.branch(second)], 1)))


def two_readers(self, x):
    y = self.norm(x.tanh())
    return self.conv(y) + self.other(y)


def constants(self, x):
    return self.conv((x - self.mean) / 0.25 * self.scale)


def tokens(self, x):
    y = x.tanh().flatten(2).transpose(1, 2)
    return self.linear(2.0 * (y + self.beta))


CASES = {
    "BatchNorm behind a cat": Call(
        branches, branch=nn.Conv2d(2, 2, 3, padding=1, groups=2), norm=nn.BatchNorm2d(6), conv=nn.Conv2d(6, 10, 1)
    ),
    "two readers": Call(two_readers, norm=nn.BatchNorm2d(6), conv=nn.Conv2d(6, 9, 1), other=nn.Conv2d(6, 9, 1)),
    "a scale before a padded convolution": Call(lambda self, x: self.conv(x * 0.5), conv=nn.Conv2d(6, 9, 3, 1, 1)),
    "constants of a picture": Call(
        constants,
        mean=nn.Parameter(torch.rand(6, 1, 1)),
        scale=nn.Parameter(torch.rand(1, 6, 1, 1)),
        conv=nn.Conv2d(6, 9, 3, 2),
    ),
    "tokens": Call(tokens, beta=nn.Parameter(torch.rand(6)), linear=nn.Linear(6, 9)),
    "before a LayerNorm's readers": Call(
        lambda self, x: self.linear(self.norm(x.permute(0, 2, 3, 1)) * self.gamma),
        norm=nn.LayerNorm(6),
        gamma=nn.Parameter(torch.rand(6)),
        linear=nn.Linear(6, 9),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_goes_into_the_weights(name, image):
    fused, report = in_blocks(randomised(CASES[name]), image)
    names = {"aten.batch_norm", "aten.mul", "aten.mul.Tensor", "aten.div.Tensor", "aten.sub.Tensor", "aten.layer_norm"}
    assert names.isdisjoint(calls(fused)) and report.blocks != {}, fused.code


def with_another_reader(self, x):
    y = self.norm(x.tanh())
    return self.conv(y) + y.mean()


STAYS = {
    "a shift before a padded convolution": Call(lambda self, x: self.conv(x + 0.5), conv=nn.Conv2d(6, 9, 3, 1, 1)),
    "BatchNorm before a padded convolution": nn.Sequential(nn.Tanh(), nn.BatchNorm2d(6), nn.Conv2d(6, 9, 3, padding=1)),
    "something else reads it": Call(with_another_reader, norm=nn.BatchNorm2d(6), conv=nn.Conv2d(6, 9, 1)),
    "another dtype": Call(
        lambda self, x: self.conv((x.to(torch.float32 if x.dtype == torch.bfloat16 else x.dtype) * 3).to(x.dtype)),
        conv=nn.Conv2d(6, 9, 1),
    ),
    "the divisor depends on the input": Call(lambda self, x: self.conv(2.0 / (x * x + 1)), conv=nn.Conv2d(6, 9, 1)),
}


@pytest.mark.parametrize("name", STAYS)
def test_stays(name, image):
    model = randomised(STAYS[name])
    own = torch.bfloat16 if name == "another dtype" else torch.float32
    fused, report = in_blocks(model, image.to(own))
    stayed = {"aten.add.Tensor", "aten.batch_norm", "aten.mul.Tensor", "aten.reciprocal", "aten.div.Tensor"}
    assert not stayed.isdisjoint(calls(fused)) and [*report.blocks.values()] != [], fused.code


@pytest.mark.parametrize("norm", [nn.LayerNorm(6, bias=False), nn.LayerNorm(6)], ids=["scale", "scale and shift"])
def test_a_layer_norm_of_another_axis_than_the_channels(norm):
    """Width and channels have the same size: by sizes alone one would go into the weights of the other."""
    model = nn.Sequential(norm, nn.Conv2d(6, 9, 1))
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 2)
    fused, report = in_blocks(randomised(model), torch.randn(2, 6, 6, 6))
    assert "aten.layer_norm" in calls(fused) and [*report.blocks.values()] == ["dense 1x1 6→9"]


def test_weights_that_would_overflow(image):
    """The input is small where it is multiplied; the weight is not, and 1e50 is no float32."""
    model = Call(lambda self, x: self.conv(x * 1e-30 * 1e30), conv=nn.Conv2d(6, 9, 1))
    model.conv.weight.data.mul_(1e20)
    fused, _ = in_blocks(randomised(model), image)
    assert "aten.mul.Tensor" in calls(fused)


def test_a_number_for_each_of_several_axes_is_none_of_the_channels(image):
    model = Call(
        lambda self, x: self.conv(x * self.plane), plane=nn.Parameter(torch.rand(9, 8)), conv=nn.Conv2d(6, 9, 1)
    )
    fused, _ = in_blocks(randomised(model), image)
    assert "aten.mul.Tensor" in calls(fused)


def test_positions_as_many_as_channels():
    """Six tokens of six channels: what differs from token to token goes nowhere."""
    model = Call(
        lambda self, x: self.linear(x.tanh() * self.positions),
        positions=nn.Parameter(torch.rand(6, 1)),
        linear=nn.Linear(6, 9),
    )
    fused, report = in_blocks(randomised(model), torch.randn(2, 6, 6))
    assert "aten.mul.Tensor" in calls(fused) and [*report.blocks.values()] == ["dense 1x1 6→9"]

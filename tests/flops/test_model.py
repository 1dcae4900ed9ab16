"""The costs of a model's layers, and their table on the command line."""

import sys

import pytest
import torch
from torch import nn

from torch_dwconv import convert, flops
from torch_dwconv.flops import __main__ as command
from torch_dwconv.flops.model import layer_costs


class Net(nn.Module):
    """Two blocks with something between the depthwise layer and its 1x1; and a depthwise layer without one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=8)
        self.squeeze = nn.Conv2d(16, 16, 1)  # of the pooled features, as in EfficientNet
        self.project = nn.Conv2d(16, 24, 1)
        self.second = nn.Conv2d(24, 24, (1, 5), padding=(0, 2), groups=24)
        self.linear = nn.Linear(24, 4)  # of a permuted view, as in ConvNeXt
        self.last = nn.Conv2d(4, 4, 3, groups=4)

    def forward(self, x):
        x = self.first(self.stem(x))
        x = self.project(x * self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.last(self.linear(self.second(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("converted", [False, True])
def test_layer_costs(converted):
    model = Net().train()
    if converted:
        convert(model)
    first, second, last = layer_costs(model.to("meta"), torch.empty(2, 3, 32, 24, device="meta"))
    assert (first.name, first.pointwise, first.in_channels, first.out_channels) == ("first", "project", 8, 24)
    assert (first.kernel_size, first.output_size) == ((3, 3), (16, 12))
    assert first.standard == flops.standard(2, 8, 24, (16, 12), (3, 3))
    assert first.depthwise == flops.depthwise(2, 8, (16, 12), (3, 3), 2)
    assert first.separable == flops.separable(2, 8, 24, (16, 12), (3, 3), 2)
    assert first.saving == first.standard / first.separable

    assert (second.name, second.pointwise, second.out_channels) == ("second", "linear", 4)
    assert second.separable == flops.separable(2, 24, 4, (16, 12), (1, 5))

    assert (last.name, last.pointwise, last.separable, last.out_channels) == ("last", None, None, 4)
    assert last.saving == 4  # channels
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_command_line(capsys, monkeypatch):
    """MobileNetV2's first depthwise layer by hand: 32 channels, 3x3 on 112x112, to 16 channels."""
    monkeypatch.setattr(sys, "argv", ["flops", "mobilenet_v2"])
    command.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["layer", "channels", "kernel", "output", "standard", "depthwise", "separable", "saving"]
    assert lines[1][1:] == ["32>16", "3x3", "112x112", "115.61", "M", "7.23", "M", "20.07", "M", "5.8x"]
    assert lines[-1][:2] == ["17", "layers"] and len(lines) == 19


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["no_such_model"], "no model 'no_such_model'"),
        (["mobilenet_v2", "--batch", "0"], "--image-size and --batch must be positive"),
    ],
)
def test_command_line_refuses(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["flops", *arguments])
    with pytest.raises(SystemExit):
        command.main()
    assert message in capsys.readouterr().err

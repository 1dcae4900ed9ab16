"""A user's program, for mypy and pyright: the public API is typed, wrong uses are found. It is never run."""

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import torch_dwconv
from torch_dwconv import DepthwiseConv2d, convert, decompositions, depthwise_conv2d, explain, revert, to_aten

input, weight = torch.randn(1, 8, 16, 16), torch.randn(8, 1, 3, 3)

assert_type(depthwise_conv2d(input, weight), Tensor)
assert_type(depthwise_conv2d(input, weight, None, (2, 1), ((0, 1), (1, 0)), 2, activation="relu6"), Tensor)
assert_type(depthwise_conv2d(input, weight, padding="same"), Tensor)
assert_type(torch_dwconv.grad.depthwise_conv2d_input(input.shape, weight, input), Tensor)
assert_type(torch_dwconv.diagnose().ok, bool)
assert_type(torch_dwconv.__version__, str)

layer = DepthwiseConv2d(8, 16, (3, 5), padding=((0, 1), (2, 2)), bias=False)
as_conv: nn.Conv2d = layer
model: nn.Module = revert(convert(nn.Sequential(layer), report=print))
print(explain(input, weight, padding=1), len(decompositions()))
program = to_aten(torch.export.export(layer, (input,)))
assert_type(program, torch.export.ExportedProgram)

depthwise_conv2d(input, weight, stride=1.5)  # type: ignore[arg-type]
depthwise_conv2d("input", weight)  # type: ignore[arg-type]
DepthwiseConv2d(8, 8, "3")  # type: ignore[arg-type]
convert(3)  # type: ignore[arg-type]

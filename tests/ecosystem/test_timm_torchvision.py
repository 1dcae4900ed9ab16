"""convert on models of torchvision and timm: no depthwise layer is left, the results stay, revert takes all of it back.

In float64 and with random weights. The two packages are no dependencies; `make check-upgrade` installs them.
"""

import copy

import pytest
import torch
from torch import nn

from torch_dwconv import DepthwiseConv2d, convert, revert

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# (package, model, depthwise layers in it)
MODELS = [
    ("torchvision", "mobilenet_v2", 17),
    ("torchvision", "efficientnet_b0", 16),
    ("torchvision", "convnext_tiny", 18),  # 7x7 layers, run as nn.Conv2d between permutations
    ("timm", "mobilenetv3_large_100", 15),
    ("timm", "efficientnet_b0", 16),
    ("timm", "tf_efficientnet_b0", 16),  # Conv2dSame: TensorFlow's padding
    ("timm", "convnext_tiny", 18),
    ("timm", "fastvit_t8", 40),  # re-parametrisable branches, also with two filters a channel
    ("timm", "mixnet_s", 43),  # 3x3 to 11x11 side by side
]


def made(package: str, name: str) -> nn.Module:
    library = pytest.importorskip(package)
    if package == "torchvision":
        return library.models.get_model(name, weights=None)
    return library.create_model(name, pretrained=False)


def output_and_gradients(model: nn.Module, input: torch.Tensor) -> dict[str, torch.Tensor]:
    """By name, each divided by its largest magnitude: untrained networks in eval mode fade to 1e-14 on the way."""
    input = input.clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(input)
    leaves = {"input": input, **dict(model.named_parameters())}
    gradients = torch.autograd.grad((output / output.detach().abs().max()).square().sum(), list(leaves.values()))
    values = {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}
    return {name: value / value.abs().max() for name, value in values.items()}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("package, name, layers", MODELS)
def test_model(package, name, layers, memory_format):
    theirs = made(package, name).double().eval().to(memory_format=memory_format)
    classes = [type(module) for module in theirs.modules()]
    reports = []
    ours = convert(copy.deepcopy(theirs), report=reports.append)

    assert all(reason.startswith("groups=1,") for reason in reports[0].left.values()), reports[0]
    assert sum(type(module) is DepthwiseConv2d for module in ours.modules()) == len(reports[0].swapped) == layers
    assert list(ours.state_dict()) == list(theirs.state_dict())

    input = torch.randn(2, 3, 64, 64, dtype=torch.float64).to(memory_format=memory_format)
    results = [output_and_gradients(model, input) for model in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)

    assert [type(module) for module in revert(ours).modules()] == classes

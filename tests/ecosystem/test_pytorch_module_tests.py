"""PyTorch's own module tests of depthwise nn.Conv2d (they ship in its wheel), run on the converted layer.

Each test of `get_new_module_tests` is a constructor and an input. `NewModuleTest` checks gradients and gradients of
gradients numerically (batched too), non-contiguous inputs and gradients, saving and loading, and dtype casts.
"""

import copy

import pytest
import torch
from torch import nn
from torch.testing._internal.common_nn import NewModuleTest, NNTestCase, get_new_module_tests
from torch.testing._internal.common_utils import set_default_dtype

from torch_dwconv import DepthwiseConv2d, convert


def constructor_of(description) -> object:
    """The description's function that makes the layer: some give a class name and arguments instead."""
    if "constructor" in description:
        return description["constructor"]
    return lambda: getattr(nn, description["module_name"])(*description["constructor_args"])


def is_depthwise(description) -> bool:
    name = description.get("fullname") or description.get("module_name", "")
    if not name.startswith("Conv2d"):
        return False
    layer = constructor_of(description)()
    return layer.groups == layer.in_channels > 1


CASES = {case["fullname"]: case for case in get_new_module_tests() if is_depthwise(case)}


class Case(NNTestCase):
    """What NewModuleTest asks of a unittest case: how to run a module and where its gradients are."""

    def _forward(self, module, input):
        return module(*input) if isinstance(input, tuple) else module(input)

    def _backward(self, module, input, output, grad_output, create_graph=False):
        output.backward(grad_output, retain_graph=True, create_graph=create_graph)
        return tuple(i.grad for i in input) if isinstance(input, tuple) else input.grad

    def _get_parameters(self, module):
        return list(module.parameters()), [parameter.grad for parameter in module.parameters()]

    def _zero_grad_parameters(self, module):
        module.zero_grad()

    def _zero_grad_input(self, input):
        for tensor in input if isinstance(input, tuple) else (input,):
            tensor.grad = None


def test_there_are_depthwise_cases():
    kinds = ("", "_with_multiplier", "_strided", "_padded", "_dilated")
    assert {f"Conv2d_depthwise{kind}" for kind in kinds} <= set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_pytorchs_module_test_passes(name):
    made = []

    def constructor():
        made.append(convert(constructor_of(CASES[name])()))
        return made[-1]

    NewModuleTest(**{**CASES[name], "constructor": constructor})(Case())
    assert made and all(isinstance(layer, DepthwiseConv2d) for layer in made)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_equals_conv2d(name, memory_format):
    with set_default_dtype(torch.float64):
        theirs = constructor_of(CASES[name])().to(memory_format=memory_format)
        inputs = [torch.randn(CASES[name]["input_size"]).to(memory_format=memory_format) for _ in range(2)]
    inputs[1] = inputs[0].clone(memory_format=torch.preserve_format)
    ours = convert(copy.deepcopy(theirs))
    results = []
    for layer, input in zip((ours, theirs), inputs, strict=True):
        output = layer(input.requires_grad_())
        results.append([output, *torch.autograd.grad(output.square().sum(), [input, *layer.parameters()])])
    torch.testing.assert_close(*results, check_stride=True)

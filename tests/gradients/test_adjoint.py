"""<F(x, w), g> = <x, GI(g, w)> = <w, GW(x, g)>: the identity behind every derivative, exactly, on integers."""

import random

import pytest
import torch

from tests.calls import DTYPES, FORMATS, Call, reference
from tests.kernels.shapes import SEED
from torch_dwconv import depthwise_conv2d
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight

CALLS = [Call.draw(random.Random(f"{SEED} adjoint {i}")) for i in range(25)]


def inner(a, b):
    """Exact: small integers, summed in float64."""
    return (a.double() * b.double()).sum()


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_three_ways_to_the_same_number(call, dtype, memory_format):
    # Results stay below 2^8, which the 8 bits of a bfloat16 hold exactly: few taps and values of -1, 0 and 1.
    input, weight, _ = (t.sign() for t in call.tensors(dtype, integers=True))
    input = input.to(memory_format=memory_format)
    output = depthwise_conv2d(input, weight, **call.options)
    grad_output = torch.randint_like(output, -1, 2)
    grad_input = depthwise_conv2d_input(input.shape, weight, grad_output, **call.options)
    right = inner(output, grad_output)
    assert inner(input, grad_input) == right
    if dtype not in (torch.bfloat16, torch.float16):  # sums over N, H and W, which 16 bits need not hold
        grad_weight = depthwise_conv2d_weight(input, weight.shape, grad_output, **call.options)
        assert inner(weight, grad_weight) == right


@pytest.mark.parametrize("call", CALLS[:8], ids=str)
def test_gradient_functions_are_those_of_torch_nn_grad(call):
    """Which take symmetric padding only: of a padded input there is none."""
    (top, bottom), (left, right) = call.padding
    padded = call._replace(size=(call.size[0] + top + bottom, call.size[1] + left + right), padding=((0, 0), (0, 0)))
    input, weight, _ = padded.tensors(torch.float64)
    grad_output = torch.randn_like(reference(input, weight, **padded.options))
    arguments = (grad_output, padded.stride, 0, padded.dilation)
    torch.testing.assert_close(
        depthwise_conv2d_input(input.shape, weight, *arguments),
        torch.nn.grad.conv2d_input(input.shape, weight, *arguments, groups=padded.channels),
    )
    torch.testing.assert_close(
        depthwise_conv2d_weight(input, weight.shape, *arguments),
        torch.nn.grad.conv2d_weight(input, weight.shape, *arguments, groups=padded.channels),
    )

"""float32, float64, bfloat16 and float16 on the CPU never reach a convolution of aten's in eager mode."""

import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.calls import DTYPES, FORMATS, Call, assert_close, reference
from tests.kernels.shapes import SEED
from tests.layers import cropped, distinct_geometries
from torch_dwconv import depthwise_conv2d

LAYERS = [Call.from_layer(cropped(layer, 200_000)) for layer in distinct_geometries()]
RANDOM = [Call.draw(random.Random(f"{SEED} {i}")) for i in range(40)]


class NoConvolution(TorchDispatchMode):
    """Lets every operator run but aten's convolutions, forward or backward, under any of their names."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace in ("aten", "mkldnn") and "conv" in func.name():
            raise AssertionError(f"{func} ran")
        return func(*args, **(kwargs or {}))


def forward_and_backward(function, call, tensors, grad_output):
    tensors = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*tensors, **call.options)
    return output, *torch.autograd.grad(output, tensors, grad_output.to(output))


def check(call, dtype, memory_format):
    tensors = call.tensors(dtype)
    tensors = (tensors[0].to(memory_format=memory_format), *tensors[1:])
    exact_tensors = [tensor.double() for tensor in tensors]
    grad_output = torch.randn(reference(*exact_tensors, **call.options).shape).to(dtype)
    exact = forward_and_backward(reference, call, exact_tensors, grad_output)
    with NoConvolution():
        watched = forward_and_backward(depthwise_conv2d, call, tensors, grad_output)
    plain = forward_and_backward(depthwise_conv2d, call, tensors, grad_output)
    for name, *results in zip(("output", "input", "weight", "bias"), watched, plain, exact, strict=True):
        assert torch.equal(results[0], results[1]), f"{name}: the shortcut gives other numbers"
        assert_close(results[0], results[2], name)


def test_the_mode_sees_aten():
    """Or the tests below could not fail."""
    call = Call(1, 2, 1, (4, 4), (3, 3))
    with NoConvolution(), pytest.raises(AssertionError, match="aten"):
        reference(*call.tensors(torch.float32))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", LAYERS, ids=str)
def test_layers(call, dtype, memory_format):
    check(call, dtype, memory_format)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("call", RANDOM, ids=str)
def test_random_calls(call, dtype, memory_format):
    check(call, dtype, memory_format)

"""Gradients in every dtype and format against F.conv2d in float64, and what is kept and computed for them."""

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.calls import DTYPES, FORMATS, Call, assert_close, reference
from torch_dwconv import depthwise_conv2d

CALLS = (
    Call(3, 19, 1, (17, 15), (3, 3), padding=((1, 1), (1, 1))),
    Call(2, 16, 2, (20, 9), (5, 4), (2, 1), ((3, 1), (0, 2)), (1, 2)),
    Call(2, 3, 1, (1, 40), (1, 7), padding=((0, 0), (3, 3))),
)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("input_format", "grad_format"), list(itertools.product(FORMATS, FORMATS)))
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_gradients(call, input_format, grad_format, dtype):
    input, weight, bias = call.tensors(dtype)
    tensors = [t.detach().requires_grad_() for t in (input.to(memory_format=input_format), weight, bias)]
    exact_tensors = [t.detach().double().requires_grad_() for t in tensors]
    output, exact = depthwise_conv2d(*tensors, **call.options), reference(*exact_tensors, **call.options)
    grad_output = torch.randn(output.shape).to(dtype).to(memory_format=grad_format)
    gradients = torch.autograd.grad(output, tensors, grad_output)
    exact_gradients = torch.autograd.grad(exact, exact_tensors, grad_output.double())
    for name, actual, right in zip(("input", "weight", "bias"), gradients, exact_gradients, strict=True):
        assert_close(actual, right, name)
    assert gradients[0].stride() == tensors[0].stride()
    assert gradients[1].stride() == weight.stride()


NEEDS = list(itertools.product([False, True], repeat=3))


@pytest.mark.parametrize("needs", NEEDS, ids=str)
@pytest.mark.parametrize("functions", [True, False], ids=["eager", "operator"])
def test_only_what_a_needed_gradient_uses_is_saved(needs, functions):
    """The weight for the input's gradient, the input for the weight's, nothing for the bias's."""
    call = CALLS[0]
    tensors = [t.requires_grad_(need) for t, need in zip(call.tensors(torch.float32), needs, strict=True)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.data_ptr()) or t, lambda t: t):
        if functions:
            depthwise_conv2d(*tensors, **call.options)
        else:
            torch.ops.torch_dwconv.forward(*tensors, 17, 15, 1, 1, 1, 1, 1, 1, False)
    input, weight, _ = tensors
    expected = [input.data_ptr()] * needs[1] + [weight.data_ptr()] * needs[0]
    assert sorted(saved) == sorted(expected)


class Operators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("needs", NEEDS[1:], ids=str)
def test_only_needed_gradients_are_computed(needs):
    call = CALLS[0]
    tensors = [t.requires_grad_(need) for t, need in zip(call.tensors(torch.float32), needs, strict=True)]
    output = depthwise_conv2d(*tensors, **call.options)
    with Operators() as operators:
        torch.autograd.grad(output, [t for t in tensors if t.requires_grad], torch.ones_like(output))
    needs_input, needs_weight, needs_bias = needs
    ran = {name for name in operators.names if name.startswith("torch_dwconv") or name == "aten::sum.dim_IntList"}
    expected = {"torch_dwconv::grad_input"} if needs_input else set()
    if needs_weight:
        expected.add("torch_dwconv::grad_weight")
    elif needs_bias:
        expected.add("aten::sum.dim_IntList")
    assert ran == expected


def test_no_graph_without_a_needed_gradient():
    input, weight, bias = CALLS[0].tensors(torch.float32)
    assert depthwise_conv2d(input, weight, bias).grad_fn is None
    with torch.no_grad():
        assert not depthwise_conv2d(input, weight.requires_grad_(), bias).requires_grad


def test_long_sums_stay_accurate():
    """16 x 112 x 112 terms to a weight, where a running float32 sum is off by more than the bound."""
    input, weight, bias = Call(16, 2, 1, (112, 112), (3, 3), padding=((1, 1), (1, 1))).tensors(torch.float32)
    tensors = [(t.abs() if i == 0 else t).requires_grad_() for i, t in enumerate((input, weight, bias))]
    output = depthwise_conv2d(*tensors, padding=1)
    grad_output = torch.rand_like(output)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    right = torch.autograd.grad(reference(*exact, padding=((1, 1), (1, 1))), exact, grad_output.double())
    for actual, expected in zip(torch.autograd.grad(output, tensors, grad_output), right, strict=True):
        assert_close(actual, expected)

"""Derivatives of any order against finite differences: reverse and forward mode, batched, and each over the other."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from tests.calls import FORMATS, Call
from torch_dwconv import depthwise_conv2d
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight

CALLS = {
    "plain": Call(2, 2, 1, (4, 3), (3, 3), padding=((1, 1), (1, 1))),
    "everything": Call(1, 2, 2, (6, 5), (2, 3), (2, 1), ((0, 1), (2, 1)), (1, 2)),
    "one pixel": Call(2, 3, 1, (1, 1), (1, 1)),
    "stride larger than kernel": Call(1, 2, 1, (5, 5), (1, 2), (3, 3)),
}

cases = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
formats = pytest.mark.parametrize("memory_format", FORMATS)


def leaves(call, memory_format):
    input, weight, bias = call.tensors(torch.float64)
    return [t.detach().requires_grad_() for t in (input.to(memory_format=memory_format), weight, bias)]


def convolution(call):
    return lambda input, weight, bias=None: depthwise_conv2d(input, weight, bias, **call.options)


@cases
@formats
def test_first_order(call, memory_format):
    modes = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert gradcheck(convolution(call), leaves(call, memory_format), **modes)


@cases
@formats
def test_second_order(call, memory_format):
    modes = {"check_fwd_over_rev": True, "check_rev_over_rev": True, "check_batched_grad": True}
    assert gradgradcheck(convolution(call), leaves(call, memory_format), **modes)


@cases
def test_third_order(call):
    def second_derivatives(*tensors):
        loss = convolution(call)(*tensors).pow(3).sum()
        first = torch.autograd.grad(loss, tensors, create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in first), tensors, create_graph=True)

    assert gradcheck(second_derivatives, leaves(call, torch.contiguous_format))


@cases
@pytest.mark.parametrize("needed", [(True, False, False), (False, True, False), (False, False, True)])
def test_one_gradient_at_a_time(call, needed):
    """Each has a path of its own when the others are not needed."""
    tensors = [t.requires_grad_(need) for t, need in zip(call.tensors(torch.float64), needed, strict=True)]
    assert gradcheck(convolution(call), tensors, check_forward_ad=True)
    if needed != (False, False, True):  # in the bias it is linear, with a constant gradient
        assert gradgradcheck(lambda *t: convolution(call)(*t).pow(2), tensors, check_fwd_over_rev=True)


@cases
def test_derivatives_of_the_gradient_functions(call):
    input, weight, _ = leaves(call, torch.contiguous_format)
    grad_output = torch.randn_like(convolution(call)(input, weight)).requires_grad_()
    options, modes = call.options, {"check_forward_ad": True, "check_batched_grad": True}
    for function, tensors in (
        (lambda g, w: depthwise_conv2d_input(input.shape, w, g, **options), (grad_output, weight)),
        (lambda x, g: depthwise_conv2d_weight(x, weight.shape, g, **options), (input, grad_output)),
    ):
        assert gradcheck(function, tensors, **modes)
        assert gradgradcheck(function, tensors, check_fwd_over_rev=True)


@cases
def test_derivatives_of_the_bias_gradient(call):
    """The second result of the operator grad_weight, which only a second derivative differentiates."""
    input, weight, _ = leaves(call, torch.contiguous_format)
    grad_output = torch.randn_like(convolution(call)(input, weight)).requires_grad_()
    (stride_h, stride_w), ((top, _), (left, _)), dilation = call.stride, call.padding, call.dilation
    geometry = (*call.kernel, stride_h, stride_w, top, left, *dilation, True, False)

    def both(x, g):
        return torch.ops.torch_dwconv.grad_weight(x, g, *geometry)

    assert gradcheck(both, (input, grad_output), check_forward_ad=True, check_batched_grad=True)
    assert gradcheck(lambda g: both(input, g)[1], (grad_output,), check_forward_ad=True)
    assert gradgradcheck(lambda x, g: tuple(t.pow(2) for t in both(x, g)), (input, grad_output))

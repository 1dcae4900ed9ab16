"""PyTorch's own samples and error inputs of `nn.functional.conv2d` (they ship in its wheel), run through ours."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing._internal.common_methods_invocations import op_db

from torch_dwconv import depthwise_conv2d

(CONV2D,) = [op for op in op_db if op.name == "nn.functional.conv2d"]
# Complex numbers have no kernel of ours: they show that F.conv2d takes over.
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]


def depthwise(samples):
    """(input, weight, bias, geometry) of the samples that are depthwise as they are."""
    for sample in samples:
        geometry = dict(sample.kwargs)
        if geometry.pop("groups", 1) == sample.input.shape[-3] > 1:
            yield sample.input, *sample.args, geometry


def made_depthwise(samples):
    """(input, weight, None, geometry) of every sample: its sizes, with a weight of one filter a channel."""
    for sample in samples:
        geometry = {name: value for name, value in sample.kwargs.items() if name != "groups"}
        channels = sample.input.shape[-3]
        yield sample.input, sample.args[0][:1, :1].repeat(channels, 1, 1, 1), None, geometry


def output_and_gradients(function, input, weight, bias, dtype, **geometry):
    leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in (input, weight, bias) if tensor is not None]
    output = function(*leaves, **geometry)
    return [output, *torch.autograd.grad(output, leaves, torch.ones_like(output))]


@pytest.mark.parametrize("choose, at_least", [(depthwise, 12), (made_depthwise, 30)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sample_inputs(dtype, choose, at_least):
    cases = list(choose(CONV2D.sample_inputs("cpu", dtype)))
    assert len(cases) >= at_least  # in torch 2.10 to 2.14: each sample with and without a batch dimension
    wide = torch.complex128 if dtype.is_complex else torch.float64
    # The result is rounded once; the sums before it are of at most a few hundred products of numbers up to 9.
    tolerance = {"rtol": torch.finfo(dtype).eps, "atol": 1e-12 if dtype == torch.float64 else 5e-4}
    for input, weight, bias, geometry in cases:
        ours = output_and_gradients(depthwise_conv2d, input, weight, bias, dtype, **geometry)
        theirs = output_and_gradients(F.conv2d, input, weight, bias, wide, **geometry, groups=input.shape[-3])
        assert all(value.dtype == dtype for value in ours)
        torch.testing.assert_close([value.to(wide) for value in ours], theirs, **tolerance)


def test_error_inputs_are_errors_here_too():
    cases = list(CONV2D.error_inputs("cpu"))
    assert len(cases) >= 10
    for case in cases:
        sample = case.sample_input
        geometry = {name: value for name, value in sample.kwargs.items() if name != "groups"}
        with pytest.raises((case.error_type, ValueError, TypeError)):
            depthwise_conv2d(sample.input, *sample.args, **geometry)


# What PyTorch says of the mistake -> what our message must name.
NAMED_IN_MESSAGE = {
    "should be the same": "dtype",
    "non-positive stride is not supported": "stride",
    "negative padding is not supported": "padding",
    "dilation should be greater than zero": "dilation",
}


def test_error_inputs_name_the_same_mistake_on_a_depthwise_weight():
    cases = [case for case in CONV2D.error_inputs("cpu") if case.error_regex in NAMED_IN_MESSAGE]
    assert {case.error_regex for case in cases} == set(NAMED_IN_MESSAGE)
    for case in cases:
        sample = case.sample_input
        weight, bias = sample.args
        channels = sample.input.shape[-3]
        weight, bias = weight[:1, :1].repeat(channels, 1, 1, 1), bias[:1].repeat(channels)
        with pytest.raises((case.error_type, ValueError, TypeError), match=NAMED_IN_MESSAGE[case.error_regex]):
            depthwise_conv2d(sample.input, weight, bias, **sample.kwargs)

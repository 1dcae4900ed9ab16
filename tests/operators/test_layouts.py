"""Memory formats: the output's, the gradients', and any strides as operands."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from tests.calls import FORMATS, assert_close
from torch_dwconv import depthwise_conv2d
from torch_dwconv.operators.formats import suggests_channels_last

# (N, C, H, W): the usual, and every kind for which strides alone tell the formats apart.
SIZES = ((2, 6, 5, 4), (1, 6, 5, 4), (2, 1, 5, 4), (2, 6, 1, 1), (2, 6, 1, 4), (2, 6, 5, 1), (2, 1, 1, 1), (1, 1, 1, 1))
STORAGES = (*FORMATS, "sliced", "transposed", "expanded")
PAIRS = list(itertools.product(FORMATS, FORMATS))


def stored(tensor, how):
    """The same values in a memory format, or in strides that are neither."""
    if isinstance(how, torch.memory_format):
        return tensor.contiguous().clone(memory_format=torch.contiguous_format).to(memory_format=how)
    if how == "sliced":
        return torch.repeat_interleave(tensor, 2, dim=3)[..., ::2]
    if how == "transposed":
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if how == "expanded":
        return tensor[:, :1].expand(tensor.shape)
    raise ValueError(how)


@pytest.mark.parametrize("size", [*SIZES, (0, 6, 5, 4)])
@pytest.mark.parametrize("storage", STORAGES)
def test_suggestion_is_pytorchs(size, storage):
    tensor = stored(torch.randn(size), storage)
    # c10's suggest_memory_format has no name in Python, but this operator gives its result that format.
    upsampled = F.interpolate(tensor, scale_factor=2)
    suggested = torch.empty(upsampled.shape, memory_format=FORMATS[suggests_channels_last(tensor)])
    assert upsampled.stride() == suggested.stride()


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 3)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("input_format", "weight_format"), PAIRS)
def test_output_has_the_strides_of_conv2d(size, kernel, input_format, weight_format):
    input, weight = stored(torch.randn(size), input_format), stored(torch.randn(size[1], 1, *kernel), weight_format)
    padding = (kernel[0] // 2, kernel[1] // 2)
    output = depthwise_conv2d(input, weight, padding=padding)
    expected = F.conv2d(input, weight, padding=padding, groups=size[1])
    if (size, kernel) == ((2, 6, 1, 1), (1, 1)):  # aten takes this for a matrix product, and loses the format
        expected = torch.empty(size, memory_format=input_format)
    assert output.stride() == expected.stride()
    assert_close(output, F.conv2d(input.double(), weight.double(), padding=padding, groups=size[1]))


@pytest.mark.parametrize("input_storage", STORAGES)
@pytest.mark.parametrize("weight_storage", STORAGES)
@pytest.mark.parametrize("grad_storage", STORAGES)
def test_any_strides_are_right_in_all_three_operations(input_storage, weight_storage, grad_storage):
    input = stored(torch.randn(2, 6, 5, 7), input_storage).requires_grad_()
    weight = stored(torch.randn(6, 1, 3, 3), weight_storage).requires_grad_()
    output = depthwise_conv2d(input, weight, padding=1)
    grad_output = stored(torch.randn(output.shape), grad_storage)
    gradients = torch.autograd.grad(output, (input, weight), grad_output)

    exact = [t.detach().double().requires_grad_() for t in (input, weight)]
    exact_output = F.conv2d(*exact, padding=1, groups=6)
    exact_gradients = torch.autograd.grad(exact_output, exact, grad_output.double())
    for actual, right in zip((output, *gradients), (exact_output, *exact_gradients), strict=True):
        assert_close(actual, right)


@pytest.mark.parametrize(("input_format", "weight_format"), PAIRS)
def test_gradients_keep_the_format_of_what_they_are_of(input_format, weight_format):
    input = torch.randn(2, 6, 5, 4).to(memory_format=input_format).requires_grad_()
    weight = torch.randn(6, 1, 3, 3).to(memory_format=weight_format).requires_grad_()
    output = depthwise_conv2d(input, weight)
    for grad_format in FORMATS:
        grad_output = torch.randn(output.shape).to(memory_format=grad_format)
        gradients = torch.autograd.grad(output, (input, weight), grad_output, retain_graph=True)
        assert [g.stride() for g in gradients] == [input.stride(), weight.stride()]

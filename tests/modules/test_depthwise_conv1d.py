"""DepthwiseConv1d against nn.Conv1d(groups=in_channels) in float64, and what only it can do."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv1d, SeparableConv1d, convert


def pair_of_layers(*args, **kwargs) -> tuple[DepthwiseConv1d, nn.Conv1d]:
    torch.manual_seed(0)
    ours = DepthwiseConv1d(*args, dtype=torch.float64, **kwargs)
    torch.manual_seed(0)
    return ours, nn.Conv1d(*args, groups=args[0], dtype=torch.float64, **kwargs)


def output_and_gradients(layer, input):
    input = input.clone().requires_grad_()
    output = layer(input)
    torch.manual_seed(1)
    return [output, *torch.autograd.grad(output, [input, *layer.parameters()], torch.randn_like(output))]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 2, "stride": 2, "bias": False},
        {"padding": (1,), "dilation": 3},
        {"padding": "same", "dilation": 2},
    ],
    ids=str,
)
def test_equals_conv1d(options, padding_mode):
    ours, theirs = pair_of_layers(5, 10, 4, padding_mode=padding_mode, **options)
    assert repr(ours) == "Depthwise" + repr(theirs)
    for shape in [(3, 5, 17), (5, 17)]:
        input = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(output_and_gradients(ours, input), output_and_gradients(theirs, input))


def test_is_a_conv1d_with_the_same_state_dict():
    ours, theirs = pair_of_layers(4, 8, 3)
    assert isinstance(ours, nn.Conv1d)
    assert vars(ours).keys() == vars(theirs).keys()
    ours.load_state_dict(theirs.state_dict())
    twin = pickle.loads(pickle.dumps(copy.deepcopy(ours)))
    input = torch.randn(1, 4, 9, dtype=torch.float64)
    torch.testing.assert_close(twin(input), theirs(input))


@pytest.mark.parametrize("padding_mode", ["zeros", "replicate"])
def test_each_side_has_its_own_padding(padding_mode):
    layer = DepthwiseConv1d(3, 6, 4, padding=[3, 0], dilation=1, padding_mode=padding_mode)
    input = torch.randn(2, 3, 10)
    padded = F.pad(input, (3, 0), mode="constant" if padding_mode == "zeros" else padding_mode)
    torch.testing.assert_close(layer(input), F.conv1d(padded, layer.weight, layer.bias, groups=3))
    assert "padding=(3, 0)" in repr(layer)
    assert DepthwiseConv1d(3, 3, 3, padding=(1, 1)).padding == (1,)


def test_a_causal_layer_does_not_see_the_future():
    layer = DepthwiseConv1d(3, 3, 4, padding=(6, 0), dilation=2)
    input = torch.randn(1, 3, 12)
    changed = input.clone()
    changed[..., 7:] += 1
    equal = (layer(input) == layer(changed)).all(1)[0]
    assert equal[:7].all() and not equal[7:].any()


@pytest.mark.parametrize("length, pads", [(15, (1, 1)), (16, (0, 1))])
def test_same_padding_with_a_stride_is_tensorflows(length, pads):
    layer, input = DepthwiseConv1d(2, 2, 3, 2, "same"), torch.randn(1, 2, length)
    torch.testing.assert_close(layer(input), F.conv1d(F.pad(input, pads), layer.weight, layer.bias, 2, groups=2))


@pytest.mark.parametrize(
    "shape, kernel_size",
    [*itertools.product([(2, 20, 8), (1, 20, 8), (2, 20, 1), (20, 8)], [1, 3]), ((2, 1, 8), 3)],
)
@pytest.mark.parametrize("layer", [DepthwiseConv1d, SeparableConv1d])
def test_strides_are_those_of_nn_conv1d(layer, kernel_size, shape):
    """Of (N, L, C) too, as sequence models hold it; what follows may ask for a view."""
    sequence = torch.randn(shape, requires_grad=True)
    channels = shape[-1]
    input = sequence.transpose(-1, -2)
    plain = nn.Conv1d(channels, 2 * channels, kernel_size, padding=1, groups=channels)
    if layer is SeparableConv1d:
        plain = nn.Sequential(plain, nn.Conv1d(2 * channels, 4, 1))
        ours = layer(channels, 4, kernel_size, padding=1, channel_multiplier=2)
    else:
        ours = layer(channels, 2 * channels, kernel_size, padding=1)
    assert ours(input).stride() == plain(input).stride()
    assert ours(input.detach()).stride() == plain(input.detach()).stride()
    grad = torch.ones_like(plain(input))
    assert [g.stride() for g in torch.autograd.grad(ours(input), [input, sequence], grad)] == [
        g.stride() for g in torch.autograd.grad(plain(input), [input, sequence], grad)
    ]


@pytest.mark.parametrize("shape", [(), (8,), (2, 4, 1, 8)])
@pytest.mark.parametrize("layer", [DepthwiseConv1d(4, 4, 3), SeparableConv1d(4, 4, 3)], ids=["depthwise", "separable"])
def test_other_dimensions_are_refused(layer, shape):
    with pytest.raises(RuntimeError, match=r"input must be \(N, C, L\) or \(C, L\), got \("):
        layer(torch.ones(shape))


@pytest.mark.parametrize("make", [nn.Conv1d, nn.ConvTranspose1d])
@pytest.mark.parametrize("bias", [True, False])
def test_the_output_is_no_view(make, bias):
    """A frozen encoder's output may be written to, and detached in place."""
    layer, input = convert(make(8, 8, 3, groups=8, bias=bias)), torch.randn(2, 8, 6)
    with torch.no_grad():
        output = layer(input)
    output += nn.Parameter(torch.ones(1))
    output.sum().backward()
    layer(input).detach_()
    output = layer(input)
    output.relu_().sum().backward()
    assert not layer(input)._is_view() and layer.weight.grad is not None


def test_compile(fresh_compiler):
    layer, input = DepthwiseConv1d(3, 6, 3, 2, "same"), torch.randn(2, 3, 11)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(input), layer(input))


@pytest.mark.parametrize(
    "args, options, message",
    [
        ((4, 4, 3), {"groups": 2}, "groups must be None or in_channels=4, got 2"),
        ((4, 6, 3), {}, "out_channels must be a positive multiple of in_channels=4, got 6"),
        ((4, 4, 3), {"padding": (1, 2, 3)}, r"padding must be an int, \(left, right\), .* got \(1, 2, 3\)"),
        ((4, 4, 3), {"padding": ((1, 2),)}, r"padding must be an int, \(left, right\)"),
        ((4, 4, 3), {"padding": "full"}, "Invalid padding string 'full'"),
    ],
)
def test_constructor_refuses(args, options, message):
    with pytest.raises(ValueError, match=message):
        DepthwiseConv1d(*args, **options)

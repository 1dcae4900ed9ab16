"""The formulas against counted multiply-adds, and FlopCounterMode with and without them."""

import itertools

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from torch_dwconv import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    flops,
    grad,
)
from torch_dwconv.causal_conv1d import causal_conv1d_update


def counted(batch, in_channels, out_channels, output, kernel, connected) -> int:
    """Two for every (image, input channel, output channel, output element, tap) of the textbook's loops."""
    channels = itertools.product(range(in_channels), range(out_channels))
    pairs = sum(connected(c, o) for c, o in channels)
    return 2 * batch * pairs * len(list(itertools.product(*map(range, (*output, *kernel)))))


@pytest.mark.parametrize("multiplier", [1, 3])
def test_formulas_count_multiply_adds(multiplier):
    batch, channels, out_channels, output, kernel = 2, 4, 5, (3, 6), (2, 5)
    middle = channels * multiplier
    depthwise = counted(batch, channels, middle, output, kernel, lambda c, o: o // multiplier == c)
    pointwise = counted(batch, middle, out_channels, output, (1, 1), lambda c, o: True)
    standard = counted(batch, channels, out_channels, output, kernel, lambda c, o: True)
    assert flops.depthwise(batch, channels, output, kernel, multiplier) == depthwise
    assert flops.separable(batch, channels, out_channels, output, kernel, multiplier) == depthwise + pointwise
    assert flops.standard(batch, channels, out_channels, output, kernel) == standard


def test_the_published_form():
    """2 * bs * ic * oh * ow * (kh * kw + oc), and the ratio of the MobileNets paper, 1/O + 1/K^2."""
    assert flops.separable(8, 32, 64, (56, 48), (3, 5)) == 2 * 8 * 32 * 56 * 48 * (3 * 5 + 64)
    ratio = flops.separable(1, 32, 64, (7, 7), (3, 3)) / flops.standard(1, 32, 64, (7, 7), (3, 3))
    assert ratio == pytest.approx(1 / 64 + 1 / 9)


def by_operator(run) -> dict[str, int]:
    with FlopCounterMode(display=False) as mode:
        run()
    return {str(operator): count for operator, count in mode.get_flop_counts()["Global"].items()}


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_flop_counter_mode(multiplier, bias):
    layer = DepthwiseConv2d(6, 6 * multiplier, (3, 5), 2, ((1, 0), (2, 2)), bias=bias)
    input = torch.randn(2, 6, 13, 12, requires_grad=True)
    expected = flops.depthwise(2, 6, layer(input).shape[2:], (3, 5), multiplier)
    operators = [f"torch_dwconv.{operation}" for operation in ("forward", "grad_input", "grad_weight")]
    assert by_operator(lambda: layer(input).sum().backward()) == dict.fromkeys(operators, expected)
    with torch.no_grad():
        assert by_operator(lambda: layer(input)) == {operators[0]: expected}


def test_each_gradient_by_itself():
    input, weight, grad_output = torch.randn(2, 3, 8, 8), torch.randn(3, 1, 3, 3), torch.randn(2, 3, 6, 6)
    expected = flops.depthwise(2, 3, (6, 6), (3, 3))
    assert by_operator(lambda: grad.depthwise_conv2d_input(input.shape, weight, grad_output)) == {
        "torch_dwconv.grad_input": expected
    }
    assert by_operator(lambda: grad.depthwise_conv2d_weight(input, weight.shape, grad_output)) == {
        "torch_dwconv.grad_weight": expected
    }


def test_both_gradients_in_one_operator():
    input, weight, grad_output = torch.randn(2, 3, 8, 8), torch.randn(6, 1, 3, 3), torch.randn(2, 6, 6, 6)
    backward = torch.ops.torch_dwconv.backward
    counts = by_operator(lambda: backward(grad_output, input, weight, 1, 1, 0, 0, 1, 1, True, False, False))
    assert counts == {"torch_dwconv.backward": 2 * flops.depthwise(2, 3, (6, 6), (3, 3), 2)}


def test_sequences():
    layer, input = DepthwiseConv1d(6, 6, 4, padding=(3, 0), activation="silu"), torch.randn(2, 6, 13)
    expected = flops.depthwise(2, 6, (1, 13), (1, 4))
    assert by_operator(lambda: layer(input, torch.randn(2, 6, 3)).sum().backward()) == {
        "torch_dwconv.causal_conv1d": expected,
        "torch_dwconv.causal_conv1d_backward": 2 * expected,
    }
    weight, state = layer.weight.detach()[:, 0], torch.zeros(2, 6, 3)
    assert by_operator(lambda: causal_conv1d_update(input, state, weight)) == {
        "torch_dwconv.causal_conv1d_update": expected
    }


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("dim", [1, 2])
def test_transposed_layers_count_as_pytorchs(multiplier, dim):
    """Every tap of every input, in the output and in both gradients; PyTorch counts `groups` times too much again."""
    kinds = {1: (DepthwiseConvTranspose1d, nn.ConvTranspose1d), 2: (DepthwiseConvTranspose2d, nn.ConvTranspose2d)}[dim]
    options = {"stride": 2, "padding": 1, "output_padding": 1}
    input = torch.randn(2, 6, *(9, 7)[:dim], requires_grad=True)
    ours, theirs = (kind(6, 6 * multiplier, 3, groups=6, **options) for kind in kinds)
    one = by_operator(lambda: theirs(input.detach()))["aten.convolution"]
    with torch.no_grad():
        assert by_operator(lambda: ours(input)) == {"torch_dwconv.grad_input": one}
    operators = [f"torch_dwconv.{operation}" for operation in ("grad_input", "forward", "grad_weight")]
    assert by_operator(lambda: ours(input).sum().backward()) == dict.fromkeys(operators, one)


def test_against_pytorchs_own_count():
    """The same but for the weight gradient, of which PyTorch counts `groups` times too much."""
    channels, input = 6, torch.randn(2, 6, 9, 9, requires_grad=True)
    ours, theirs = DepthwiseConv2d(channels, channels, 3), nn.Conv2d(channels, channels, 3, groups=channels)
    counts = [by_operator(lambda layer=layer: layer(input).sum().backward()) for layer in (ours, theirs)]
    one = flops.depthwise(2, channels, (7, 7), (3, 3))
    assert sum(counts[0].values()) == 3 * one
    assert counts[1] == {"aten.convolution": one, "aten.convolution_backward": one + channels * one}

"""Separable convolutions in one call: the same values as of two, never of weights that are no longer there."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from torch_dwconv import SeparableConv2d, separable_conv2d, tf
from torch_dwconv.operators.block import separable

CASES = [
    ((2, 8, 12, 10), 16, 3, {}),
    ((1, 5, 9, 7), 3, (3, 5), dict(stride=2, padding=1)),
    ((3, 7, 11, 13), 70, 3, dict(stride=(2, 1), padding="same", dilation=(1, 2))),
    ((2, 4, 15, 15), 9, 5, dict(stride=3, padding=((2, 1), (0, 4)))),
    ((2, 6, 8, 8), 6, 1, {}),
    ((2, 6, 8, 8), 4, 3, dict(padding=1, channel_multiplier=2)),
]


@pytest.fixture
def calls(monkeypatch):
    """The calls of the block operator, which small layers get too."""
    monkeypatch.setattr(separable, "_LEAST_WORK", 0)
    seen = []
    below = separable.below_autograd

    def counted(op, *args):
        seen.append(op)
        return below(op, *args)

    monkeypatch.setattr(separable, "below_autograd", counted)
    return seen


def nhwc(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)


def right(layer: SeparableConv2d, input):
    twin = copy.deepcopy(layer).double()
    assert torch.is_grad_enabled() is False
    return twin(input.double())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.02), (torch.float16, 0.003)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape, outputs, kernel, options", CASES)
def test_values_and_strides(shape, outputs, kernel, options, bias, dtype, tolerance, calls):
    layer = SeparableConv2d(shape[1], outputs, kernel, bias=bias, **options).to(dtype)
    input = nhwc(*shape, dtype=dtype)
    with torch.no_grad():
        expected = right(layer, input)
        two = layer(input)
        assert not calls
        for _ in range(2):
            actual = layer(input)
            assert (actual.double() - expected).norm() <= tolerance * expected.norm()
            assert actual.stride() == two.stride() and actual.dtype == dtype
    assert len(calls) == (2 if dtype == torch.float32 else 0)


def test_little_work_is_two_calls(calls, monkeypatch):
    layer, input = SeparableConv2d(6, 9, 3), nhwc(2, 6, 8, 8)
    with torch.no_grad():
        for least, seen in [(2 * 36 * 54 + 1, 0), (2 * 36 * 54, 2)]:
            monkeypatch.setattr(separable, "_LEAST_WORK", least)
            for _ in range(3):
                layer(input)
            assert len(calls) == seen


def test_changed_weights(calls):
    layer, other, input = SeparableConv2d(6, 9, 3), SeparableConv2d(6, 9, 3), nhwc(2, 6, 8, 8)

    def check():
        for _ in range(3):
            torch.testing.assert_close(layer(input).double(), right(layer, input), rtol=1e-4, atol=1e-5)

    with torch.no_grad():
        check()
        layer.load_state_dict(other.state_dict())
        check()
        layer.pointwise_weight.mul_(2)
        check()
        layer.bias.add_(1)
        check()
        layer.depthwise_weight.data.neg_()
        check()
        layer.pointwise_weight.data.mul_(3)
        check()
        layer.bias.data.mul_(3)
        check()
        layer.pointwise_weight = nn.Parameter(torch.randn(9, 6, 1, 1))
        check()
        layer.bias = None
        check()
    assert len(calls) >= 9


def test_nothing_of_it_is_in_the_module(calls):
    layer, input = SeparableConv2d(6, 9, 3), nhwc(2, 6, 8, 8)
    before = {*vars(layer)}
    with torch.inference_mode():
        expected = [layer(input) for _ in range(3)][-1]
        assert {*vars(layer)} == before and [*layer.state_dict()] == ["depthwise_weight", "pointwise_weight", "bias"]
        for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            for _ in range(3):
                torch.testing.assert_close(twin(input), expected)
            twin.pointwise_weight.data.zero_()
            torch.testing.assert_close(layer(input), expected)
    key, weight = id(layer.pointwise_weight), weakref.ref(layer.pointwise_weight)
    assert key in separable._known and calls
    del layer
    gc.collect()
    assert weight() is None and key not in separable._known


def test_functions(calls):
    input, depthwise, pointwise = nhwc(2, 6, 8, 8), torch.randn(6, 1, 3, 3), torch.randn(9, 6, 1, 1)
    expected = F.conv2d(F.conv2d(input, depthwise, groups=6), pointwise)
    for _ in range(3):
        torch.testing.assert_close(separable_conv2d(input, depthwise, pointwise), expected, rtol=1e-4, atol=1e-4)
    assert len(calls) == 2
    filters = depthwise.permute(2, 3, 0, 1).contiguous(), pointwise.permute(2, 3, 1, 0).contiguous()
    for _ in range(3):
        output = tf.separable_conv2d(input.permute(0, 2, 3, 1), *filters, [1, 1, 1, 1], "VALID")
        torch.testing.assert_close(output, expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
        assert output.is_contiguous()
    assert len(calls) == 4
    filters[1].mul_(2)
    for _ in range(3):
        output = tf.separable_conv2d(input.permute(0, 2, 3, 1), *filters, [1, 1, 1, 1], "VALID")
        torch.testing.assert_close(output, 2 * expected.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert len(calls) == 6


def test_new_weights_are_never_packed(calls):
    input, depthwise = nhwc(2, 6, 8, 8), torch.randn(6, 1, 3, 3)
    for _ in range(20):
        separable_conv2d(input, depthwise, torch.randn(9, 6, 1, 1))
    assert not calls


def test_writes_that_change_no_version_are_seen(calls):
    layer, input = SeparableConv2d(6, 9, 3), nhwc(2, 6, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            layer(input)
        version = layer.pointwise_weight._version
        layer.pointwise_weight.data.copy_(torch.randn(9, 6, 1, 1))
        assert layer.pointwise_weight._version == version
        torch.testing.assert_close(layer(input).double(), right(layer, input), rtol=1e-4, atol=1e-5)
    assert len(calls) == 2


class _Watch(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def test_everything_else_is_two_calls(calls):
    layer = SeparableConv2d(6, 9, 3)
    input = nhwc(2, 6, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            layer(input.contiguous())
            layer(input[0])
            layer.double()(input.double())
            layer.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert [layer(input).dtype for _ in range(3)] == [torch.bfloat16] * 3
        with _Watch():
            [layer(input) for _ in range(3)]
        [torch.func.vmap(layer)(input[None]) for _ in range(3)]
        torch.export.export(layer, (input,))
    for _ in range(3):
        layer(input).sum().backward()
    assert layer.pointwise_weight.grad is not None and not calls


def test_padding_beyond_the_kernel(calls):
    layer, input = SeparableConv2d(6, 9, 3, padding=4), nhwc(2, 6, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(layer(input).double(), right(layer, input), rtol=1e-4, atol=1e-5)
    assert not calls


def test_errors_are_those_of_two_calls(calls):
    layer, input = SeparableConv2d(6, 9, 3), nhwc(2, 6, 8, 8)
    with torch.no_grad():
        for _ in range(3):
            layer(input)
        with pytest.raises(RuntimeError, match="channels"):
            layer(nhwc(2, 5, 8, 8))
        with pytest.raises(RuntimeError, match="kernel"):
            layer(nhwc(2, 6, 2, 2))
        with pytest.raises(RuntimeError, match="dtype"):
            separable_conv2d(input, layer.depthwise_weight.double(), layer.pointwise_weight, layer.bias)
    assert len(calls) == 2

"""torch_dwconv.weights: every element goes where its name says, there and back."""

import numpy as np
import pytest
import torch

from torch_dwconv import weights

C, M, KH, KW = 3, 2, 4, 5


def test_from_tf_by_elements():
    filter = torch.arange(KH * KW * C * M).reshape(KH, KW, C, M)
    weight = weights.from_tf(filter)
    assert weight.shape == (C * M, 1, KH, KW)
    for c, m, h, w in np.ndindex(C, M, KH, KW):
        assert weight[c * M + m, 0, h, w] == filter[h, w, c, m]
    assert torch.equal(weights.to_tf(weight, M), filter)


def test_from_tf_of_a_1d_layer():
    filter = torch.arange(KW * C * M).reshape(KW, C, M)
    weight = weights.from_tf(filter)
    assert weight.shape == (C * M, 1, KW) and weight[1 * M + 1, 0, 3] == filter[3, 1, 1]
    assert torch.equal(weights.to_tf(weight, M), filter)


@pytest.mark.parametrize("kernel", [(1, 1), (1,)])
def test_pointwise(kernel):
    filter = torch.randn(*kernel, 6, 4)
    weight = weights.pointwise_from_tf(filter)
    assert weight.shape == (4, 6, *kernel) and torch.equal(weight.flatten(1), filter.reshape(6, 4).T)
    assert torch.equal(weights.pointwise_to_tf(weight), filter)


def test_onednn_by_elements():
    weight = torch.arange(C * M * KH * KW).reshape(C * M, 1, KH, KW)
    goihw = weights.to_onednn(weight, M)
    assert goihw.shape == (C, M, 1, KH, KW) and goihw.data_ptr() == weight.data_ptr()
    for c, m in np.ndindex(C, M):
        assert torch.equal(goihw[c, m], weight[c * M + m])
    assert torch.equal(weights.from_onednn(goihw), weight)


def test_numpy_arrays_and_gradients():
    array = np.random.default_rng(0).standard_normal((KH, KW, C, M))
    assert torch.equal(weights.from_tf(array), weights.from_tf(torch.from_numpy(array)))
    filter = torch.randn(KH, KW, C, M, requires_grad=True)
    weights.to_tf(weights.from_tf(filter), M).sum().backward()
    assert torch.equal(filter.grad, torch.ones_like(filter))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: weights.from_tf(torch.zeros(3, 3)), r"filter must be \(kernel_h, kernel_w, C, M\) or .* got \(3, 3\)"),
        (lambda: weights.to_tf(torch.zeros(6, 2, 3, 3)), r"weight must be \(C\*M, 1, kernel_h, .* got \(6, 2, 3, 3\)"),
        (lambda: weights.to_tf(torch.zeros(6, 1, 3, 3), 4), "channel_multiplier must divide the 6 channels, got 4"),
        (lambda: weights.to_tf(torch.zeros(6, 1, 3, 3), 0), "channel_multiplier must divide the 6 channels, got 0"),
        (lambda: weights.pointwise_from_tf(torch.zeros(3, 3, 2, 2)), r"filter must be \(1, 1, I, O\)"),
        (lambda: weights.pointwise_to_tf(torch.zeros(2, 2, 3, 3)), r"weight must be \(O, I, 1, 1\)"),
        (lambda: weights.from_onednn(torch.zeros(6, 1, 3, 3)), r"weight must be \(C, M, 1, kernel_h, kernel_w\)"),
        (lambda: weights.from_onednn(torch.zeros(6, 1, 2, 3, 3)), r"weight must be \(C, M, 1, kernel_h, kernel_w\)"),
        (lambda: weights.to_onednn(torch.zeros(6, 1, 3)), r"weight must be \(C\*M, 1, kernel_h, kernel_w\)"),
        (
            lambda: weights.from_keras([]),
            r"weights must be one or two filters and at most one bias, got the shapes \[\]",
        ),
        (lambda: weights.from_keras([torch.zeros(3)] * 2), "weights must be one or two filters"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()

"""Bad input is one clear error, and nothing is written."""

import pytest
import torch

from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update, causal_conv1d_varlen_states

X, W, B = torch.randn(2, 8, 20), torch.randn(8, 4), torch.randn(8)
INT = torch.int32


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=X[0]), "x must have 3 dimensions, got 2"),
        (dict(weight=W[None]), r"weight must be \(8, width\)"),
        (dict(weight=W[:4]), r"weight must be \(8, width\)"),
        (dict(weight=W[:, :0]), "the width of weight must be positive"),
        (dict(bias=B[:7]), r"bias must be \(8,\)"),
        (dict(x=X.int(), weight=W.int(), bias=None), "float32, float64, bfloat16 or float16"),
        (dict(weight=W.int()), "weight and bias must be floating-point"),
        (dict(initial_states=X[:, :, :2]), r"initial_states must be \(2, 8, 3\), got \(2, 8, 2\)"),
        (dict(initial_states=X[:, :, :3].half()), "initial_states must have the dtype"),
        (dict(seq_idx=torch.zeros(2, 20, dtype=torch.int64)), "seq_idx must be int32"),
        (dict(seq_idx=torch.zeros(2, 19, dtype=INT)), r"seq_idx must be \(batch, seqlen\)"),
        (
            dict(seq_idx=torch.arange(20, 0, -1, dtype=INT).expand(2, 20)),
            "seq_idx must not decrease along a row, got 19",
        ),
        (dict(return_final_states=True, final_states_out=torch.zeros(2, 8, 2)), "final_states_out must be"),
    ],
)
def test_function(change, message):
    arguments = dict(x=X, weight=W, bias=B) | change
    with pytest.raises(RuntimeError, match=message):
        causal_conv1d_fn(**arguments)


def test_activation():
    for function, second in ((causal_conv1d_fn, W), (causal_conv1d_update, X)):
        with pytest.raises(NotImplementedError, match="activation must be None, silu, or swish, got 'relu'"):
            function(X, second, *((W,) if second is X else ()), activation="relu")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(x=X[0, :, 0]), "x must have 2 or 3 dimensions, got 1"),
        (dict(x=X[:, :, :1, None]), "x must have 2 or 3 dimensions, got 4"),
        (dict(x=X[:, :7, 0]), r"weight must be \(7, width\)"),
        (dict(conv_state=torch.zeros(2, 8, 2)), "conv_state must be"),
        (dict(conv_state=torch.zeros(1, 8, 4)), "conv_state must be"),
        (dict(conv_state=torch.zeros(2, 8, 4).double()), "conv_state must have the dtype"),
        (dict(conv_state=torch.zeros(8, 4)), "conv_state must have 3 dimensions"),
        (dict(conv_state=torch.zeros(1, 8, 4).expand(2, 8, 4)), "elements of conv_state must not share memory"),
        (dict(conv_state=torch.zeros(40).as_strided((2, 8, 4), (2, 4, 1))), "elements of conv_state must not share"),
        (dict(cache_seqlens=torch.zeros(2)), "cache_seqlens must be int32"),
        (dict(cache_seqlens=torch.zeros(3, dtype=INT)), r"cache_seqlens must be \(batch,\)"),
        (dict(conv_state_indices=torch.zeros(2, dtype=torch.int64)), "conv_state_indices must be int32"),
        (dict(conv_state_indices=torch.tensor([0, 2], dtype=INT)), "conv_state_indices must be below the 2 rows"),
        (dict(conv_state_indices=torch.tensor([1, 1], dtype=INT)), "must not name a row twice, got 1"),
    ],
)
def test_update(change, message):
    arguments = dict(x=X[:, :, 0], conv_state=torch.full((2, 8, 4), 7.0), weight=W, bias=B) | change
    before = arguments["conv_state"].clone()
    with pytest.raises(RuntimeError, match=message):
        causal_conv1d_update(**arguments)
    assert torch.equal(arguments["conv_state"], before)


def test_update_of_what_it_reads():
    memory = torch.randn(2, 8, 8)
    before = memory.clone()
    with pytest.raises(RuntimeError, match="conv_state must not share memory with another argument"):
        causal_conv1d_update(memory[:, :, 2], memory[:, :, :4], W)
    assert torch.equal(memory, before)


@pytest.mark.parametrize("bounds", [[0, 5, 3, 10], [1, 10], [0, 9], []])
def test_varlen_states(bounds):
    with pytest.raises(RuntimeError, match="cu_seqlens must"):
        causal_conv1d_varlen_states(torch.randn(10, 4), torch.tensor(bounds, dtype=INT), 3)
    with pytest.raises(RuntimeError, match="x must be"):
        causal_conv1d_varlen_states(torch.randn(10), torch.tensor([0, 10], dtype=INT), 3)

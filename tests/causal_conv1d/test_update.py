"""causal_conv1d_update: shifted caches, rings and rows of larger caches, against a list of positions."""

import itertools
import random

import pytest
import torch

from torch_dwconv.causal_conv1d import causal_conv1d_update, causal_conv1d_varlen_states
from torch_dwconv.operators.sequence import UPDATE
from torch_dwconv.operators.sequence.composed import composed_update

from .reference import updated
from .test_function import DTYPES, close


def cache_of(rows, channels, length, dtype, layout):
    if layout == "nlc":
        return torch.randn(rows, length, channels).to(dtype).transpose(1, 2)
    if layout == "part":
        whole = torch.randn(rows, channels + 3, length + 2).to(dtype)
        return whole[:, 1 : channels + 1, 1 : length + 1]
    return torch.randn(rows, channels, length).to(dtype)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("call", ["function", "operator", "wide"])
def test_autograd_notices_that_the_cache_is_written_to(call, mode):
    """As it notices PyTorch's own writes; where there is no autograd, nothing is in the way."""
    width = 70 if call == "wide" else 4
    x, weight = torch.randn(1, 8), torch.randn(8, width)

    def update(state):
        if call == "operator":
            return UPDATE(x[:, :, None], state, weight, None, None, None, 0)
        return causal_conv1d_update(x, state, weight)

    factor, state = torch.randn(1, 8, width, requires_grad=True), torch.zeros(1, 8, width)
    product = (factor * state).sum()
    with mode():
        update(state)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
    with torch.inference_mode():
        update(torch.zeros(1, 8, width))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_random_updates(dtype, seed):
    """Several calls, one after the other, so that wrong caches show in later outputs too."""
    random.seed(seed)
    torch.manual_seed(seed)
    for _ in range(25):
        batch, channels = random.choice([1, 2, 5]), random.choice([1, 3, 16, 63, 64, 65, 200])
        width = random.choice([1, 2, 3, 4, 5, 8, 12, 70])
        length = max(1, width - 1 + random.choice([0, 0, 1, 1, 2, 6]))
        rows = batch + random.choice([0, 3])
        ring, chosen = random.random() < 0.4, random.random() < 0.5
        state = cache_of(rows, channels, length, dtype, random.choice(["ncl", "nlc", "part"]))
        wide = torch.float32 if dtype in (torch.bfloat16, torch.float16) and random.random() < 0.5 else dtype
        weight = torch.randn(channels, width).to(wide)
        bias = random.choice([None, torch.randn(channels).to(wide)])
        activation = random.choice([None, "silu"])
        indices = torch.tensor(random.sample(range(rows), batch), dtype=torch.int32) if chosen else None
        if chosen and batch > 1 and random.random() < 0.5:
            indices[random.randrange(batch)] = -1
        used = list(range(batch)) if indices is None else indices.tolist()
        begins = torch.tensor([random.choice([0, 1, length, 3 * length + 1]) for _ in range(batch)], dtype=torch.int32)
        start = state.clone()
        # Oldest first: of a ring, from where the next position goes.
        histories = []
        for n, row in enumerate(used):
            first = int(begins[n]) % length if ring else 0
            histories.append([start[max(row, 0), :, (first + i) % length].clone() for i in range(length)])
        seqlens = begins.clone()
        for count in random.choices([1, 1, 1, 2, 3, 9], k=3):
            x = torch.randn(batch, channels, count).to(dtype)
            given = x[:, :, 0] if count == 1 and random.random() < 0.7 else x
            out = causal_conv1d_update(given, state, weight, bias, activation, seqlens if ring else None, indices)
            assert out.shape == given.shape and out.dtype == dtype
            expected = updated(x, histories, weight, bias, activation)
            for n, row in enumerate(used):
                if row < 0:
                    expected[n] = 0
            problem = (batch, channels, width, length, rows, ring, used, count, dtype)
            assert close(out.view(x.shape), expected, dtype), problem
            seqlens = seqlens + count
        for row in range(rows):
            if row not in used:
                assert torch.equal(state[row], start[row]), problem
        for n, row in enumerate(used):
            first = int(seqlens[n]) % length if ring else 0
            for i in range(length if row >= 0 else 0):
                place = (first + i) % length
                assert torch.equal(state[row, :, place], histories[n][len(histories[n]) - length + i]), problem


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("channels", [1, 15, 16, 17, 64, 100])
def test_four_positions_channel_after_channel(channels, wide, dtype):
    """The cache of transformers' Mamba, which has a path of its own: the same as with gaps between the channels."""
    torch.manual_seed(0)
    state = torch.randn(2, channels, 4).to(dtype)
    spaced = torch.zeros(2, channels, 5, dtype=dtype)[:, :, :4]
    spaced.copy_(state)
    parameters = torch.float32 if wide and dtype in (torch.bfloat16, torch.float16) else dtype
    weight, bias = torch.randn(channels, 4).to(parameters), torch.randn(channels).to(parameters)
    for _ in range(6):
        x = torch.randn(2, channels).to(dtype)
        outputs = [causal_conv1d_update(x, each, weight, bias, "silu") for each in (state, spaced)]
        assert outputs[0].stride() == (channels, 1)
        assert close(outputs[0], outputs[1], dtype) and torch.equal(state, spaced)


def test_two_and_three_dimensions_of_every_operator_call():
    """The function, the operator and its composition take (batch, dim) as one position."""
    x, state, weight = torch.randn(2, 8), torch.randn(2, 8, 4), torch.randn(8, 4)
    outputs = []
    for step in (UPDATE, composed_update):
        for given in (x, x[:, :, None]):
            cache = state.clone()
            outputs.append((step(given, cache, weight, None, None, None, 0), cache))
            assert outputs[-1][0].shape == given.shape
    for output, cache in outputs:
        torch.testing.assert_close(output.flatten(), outputs[0][0].flatten())
        assert torch.equal(cache, outputs[0][1])


def test_a_padded_row_writes_nothing():
    state = torch.randn(3, 8, 4)
    before = state.clone()
    indices = torch.tensor([-1, 2], dtype=torch.int32)
    out = causal_conv1d_update(torch.randn(2, 8), state, torch.randn(8, 4), conv_state_indices=indices)
    assert not out[0].any() and out[1].any()
    assert torch.equal(state[:2], before[:2]) and not torch.equal(state[2], before[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("state_len", [0, 1, 3, 7])
def test_varlen_states(dtype, state_len):
    x = torch.randn(20, 6).to(dtype)
    bounds = [0, 1, 1, 8, 20]
    states = causal_conv1d_varlen_states(x, torch.tensor(bounds, dtype=torch.int32), state_len)
    assert states.shape == (4, 6, state_len) and (state_len == 0 or states.stride(1) == 1)
    for sequence, (begin, end) in enumerate(itertools.pairwise(bounds)):
        padded = torch.cat([torch.zeros(6, state_len, dtype=dtype), x[begin:end].t()], 1)
        assert torch.equal(states[sequence], padded[:, padded.shape[1] - state_len :])

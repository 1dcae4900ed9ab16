"""What the functions of causal-conv1d mean, one sequence after the other in float64, by F.conv1d; differentiable."""

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """(begin, end) of each stretch of one number."""
    bounds = [0, *(i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1]), len(numbers)]
    return list(itertools.pairwise(bounds))


def convolved(x, weight, bias=None, seq_idx=None, initial_states=None, activation=None) -> Tensor:
    x, weight = x.double(), weight.double()
    reach = weight.shape[1] - 1
    images = []
    for n in range(x.shape[0]):
        pieces = []
        numbers = [0] * x.shape[2] if seq_idx is None else seq_idx[n].tolist()
        for begin, end in _runs(numbers):
            before = x.new_zeros(x.shape[1], reach)
            if begin == 0 and initial_states is not None:
                before = initial_states[n].double()
            sequence = torch.cat([before, x[n, :, begin:end]], 1)[None]
            piece = F.conv1d(sequence, weight[:, None], None if bias is None else bias.double(), groups=x.shape[1])[0]
            piece = F.silu(piece) if activation else piece
            pieces.append(piece if numbers[begin] >= 0 else torch.zeros_like(piece))
        images.append(torch.cat(pieces, 1))
    return torch.stack(images)


def final_states(x, reach: int, seq_idx=None, initial_states=None) -> Tensor:
    """The last positions of the states and x, without those of other sequences than the last."""
    before = x.new_zeros(*x.shape[:2], reach) if initial_states is None else initial_states
    everything = torch.cat([before, x], 2).clone()
    if seq_idx is not None:
        for n in range(x.shape[0]):
            numbers = [seq_idx[n, 0].item()] * reach + seq_idx[n].tolist()
            for place, number in enumerate(numbers):
                if number != numbers[-1] or number < 0:
                    everything[n, :, place] = 0
    return everything[:, :, everything.shape[2] - reach :]


def updated(x, cache: list[list[Tensor]], weight, bias, activation):
    """Outputs (N, C, S) for caches that are lists of positions, oldest first, each of them (C,): appended to."""
    width = weight.shape[1]
    outputs = []
    for n, history in enumerate(cache):
        steps = []
        for position in range(x.shape[2]):
            history.append(x[n, :, position])
            window = torch.stack(history[len(history) - width :], 1).double()
            step = (window * weight.double()).sum(1)
            if bias is not None:
                step = step + bias.double()
            steps.append(F.silu(step) if activation else step)
        outputs.append(torch.stack(steps, 1))
    return torch.stack(outputs)

"""A small Mamba-2 language model: its causal convolution by torch_dwconv, or in PyTorch's functions.

The layer of Dao and Gu, 2024, https://arxiv.org/abs/2405.21060, with one group. Training takes whole sequences, in the
quadratic form of section 3; generation takes a step for each token, in the recurrent one, and keeps a state.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update

TAPS = 4
State = tuple[Tensor, Tensor]  # of a layer: TAPS positions before the convolution, and what the recurrence holds


def plain_fn(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """causal_conv1d_fn as models without such a package compute it."""
    return F.silu(F.conv1d(x, weight[:, None], bias, padding=TAPS - 1, groups=len(weight))[..., : x.shape[-1]])


def plain_update(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """causal_conv1d_update as models without such a package compute it."""
    state.copy_(torch.cat([state[..., 1:], x[..., None]], -1))
    return F.silu((state * weight).sum(-1) + bias)


CONVOLUTIONS = {
    "torch_dwconv": (causal_conv1d_fn, causal_conv1d_update),
    "PyTorch": (plain_fn, plain_update),
}


class Mixer(nn.Module):
    """Maps (N, L, width) to (N, L, width), each position by those up to it."""

    def __init__(self, width: int, heads: int, states: int) -> None:
        super().__init__()
        inner = 2 * width
        channels = inner + 2 * states
        self.heads, self.sizes, self.parts = heads, (inner, channels, heads), (inner, states, states)
        self.convolution = CONVOLUTIONS["torch_dwconv"]
        self.read = nn.Linear(width, sum(self.sizes), bias=False)
        layer = nn.Conv1d(channels, channels, TAPS, groups=channels)  # for its initialisation
        self.weight, self.bias = nn.Parameter(layer.weight.detach()[:, 0].clone()), layer.bias
        steps = torch.exp(torch.linspace(-6.9, -2.3, heads))  # 0.001 to 0.1
        self.step_bias = nn.Parameter(steps + torch.log(-torch.expm1(-steps)))  # softplus's inverse
        self.log_rate = nn.Parameter(torch.log(torch.linspace(1, 16, heads)))
        self.skip = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(inner)
        self.write = nn.Linear(inner, width, bias=False)

    def forward(self, u: Tensor) -> Tensor:
        gate, channels, step = self.read(u).split(self.sizes, -1)
        channels = self.convolution[0](channels.transpose(1, 2), self.weight, self.bias, activation="silu")
        x, b, c = channels.transpose(1, 2).split(self.parts, -1)
        x = x.unflatten(-1, (self.heads, -1))
        step = F.softplus(step + self.step_bias)  # (N, L, heads)
        decay = (step * -self.log_rate.exp()).cumsum(1).transpose(1, 2)  # (N, heads, L)
        future = torch.full((u.shape[1], u.shape[1]), -torch.inf).triu(1)
        decay = (decay[..., None] - decay[..., None, :] + future).exp()  # (N, heads, L, L)
        mixing = (c @ b.mT)[:, None] * decay
        y = (mixing @ (step[..., None] * x).transpose(1, 2)).transpose(1, 2) + self.skip[:, None] * x
        return self.write(self.norm(y.flatten(-2) * F.silu(gate)))

    def step(self, u: Tensor, state: State) -> Tensor:
        """One position, (N, width). Writes to `state`."""
        gate, channels, step = self.read(u).split(self.sizes, -1)
        channels = self.convolution[1](channels, state[0], self.weight, self.bias, activation="silu")
        x, b, c = channels.split(self.parts, -1)
        x = x.unflatten(-1, (self.heads, -1))
        step = F.softplus(step + self.step_bias)
        state[1].mul_((step * -self.log_rate.exp()).exp()[..., None, None])
        state[1].add_((step[..., None] * x)[..., None] * b[:, None, None])
        y = (state[1] * c[:, None, None]).sum(-1) + self.skip[:, None] * x
        return self.write(self.norm(y.flatten(-2) * F.silu(gate)))

    def new_state(self, batch: int) -> State:
        inner, channels, _ = self.sizes
        memory = self.weight.new_zeros(batch, self.heads, inner // self.heads, self.parts[1])
        return self.weight.new_zeros(batch, channels, TAPS), memory


class Mamba(nn.Module):
    """Logits of the next token for each position."""

    def __init__(self, tokens: int, width: int = 128, layers: int = 3, heads: int = 8, states: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.mixers = nn.ModuleList(Mixer(width, heads, states) for _ in range(layers))
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(layers + 1))

    def convolve_by(self, name: str) -> "Mamba":
        """Has the layers take one of CONVOLUTIONS."""
        for mixer in self.mixers:
            mixer.convolution = CONVOLUTIONS[name]
        return self

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L) to (N, L, tokens)."""
        u = self.embedding(tokens)
        for mixer, norm in zip(self.mixers, self.norms, strict=False):
            u = u + mixer(norm(u))
        return self.norms[-1](u) @ self.embedding.weight.T

    def step(self, tokens: Tensor, states: list[State]) -> Tensor:
        """(N,) to (N, tokens). Writes to `states`."""
        u = self.embedding(tokens)
        for mixer, norm, state in zip(self.mixers, self.norms, states, strict=False):
            u = u + mixer.step(norm(u), state)
        return self.norms[-1](u) @ self.embedding.weight.T

    def new_states(self, batch: int) -> list[State]:
        return [mixer.new_state(batch) for mixer in self.mixers]

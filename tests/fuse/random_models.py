"""Models drawn at random: chains of what blocks are made of, and of what ends them, in any order."""

import random

import torch
from torch import nn
from torch.nn import functional as F

ACTS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.Hardswish(inplace=True),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.Hardsigmoid(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Identity(),
]


class Same(nn.Module):
    """TensorFlow's SAME before a convolution without padding."""

    def __init__(self, kernel, stride):
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x):
        pads = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return F.pad(x, pads)


class Squeeze(nn.Module):
    def __init__(self, rng, channels):
        super().__init__()
        hidden = rng.randint(1, 9)
        self.linear, self.keep = rng.random() < 0.3, rng.random() < 0.5
        layer = nn.Linear if self.linear else lambda *sizes: nn.Conv2d(*sizes, 1)
        self.reduce, self.expand = layer(channels, hidden), layer(hidden, channels)
        self.act, self.gate = rng.choice([F.relu, F.silu, F.hardswish]), rng.choice([torch.sigmoid, F.hardsigmoid])

    def forward(self, x):
        mean = x.mean((2, 3), keepdim=not self.linear)
        gate = self.gate(self.expand(self.act(self.reduce(mean))))
        gate = gate[..., None, None] if self.linear else gate
        return x * gate if self.keep else gate * x


class Tokens(nn.Module):
    """LayerNorm, an MLP, LayerScale and a residual on (N, H, W, C) or (N, H*W, C)."""

    def __init__(self, rng, channels):
        super().__init__()
        wide = rng.randint(1, 3 * channels)
        self.norm = nn.LayerNorm(channels, eps=rng.choice([1e-5, 1e-6]), elementwise_affine=rng.random() < 0.7)
        self.mlp = nn.Sequential(nn.Linear(channels, wide), rng.choice(ACTS), nn.Linear(wide, channels))
        self.gamma = nn.Parameter(torch.rand(channels)) if rng.random() < 0.5 else 1.0
        self.flat, self.residual = rng.random() < 0.5, rng.random() < 0.5

    def forward(self, x):
        y = x.flatten(2).transpose(1, 2) if self.flat else x.permute(0, 2, 3, 1)
        z = self.gamma * self.mlp(self.norm(y))
        z = y + z if self.residual else z
        return z.transpose(1, 2).reshape(x.shape) if self.flat else z.permute(0, 3, 1, 2)


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)
        self.beta = nn.Parameter(torch.rand(1, channels, 1, 1))

    def forward(self, x):
        return x * self.gamma + self.beta


def convolution(rng, channels, depthwise=False) -> tuple[list[nn.Module], int]:
    """A convolution with what may stand around it, and its channels."""
    out = channels * rng.choice([1, 1, 1, 2]) if depthwise else rng.randint(1, 70)
    kernel = [rng.choice([1, 1, 2, 3, 3, 5]) for _ in range(2)] if depthwise or rng.random() < 0.4 else [1, 1]
    stride, dilation = [rng.choice([1, 1, 1, 2, 3]) for _ in range(2)], [rng.choice([1, 1, 1, 2]) for _ in range(2)]
    groups = channels if depthwise else 1
    options = {"groups": groups, "bias": rng.random() < 0.5}
    before: list[nn.Module] = []
    way = rng.random()
    if way < 0.2:
        options |= {"padding": "same", "dilation": dilation}
    elif way < 0.35:
        before, options = [Same(kernel, stride)], options | {"stride": stride}
    else:
        padding = [rng.randint(0, step * (taps - 1)) for step, taps in zip(dilation, kernel, strict=True)]
        options |= {"stride": stride, "padding": padding, "dilation": dilation}
    if options["bias"] and rng.random() < 0.1:
        before.append(nn.ZeroPad2d([rng.randint(0, 2) for _ in range(4)]))
    norm = [nn.BatchNorm2d(out)] if rng.random() < 0.5 else [Scale(out)] if rng.random() < 0.3 else []
    act = [rng.choice(ACTS)] if rng.random() < 0.7 else []
    return [*before, nn.Conv2d(channels, out, kernel, **options), *norm, *act], out


class Random(nn.Module):
    """A chain in which some steps read what an earlier one made, and the result may be several tensors."""

    def __init__(self, seed: int, length: int = 7):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        self.seed, channels = seed, rng.randint(1, 20)
        self.in_channels = channels
        self.steps = nn.ModuleList()
        self.kinds: list[str] = []
        for _ in range(length):
            kind = rng.choice(
                ["dense", "dense", "depthwise", "depthwise", "squeeze", "norm", "tokens", "residual", "twice"]
            )
            step: nn.Module
            if kind in ("dense", "depthwise"):
                modules, channels = convolution(rng, channels, kind == "depthwise")
                step = nn.Sequential(*modules)
            elif kind == "squeeze":
                step = Squeeze(rng, channels)
            elif kind == "norm":
                step = LayerNorm2d(channels)
            elif kind == "tokens":
                step = Tokens(rng, channels)
            else:
                step = nn.Sequential(
                    nn.Conv2d(channels, channels, rng.choice([1, 3]), padding="same"), rng.choice(ACTS)
                )
            self.steps.append(step)
            self.kinds.append(kind)
        self.act, self.end = rng.choice(ACTS), rng.choice(["image", "mean", "classes", "all", "view"])
        self.head = nn.Linear(channels, rng.randint(1, 70))

    def forward(self, x):
        kept = []
        for step, kind in zip(self.steps, self.kinds, strict=True):
            if kind == "residual":
                x = self.act(x + step(x))
            elif kind == "twice":  # a layer that is called twice, and read twice
                y = step(x)
                x = step(y) + y + x
            else:
                x = step(x)
            kept.append(x)
        if self.end == "all":
            return kept[-1], kept[len(kept) // 2], kept[-1].mean((2, 3))
        if self.end == "mean":
            return x.mean((2, 3))
        if self.end == "classes":
            return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return x.permute(0, 2, 3, 1)[:, :1] if self.end == "view" else x

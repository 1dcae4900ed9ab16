"""Programs drawn at random: any operator that a pass looks at may read any tensor that was made before.

A program is found by running it. Each step is drawn with the tensors there are, tried, and left out if it fails. Sizes
often coincide (channels, height, width, tokens), so that what takes one axis for another gives a wrong result.
"""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = tuple[Callable[..., Any], list[nn.Module], int]  # what computes, its modules, how many tensors it reads

ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [
    F.relu,
    F.relu6,
    F.hardswish,
    F.silu,
    F.gelu,
    F.hardsigmoid,
    torch.sigmoid,
    torch.tanh,
    F.mish,
    F.elu,
    lambda x: F.gelu(x, approximate="tanh"),
    lambda x: x.clamp(0, 6),
    lambda x: x.clamp(min=0),
    lambda x: x.clamp(-1, 1),
    lambda x: F.hardtanh(x, 0, 6),
    lambda x: F.hardtanh(x, 0, 1),
    lambda x: x * torch.sigmoid(x),
    lambda x: x * F.hardsigmoid(x),
    lambda x: x * F.relu6(x + 3) / 6,
    lambda x: x * (F.relu6(x + 3) / 6),
    lambda x: F.relu6(x + 3) / 6,
    lambda x: F.relu6(x + 3) * (1 / 6),
    lambda x: F.relu6(3 + x) / 5,
    lambda x: (x + 3).clamp(0, 6) / 6,
    lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    lambda x: x * torch.sigmoid(1.702 * x),
    lambda x: F.relu(x) ** 2,
    lambda x: F.leaky_relu(x, 0.1),
    lambda x: torch.where(x > 0, x, 0.1 * x),
    lambda x: torch.maximum(x, torch.zeros_like(x)),
    lambda x: F.relu(x.clone(), inplace=True),
    lambda x: F.silu(x + 0, inplace=True),
    lambda x: F.hardswish(x * 1, inplace=True),
]

SIMPLE: list[Callable[[Tensor], Any]] = [
    lambda x: 2 * x,
    lambda x: 1 - x,
    lambda x: x / 3,
    lambda x: 3 / (x.abs() + 1),
    lambda x: x + x,
    lambda x: x * x,
    lambda x: x - 0.5,
    lambda x: torch.add(x, 1.0, alpha=2),
    lambda x: x.permute(0, 2, 3, 1),
    lambda x: x.permute(0, 3, 1, 2),
    lambda x: x.transpose(1, 2),
    lambda x: x.transpose(-1, -2),
    lambda x: x.flatten(2).transpose(1, 2),
    lambda x: x.flatten(2),
    lambda x: x.flatten(1),
    lambda x: x.unsqueeze(1),
    lambda x: x[..., None],
    lambda x: x.squeeze(),
    lambda x: x.contiguous(),
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: x[:, ::2],
    lambda x: x[..., 1:],
    lambda x: x.flip(2),
    lambda x: x.reshape(x.shape[0], x.shape[2], x.shape[1], -1),
    lambda x: x.reshape(x.shape[0], x.shape[1] // 2, 2, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    lambda x: x.view(x.shape[0], -1, x.shape[-1]),
    lambda x: x.reshape(-1, x.shape[-1]),
    lambda x: x.roll(1, 2),
    lambda x: x.mean((2, 3)),
    lambda x: x.mean((3, 2), keepdim=True),
    lambda x: x.mean((-1, -2), keepdim=True),
    lambda x: x.mean(1, keepdim=True),
    lambda x: x.mean(1),
    lambda x: x.sum((2, 3), keepdim=True),
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: F.avg_pool2d(x, x.shape[-2:]),
    lambda x: F.avg_pool2d(x, 3, 1, 1),
    lambda x: F.avg_pool2d(x, 3, 1, 1) - x,
    lambda x: F.max_pool2d(x, 2),
    lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.pad(x, (1, 0, 1, 2)),
    lambda x: F.pad(x, (1, 1, 1, 1), value=0.5),
    lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    lambda x: x.softmax(-1),
    lambda x: F.normalize(x, dim=1),
    lambda x: x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6),
    lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-6).sqrt(),
    lambda x: x.double().mul(2).to(x.dtype),
    lambda x: x.float().relu().to(x.dtype),
    lambda x: x.detach(),
    lambda x: F.dropout(x, 0.5, False),
    lambda x: x.clone().add_(1),
    lambda x: torch.cat([x, x[:, :1]], 1),
    lambda x: torch.cat(x.chunk(2, 1)[::-1], 1),
    lambda x: F.instance_norm(x),
]

TWO: list[Callable[[Tensor, Tensor], Any]] = [
    lambda x, y: x + y,
    lambda x, y: y + x,
    lambda x, y: x - y,
    lambda x, y: x * y,
    lambda x, y: torch.add(x, y, alpha=2),
    lambda x, y: (x + 0).add_(y),
    lambda x, y: F.relu(x + y),
    lambda x, y: torch.cat([x, y], 1),
    lambda x, y: x * y.mean((2, 3), keepdim=True),
    lambda x, y: x * y.sigmoid(),
    lambda x, y: torch.stack([x, y], 1).flatten(1, 2),
    lambda x, y: x.transpose(-1, -2) @ y,
]


class Own(nn.Module):
    """Parameters by which a tensor is scaled and shifted, in shapes that mean different axes."""

    def __init__(self, rng, x):
        super().__init__()
        at = rng.randrange(x.dim())
        shape = [1] * x.dim()
        shape[at] = x.shape[at] if at else 1
        shape = shape[rng.choice([0, at]) :] if rng.random() < 0.5 else shape
        self.scale = nn.Parameter(torch.rand(shape) + 0.5)
        self.kind = rng.choice(["mul", "add", "sub", "div", "both", "from"])

    def forward(self, x):
        if self.kind == "both":
            return x * self.scale + self.scale
        if self.kind == "from":
            return self.scale - x
        return {"mul": torch.mul, "add": torch.add, "sub": torch.sub, "div": torch.div}[self.kind](x, self.scale)


def _convolution(rng, x) -> nn.Module:
    channels = x.shape[1]
    groups = rng.choice(
        [1, 1, 1, channels, channels, rng.choice([g for g in range(1, channels + 1) if channels % g == 0])]
    )
    out = groups * rng.choice([1, 1, 2]) if groups > 1 else rng.choice([channels, channels, rng.randint(1, 40)])
    kernel = (1, 1) if rng.random() < 0.4 else (rng.choice([1, 2, 3, 5]), rng.choice([1, 3, 3, 7]))
    stride, dilation = rng.choice([1, 1, 1, 2]), rng.choice([1, 1, 1, 2])
    padding: Any = rng.choice(["same", "valid", kernel[0] // 2, 1, 0, (0, 1), (kernel[0] // 2, kernel[1] // 2)])
    mode = rng.choice(["zeros", "zeros", "zeros", "reflect", "circular"])
    stride = 1 if padding == "same" else stride
    options = {"groups": groups, "bias": rng.random() < 0.6, "padding_mode": mode}
    return nn.Conv2d(channels, out, kernel, stride, padding, dilation, **options)


class Gate(nn.Module):
    """Squeeze-and-excite in many ways, a few of which are none."""

    def __init__(self, rng, x):
        super().__init__()
        channels, hidden = x.shape[1], rng.randint(1, 9)
        self.way, self.linear = rng.randrange(6), rng.random() < 0.4
        layer = nn.Linear if self.linear else lambda *sizes: nn.Conv2d(*sizes, 1, bias=rng.random() < 0.7)
        self.reduce, self.expand = layer(channels, hidden), layer(hidden, rng.choice([channels, channels, channels, 1]))
        self.act, self.gate = rng.choice(ACTIVATIONS), rng.choice([torch.sigmoid, F.hardsigmoid, *ACTIVATIONS[20:23]])

    def forward(self, x, y):
        source = y if self.way == 5 else x
        mean = source.mean((2, 3)) if self.linear else F.adaptive_avg_pool2d(source, 1)
        hidden = self.act(self.reduce(mean))
        gate = self.gate(self.expand(hidden))
        gate = gate[:, :, None, None] if self.linear else gate
        if self.way == 1:
            return gate.expand_as(x) * x
        if self.way == 2:
            return x * gate + gate
        if self.way == 3:
            return x * gate + x
        return x * (gate + 1) if self.way == 4 else x * gate


class Attention(nn.Module):
    def __init__(self, rng, x):
        super().__init__()
        self.norm, self.qkv = (
            nn.LayerNorm(x.shape[-1]),
            nn.Linear(x.shape[-1], 3 * x.shape[-1], bias=rng.random() < 0.5),
        )
        self.out, self.residual = nn.Linear(x.shape[-1], x.shape[-1]), rng.random() < 0.5

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        y = self.out((q @ k.transpose(-1, -2) / 4).softmax(-1) @ v)
        return x + y if self.residual else y


class Shared(nn.Module):
    """One convolution with weights that are computed, called twice."""

    def __init__(self, rng, x):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(x.shape[1], x.shape[1] if rng.random() < 0.5 else 1, 3, 3) * 0.2)
        self.groups = x.shape[1] if self.weight.shape[1] == 1 else 1
        self.norm = nn.BatchNorm2d(x.shape[1])

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        y = self.norm(F.conv2d(x, weight, None, 1, 1, 1, self.groups))
        return self.norm(F.conv2d(y.relu(), weight, None, 1, 1, 1, self.groups)) + x


KINDS = {"conv": 6, "linear": 2, "act": 5, "simple": 5, "two": 3, "norm": 4, "other": 4}


def _step(rng, tensors, modules) -> Step:
    """A step that reads the last of these, and may read another tensor of its size; `modules` were called before."""
    x = tensors[-1]
    channels, last = x.shape[min(1, x.dim() - 1)], x.shape[-1]
    kind = rng.choice(
        ["conv"] * 6 + ["linear"] * 2 + ["act"] * 5 + ["simple"] * 5 + ["two"] * 3 + ["norm"] * 4 + ["other"] * 4
    )
    if kind == "conv":
        layer = _convolution(rng, x)
        return lambda m, x: m[0](x), [layer], 1
    if kind == "linear":
        return (
            lambda m, x: m[0](x),
            [nn.Linear(last, rng.choice([last, last, rng.randint(1, 40)]), rng.random() < 0.7)],
            1,
        )
    if kind == "act":
        function = rng.choice(ACTIVATIONS)
        return lambda m, x: function(x), [], 1
    if kind == "simple":
        function = rng.choice(SIMPLE)
        return lambda m, x: function(x), [], 1
    if kind == "two":
        pair = rng.choice(TWO)
        return lambda m, x, y: pair(x, y), [], 2
    if kind == "norm":
        layer = rng.choice(
            [
                lambda: nn.BatchNorm2d(channels, affine=rng.random() < 0.8, track_running_stats=rng.random() < 0.9),
                lambda: nn.BatchNorm1d(channels),
                lambda: nn.LayerNorm(last, eps=rng.choice([1e-5, 1e-6]), bias=rng.random() < 0.6),
                lambda: nn.LayerNorm(x.shape[2:]),
                lambda: nn.GroupNorm(1, channels),
            ]
        )()
        if isinstance(layer, nn.LayerNorm) and x.dim() == 4 and rng.random() < 0.4:
            layer = nn.LayerNorm(channels)
            return lambda m, x: m[0](x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), [layer], 1
        return lambda m, x: m[0](x), [layer], 1
    choice = rng.choice(["gate", "gate", "own", "own", "attention", "shared", "again", "conv1d", "transposed", "prelu"])
    if choice == "gate":
        return lambda m, x, y: m[0](x, y), [Gate(rng, x)], 2
    if choice == "again" and modules:  # a layer that was called before
        return lambda m, x: m[0](x), [rng.choice(modules)], 1
    made = {
        "own": lambda: Own(rng, x),
        "attention": lambda: Attention(rng, x),
        "shared": lambda: Shared(rng, x),
        "conv1d": lambda: nn.Conv1d(channels, channels, 3, padding=1, groups=rng.choice([1, channels])),
        "transposed": lambda: nn.ConvTranspose2d(channels, channels, 2, 2, groups=rng.choice([1, channels])),
        "prelu": lambda: nn.PReLU(channels),
    }.get(choice, lambda: nn.Identity())
    return lambda m, x: m[0](x), [made()], 1


def _randomise(module: nn.Module) -> None:
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and tensor.dim() == 1:
            nn.init.uniform_(tensor.data, 0.5, 2)


class Graph(nn.Module):
    """A program of a seed, in eval mode and float32, and an example of its input."""

    def __init__(self, seed: int, length: int = 9):
        super().__init__()
        rng = random.Random(seed)
        torch.manual_seed(seed)
        size = rng.choice([2, 3, 6, 8])
        sizes = [rng.choice([size, size, rng.randint(1, 20)]) for _ in range(3)]
        self.example = torch.randn(rng.choice([1, 2, 2, 3, size]), *sizes)
        self.modules_of_steps = nn.ModuleList()
        self.steps: list[tuple[Callable[..., Any], list[int]]] = []  # with the tensors that it reads
        tensors, layers = [self.example], []
        for _ in range(8 * length):
            if len(self.steps) == length:
                break
            reads = tensors[-1:] if rng.random() < 0.8 else [rng.choice(tensors)]
            index = [max(at for at, each in enumerate(tensors) if each is reads[0])]
            try:
                function, modules, count = _step(rng, reads, layers)
                fits = [at for at, each in enumerate(tensors) if each.shape == reads[0].shape] if count == 2 else []
                index += (
                    [rng.choice(fits)] if fits and rng.random() < 0.8 else [rng.randrange(len(tensors))] * (count - 1)
                )
                for module in modules:
                    if all(module is not each for each in layers):
                        _randomise(module.eval())
                with torch.no_grad():
                    result = function(modules, *(tensors[at] for at in index))
                good = isinstance(result, Tensor) and 0 < result.numel() < 30000 and result.dim() > 1
                good = good and result.dtype == torch.float32 and bool(torch.isfinite(result).all())
                if not good or result.shape[0] != len(self.example) or not 1e-3 < result.abs().max() < 1e3:
                    continue
            except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError):
                continue
            tensors.append(result)
            layers += [module for module in modules if all(module is not each for each in layers)]
            self.modules_of_steps.append(nn.ModuleList(modules))
            self.steps.append((function, index))
        self.results = sorted(
            {len(tensors) - 1, *(rng.randrange(len(tensors)) for _ in range(rng.choice([0, 0, 1, 2])))}
        )
        self.as_one = len(self.results) == 1 and rng.random() < 0.7
        self.way = rng.choice(["plain", "plain", "channels_last", "slice", "transposed", "expanded"])
        self.eval()

    def inputs(self, batch: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """An input in the memory format of the seed."""
        shape = batch, *self.example.shape[1:]
        x = torch.randn(shape).to(dtype)
        if self.way == "channels_last":
            return x.contiguous(memory_format=torch.channels_last)
        if self.way == "slice":
            return torch.cat([x, x], -1)[..., : shape[-1]]
        if self.way == "transposed":
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        return x[:, :, :1].expand(shape) if self.way == "expanded" else x

    def forward(self, x):
        tensors = [x]
        for (function, index), modules in zip(self.steps, self.modules_of_steps, strict=True):
            tensors.append(function([*modules], *(tensors[at] for at in index)))
        return tensors[-1] if self.as_one else [tensors[at] for at in self.results]


def in_dtype(model: Graph, seed: int) -> tuple[Graph, torch.dtype]:
    """The model in a dtype of the seed."""
    dtype = random.Random(~seed).choice([torch.float32, torch.float32, torch.float32, torch.bfloat16, torch.float16])
    return model.to(dtype), dtype

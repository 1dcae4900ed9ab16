"""Causal 1-D convolutions against their targets, on one thread: ``python -m benchmarks.sequences [--quick]``.

Every figure is a share of what a copy of the same bytes takes, or a multiple of what PyTorch takes: F.conv1d and
F.silu, and in decoding the roll and the sum of products by which transformers did it.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_dwconv.bench.timing import Options, Run, threads, time_in_turns
from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update

WIDTH = 4
# (batch, dim, seqlen): prompts of Mamba 130m to 2.8b, of Jamba and of Qwen3-Next's short convolutions.
SIZES = ((1, 1536, 2048), (1, 8192, 128), (4, 5120, 512), (1, 2560, 777), (2, 768, 8192), (1, 8192, 1024))
STEPS = ((1, 1536), (1, 5120), (8, 1536), (8, 8192))
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


class Target(NamedTuple):
    """A line of the result: what is wanted of the geometric mean and of the worst; `less` is better or more."""

    name: str
    mean: float
    worst: float | None = None
    less: bool = False


def operands(size: tuple, dtype: torch.dtype, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = size
    x = torch.randn(batch, channels, length).to(dtype)
    if layout == "NLC":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    return x, torch.randn(channels, WIDTH).to(dtype), torch.randn(channels).to(dtype)


def by_torch(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None) -> Tensor:
    out = F.conv1d(x, weight[:, None], bias, padding=weight.shape[1] - 1, groups=x.shape[1])[..., : x.shape[2]]
    return F.silu(out) if activation else out


def both_gradients(
    function: Callable[..., Tensor], leaves: list[Tensor], activation: str | None
) -> Callable[[], object]:
    v = torch.randn_like(leaves[0])
    return lambda: torch.autograd.grad(function(*leaves, activation=activation), leaves, v)


def seconds(runs: dict[str, Callable[[], object]], options: Options) -> dict[str, float]:
    return {
        name: timing.median
        for name, timing in time_in_turns(
            {n: Run(c, lambda _: torch.empty(0)) for n, c in runs.items()}, options
        ).items()
    }


def measure_size(size: tuple, dtype: torch.dtype, layout: str, options: Options) -> dict[str, float]:
    """The figures of one size, by the name of their target."""
    x, weight, bias = operands(size, dtype, layout)
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    target, v = torch.empty_like(x), torch.randn_like(x)

    def torch_fn(x, w, b, activation):
        return by_torch(x, w, b, activation)

    def ours(x: Tensor, w: Tensor, b: Tensor, activation: str | None) -> Tensor:
        return cast(Tensor, causal_conv1d_fn(x, w, b, activation=activation))

    graph = ours(leaves[0], leaves[1], leaves[2], "silu")
    with torch.no_grad():
        times = seconds(
            {
                "copy": lambda: target.copy_(x),
                "plain": lambda: causal_conv1d_fn(x, weight),
                "silu": lambda: causal_conv1d_fn(x, weight, bias, activation="silu"),
            },
            options,
        )
    gradients = lambda: torch.autograd.grad(graph, leaves, v, retain_graph=True)  # noqa: E731
    times |= seconds(
        {
            "gradients": gradients,
            "training": both_gradients(ours, leaves, "silu"),
            "torch": both_gradients(torch_fn, leaves, "silu"),
        },
        options,
    )
    return {
        "forward, share of a copy": times["copy"] / times["plain"],
        "forward with bias and SiLU, share of a copy": times["copy"] / times["silu"],
        "gradients, times the forward": times["gradients"] / times["silu"],
        "forward and backward, times faster than PyTorch": times["torch"] / times["training"],
    }


def slow_step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What transformers did in decoding without a kernel."""
    state.copy_(torch.roll(state, -1, -1))
    state[:, :, -1] = x
    return F.silu((state * weight).sum(-1) + bias)


def measure_step(batch: int, channels: int, options: Options) -> tuple[float, float]:
    """Microseconds of a step, and how many times faster than the slow one it is."""
    x, state = torch.randn(batch, channels), torch.zeros(batch, channels, WIDTH)
    weight, bias = torch.randn(channels, WIDTH), torch.randn(channels)
    with torch.no_grad():
        times = seconds(
            {
                "ours": lambda: causal_conv1d_update(x, state, weight, bias, "silu"),
                "slow": lambda: slow_step(x, state, weight, bias),
            },
            options,
        )
    return times["ours"] * 1e6, times["slow"] / times["ours"]


def targets(dtype: str) -> list[Target]:
    wide = dtype == "f32"
    return [
        Target("forward, share of a copy", 0.65 if wide else 0.5, 0.45 if wide else 0.3),
        Target("forward with bias and SiLU, share of a copy", 0.45 if wide else 0.25, 0.3 if wide else 0.15),
        Target("gradients, times the forward", 3, None, True),
        Target("forward and backward, times faster than PyTorch", 10 if wide else 8, 3),
    ]


def line(target: Target, values: list[float]) -> str:
    mean = statistics.geometric_mean(values)
    worst = max(values) if target.less else min(values)
    met = mean <= target.mean if target.less else mean >= target.mean
    if target.worst is not None:
        met = met and (worst <= target.worst if target.less else worst >= target.worst)
    wanted = f"{target.mean:g}" + (f", worst {target.worst:g}" if target.worst is not None else "")
    return f"  {target.name:<50} {mean:6.2f}  worst {worst:6.2f}   wanted {wanted:<18} {'met' if met else 'MISSED'}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequences", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes and few samples")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="of f32, bf16, f16; default all")
    parser.add_argument("--sizes", action="store_true", help="print every size's figures too")
    options = parser.parse_args(arguments)
    timing = Options(samples=3 if options.quick else 7, min_seconds=0.002)
    sizes = SIZES[:2] if options.quick else SIZES
    with threads(1):
        for dtype in options.dtypes.split(","):
            for layout in ("NCL", "NLC"):
                found = [measure_size(size, DTYPES[dtype], layout, timing) for size in sizes]
                print(f"{dtype} {layout}, width {WIDTH}")
                for target in targets(dtype):
                    print(line(target, [figures[target.name] for figures in found]))
                if options.sizes:
                    for size, figures in zip(sizes, found, strict=True):
                        print(f"    {size}: " + ", ".join(f"{value:.2f}" for value in figures.values()))
                sys.stdout.flush()
        print("decoding, f32: microseconds of a step, and how many times faster than roll and sum")
        for batch, channels in STEPS[:1] if options.quick else STEPS:
            microseconds, ratio = measure_step(batch, channels, timing)
            print(f"  {(batch, channels)!s:<12} {microseconds:6.1f} us  {ratio:5.1f} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())

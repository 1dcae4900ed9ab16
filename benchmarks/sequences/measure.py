"""Records of one size: everybody in turns, once the results have been compared."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_dwconv.bench.timing import Options, Run, threads, time_in_turns
from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update

from .targets import DTYPES, WIDTH, Size

TOLERANCE = {"f32": 1e-4, "bf16": 2e-2, "f16": 5e-3}  # of the norm of the difference, as share of the norm


def operands(size: Size, dtype: str, layout: str) -> tuple[Tensor, Tensor, Tensor]:
    """x (batch, channels, length), weight (channels, WIDTH) and bias (channels,)."""
    x = torch.randn(size).to(DTYPES[dtype])
    if layout == "nlc":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    return x, torch.randn(size.channels, WIDTH).to(x.dtype), torch.randn(size.channels).to(x.dtype)


def by_torch(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """F.conv1d and F.silu, as models call them where there is no kernel."""
    return F.silu(F.conv1d(x, weight[:, None], bias, padding=WIDTH - 1, groups=x.shape[1])[..., : x.shape[2]])


def by_us(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    out = causal_conv1d_fn(x, weight, bias, activation="silu")
    assert isinstance(out, Tensor)
    return out


def measure(size: Size, dtype: str, layout: str, options: Options) -> dict:
    """The record of a size, on one thread; seconds.

    "plain" and "silu" are our forward without an activation, and with bias and SiLU; "gradients" is the backward of
    "silu", "training" forward and backward, "torch" the same by PyTorch; "copy" moves the bytes of the forward.
    """
    torch.manual_seed(0)
    x, weight, bias = operands(size, dtype, layout)
    leaves = [each.clone().requires_grad_() for each in (x, weight, bias)]
    target, v = torch.empty_like(x), torch.randn_like(x)

    def step(function: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        out = function(*leaves)
        return (out, *torch.autograd.grad(out, leaves, v))

    compare(step(by_us), step(by_torch), dtype, size.name)
    graph = by_us(*leaves)
    with threads(1), torch.no_grad():
        forward = seconds(
            {
                "copy": lambda: target.copy_(x),
                "plain": lambda: causal_conv1d_fn(x, weight),
                "silu": lambda: by_us(x, weight, bias),
            },
            options,
        )
    with threads(1):
        training = seconds(
            {
                "gradients": lambda: torch.autograd.grad(graph, leaves, v, retain_graph=True),
                "training": lambda: step(by_us),
                "torch": lambda: step(by_torch),
            },
            options,
        )
    return {**size._asdict(), "width": WIDTH, "dtype": dtype, "layout": layout, "times": {**forward, **training}}


def slow_step(x: Tensor, state: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What transformers did in decoding without a kernel."""
    state.copy_(torch.roll(state, -1, -1))
    state[:, :, -1] = x
    return F.silu((state * weight).sum(-1) + bias)


def measure_step(batch: int, channels: int, dtype: str, options: Options) -> dict:
    """The record of a step of decoding, on one thread; seconds."""
    torch.manual_seed(0)
    x, state = torch.randn(batch, channels).to(DTYPES[dtype]), torch.randn(batch, channels, WIDTH).to(DTYPES[dtype])
    weight, bias = torch.randn(channels, WIDTH).to(x.dtype), torch.randn(channels).to(x.dtype)
    with threads(1), torch.no_grad():
        ours, slow = state.clone(), state.clone()
        results = causal_conv1d_update(x, ours, weight, bias, "silu"), slow_step(x, slow, weight, bias)
        compare((results[0], ours), (results[1], slow), dtype, f"a step of {batch}x{channels}")
        times = seconds(
            {
                "ours": lambda: causal_conv1d_update(x, state, weight, bias, "silu"),
                "slow": lambda: slow_step(x, state, weight, bias),
            },
            options,
        )
    return {"batch": batch, "channels": channels, "width": WIDTH, "dtype": dtype, "times": times}


def seconds(calls: Mapping[str, Callable[[], object]], options: Options) -> dict[str, dict]:
    timings = time_in_turns({name: Run(call) for name, call in calls.items()}, options)
    return {name: timing._asdict() for name, timing in timings.items()}


def compare(ours: tuple[Tensor, ...], others: tuple[Tensor, ...], dtype: str, name: str) -> None:
    """Raises AssertionError unless the results are the same but for rounding."""
    for own, other in zip(ours, others, strict=True):
        error = ((own - other).float().norm() / other.float().norm()).item()
        assert error <= TOLERANCE[dtype], f"{name}, {dtype}: results differ by {error:.0e}"

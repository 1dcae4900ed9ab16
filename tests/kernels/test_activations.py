"""Activations fused into forward: the functions of torch.nn.functional, in float64, rounded once.

A 1x1 filter of ones lets the input through, so that what is measured is the activation alone.
"""

import functools

import pytest
import torch
import torch.nn.functional as F

from tests.kernels import harness
from tests.kernels.shapes import Shape

WIDTH, ROWS = 251, 40  # no multiple of a vector
CHANNELS = 3
SHAPE = Shape(1, CHANNELS, 1, ROWS, WIDTH, 1, 1, ROWS, WIDTH)

# Units in the last place of the accumulator that an activation may be off by. Results that are small next to x may be
# off by this share of x as well, which is a thousandth of what PyTorch's own functions lose there.
UNITS = {
    "relu": 0,
    "relu6": 0,
    "hardswish": 2,
    "silu": 3,
    "gelu": 9,
    "gelu_tanh": 22,
    "hardsigmoid": 2,
    "sigmoid": 2.5,
}
# Results of two bytes have fewer digits before they are rounded: off by this share of themselves.
SHORT = {"gelu": 2.0**-15}
SHARE = {"f64": 2.0**-50, "f32": 2.0**-36, "bf16": 2.0**-36, "f16": 2.0**-36}


def gated(x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """x times the sigmoid of z, to the last subnormal number."""
    e = torch.exp(-z.abs())
    return torch.where(z < 0, x * e, x) / (1 + e)


def exact(x: torch.Tensor, activation: str) -> torch.Tensor:
    """In float64, without the cancellation by which torch's own lose the digits of small results."""
    if activation == "silu":
        return gated(x, x)
    if activation == "sigmoid":
        return gated(torch.ones_like(x), x)
    if activation == "gelu":
        return x * torch.special.erfc(-x * 0.5**0.5) / 2
    if activation == "gelu_tanh":
        return gated(x, 2 * (2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))
    return getattr(F, activation)(x)


def units(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The distance of neighbouring numbers of a dtype at float64 values."""
    info = torch.finfo(dtype)
    exponents = torch.frexp(values.abs().clamp(min=info.tiny)).exponent.double() - 1
    return torch.exp2(exponents) * info.eps


def inputs(dtype: torch.dtype) -> torch.Tensor:
    """Evenly spread, dense around zero, and next to it, of both signs."""
    spread = torch.linspace(-120, 120, 10_000)
    dense = torch.linspace(-6, 6, 20_000)
    small = torch.exp2(torch.linspace(-149, 4, CHANNELS * ROWS * WIDTH - 30_000))
    small[::2] *= -1
    return torch.cat([spread, dense, small]).to(dtype).reshape(1, CHANNELS, ROWS, WIDTH)


def forward_kernels() -> list[harness.Kernel]:
    return [kernel for kernel in harness.kernels(SHAPE) if kernel.operation == "forward"]


@functools.cache
def apply(kernel: harness.Kernel, activation: str, x: torch.Tensor) -> torch.Tensor:
    """What the kernel makes of x, in float64."""
    operands = {"input": x, "weight": torch.ones(CHANNELS, 1, 1)}
    return harness.run(kernel, SHAPE, operands, activation)["result"]


@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_accuracy(dtype, activation):
    torch_dtype = harness.DTYPES[dtype]
    accumulator = torch.float64 if dtype == "f64" else torch.float32
    x = inputs(torch_dtype)
    right = exact(x.double(), activation)
    allowed = UNITS[activation] * units(right, accumulator)
    if dtype == "f64":  # the exact values are themselves off by the condition of exp() and erfc()
        allowed = allowed * 2 + x.abs().clamp(min=1) ** 3 * units(right, accumulator)
    if activation == "sigmoid" and dtype != "f64":
        allowed = allowed.clamp(min=2.0**-126)  # e^89 is no float any more
    if activation not in ("relu", "relu6", "hardsigmoid", "sigmoid"):
        allowed = allowed + SHARE[dtype] * x.double().abs()
    if dtype in ("bf16", "f16"):
        allowed = allowed + SHORT.get(activation, 0) * right.abs() + units(right, torch_dtype) / 2
    if dtype == "f32":
        allowed = allowed.clamp(min=2.0**-149)
    for kernel in (v for v in forward_kernels() if v.dtype == dtype):
        error = (apply(kernel, activation, x) - right).abs()
        worst = (error / allowed.clamp(min=1e-320)).argmax()
        assert not (error > allowed).any(), (kernel.name, x.flatten()[worst], error.flatten()[worst])


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("activation", SHORT)
def test_accuracy_of_every_number_of_two_bytes(dtype, activation):
    torch_dtype = harness.DTYPES[dtype]
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch_dtype)
    every = torch.where(every.isfinite(), every, 0)
    parts = every.split(CHANNELS * ROWS * WIDTH - 7)
    for part in parts:
        x = torch.zeros(CHANNELS * ROWS * WIDTH, dtype=torch_dtype)
        x[: part.numel()] = part
        x = x.reshape(1, CHANNELS, ROWS, WIDTH)
        right = exact(x.double(), activation)
        allowed = SHORT[activation] * right.abs() + SHARE[dtype] * x.double().abs() + units(right, torch_dtype) / 2
        for kernel in (v for v in forward_kernels() if v.dtype == dtype):
            error = (apply(kernel, activation, x) - right).abs()
            worst = (error / allowed).argmax()
            assert not (error > allowed).any(), (kernel.name, x.flatten()[worst], error.flatten()[worst])


@pytest.mark.parametrize("activation", UNITS)
@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_what_is_not_finite_is_as_in_torch(dtype, activation):
    torch_dtype = harness.DTYPES[dtype]
    x = torch.zeros(1, CHANNELS, ROWS, WIDTH, dtype=torch_dtype)
    largest = torch.finfo(torch_dtype).max / 8  # torch's hardswish multiplies by 6 before it divides by 6
    special = torch.tensor([float("nan"), float("inf"), float("-inf"), -0.0, largest, -largest], dtype=torch_dtype)
    x.view(-1)[: special.numel() * 1000] = special.repeat(1000)
    # One number at a time: torch's vectorised gelu makes NaN of +inf.
    function = functools.partial(F.gelu, approximate="tanh") if activation == "gelu_tanh" else getattr(F, activation)
    for kernel in (v for v in forward_kernels() if v.dtype == dtype):
        got = apply(kernel, activation, x).reshape(-1)[: special.numel()]
        for value, result in zip(special, got, strict=True):
            wanted = function(value.double()).to(torch_dtype)
            assert result == wanted or (result.isnan() and wanted.isnan()), (kernel.name, value, result)

"""causal_conv1d_fn: outputs, states and gradients by their definition, over shapes, dtypes, layouts and options."""

import itertools
import random

import pytest
import torch

from torch_dwconv.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from torch_dwconv.operators.sequence import CAUSAL_CONV1D

from .reference import convolved, final_states

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Of a norm: what rounding to the dtype leaves, and what sums in float32 do.
ERRORS = {torch.float32: 2e-6, torch.float64: 1e-12, torch.bfloat16: 4e-3, torch.float16: 6e-4}


def close(got: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    assert got.shape == expected.shape
    scale = max(expected.norm().item(), 1e-3 * expected.numel() ** 0.5)
    return bool((got.double() - expected).norm() <= ERRORS[dtype] * scale) and not got.isnan().any()


def strided(size: tuple, dtype: torch.dtype, layout: str, grad: bool = False) -> torch.Tensor:
    """Random numbers: contiguous, a transposed (N, L, C), or a part of either whose neighbours are NaN."""
    n, c, length = size
    if layout == "ncl":
        x = torch.randn(size, dtype=torch.float64).to(dtype)
    elif layout == "nlc":
        x = torch.randn(n, length, c, dtype=torch.float64).to(dtype).transpose(1, 2)
    else:
        whole = torch.full((n, c + 7, length + 5) if layout == "ncl part" else (n, length + 5, c + 7), torch.nan).to(
            dtype
        )
        x = whole[:, 3 : 3 + c, 2 : 2 + length] if layout == "ncl part" else whole[:, 2 : 2 + length, 3 : 3 + c]
        x.copy_(torch.randn(x.shape))
        x = x if layout == "ncl part" else x.transpose(1, 2)
    return x.requires_grad_() if grad else x


def numbers_of(kind: str | None, n: int, length: int) -> torch.Tensor | None:
    if kind is None:
        return None
    rows = []
    for _ in range(n):
        row = sorted(random.choices(range(5), k=length))
        if kind == "padded":
            row = [*row[: length - length // 3], *[-1] * (length // 3)]
        rows.append(row)
    return torch.tensor(rows, dtype=torch.int32).view(n, length)


def check(size, width, dtype, layout, wide, with_bias, with_states, kind, activation, gradients=True):
    n, c, length = size
    grad = gradients
    x = strided(size, dtype, layout, grad)
    parameter = torch.float32 if wide and dtype in (torch.bfloat16, torch.float16) else dtype
    weight = torch.randn(c, width).to(parameter).requires_grad_(grad)
    bias = torch.randn(c).to(parameter).requires_grad_(grad) if with_bias else None
    states = strided((n, c, width - 1), dtype, layout.split()[0], grad) if with_states else None
    seq_idx = numbers_of(kind, n, length)
    leaves = [leaf for leaf in (x, weight, bias, states) if leaf is not None]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    given = iter(exact)
    x64, w64 = next(given), next(given)
    b64, s64 = next(given) if with_bias else None, next(given) if with_states else None
    out, final = causal_conv1d_fn(x, weight, bias, seq_idx, states, True, activation=activation)
    expected = convolved(x64, w64, b64, seq_idx, s64, activation)
    expected_final = final_states(x64, width - 1, seq_idx, s64)
    assert out.dtype == final.dtype == dtype
    assert close(out, expected, dtype), "output"
    assert torch.equal(final.double(), expected_final), "final states"
    channels_last = layout.startswith("nlc") and c > 1 and length > 1
    assert (out.transpose(1, 2) if channels_last else out).is_contiguous()
    with torch.no_grad():
        assert torch.equal(causal_conv1d_fn(x, weight, bias, seq_idx, states, activation=activation), out)
    if gradients:
        v, v_final = torch.randn(out.shape).to(dtype), torch.randn(final.shape).to(dtype)
        found = torch.autograd.grad((out, final), leaves, (v, v_final))
        wanted = torch.autograd.grad((expected, expected_final), exact, (v.double(), v_final.double()))
        for leaf, got, right in zip(leaves, found, wanted, strict=True):
            assert got.dtype == leaf.dtype
            assert close(got, right, dtype), f"gradient of {tuple(leaf.shape)}"


# The package's own grid, and sizes that fill no vector.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["ncl", "nlc"])
@pytest.mark.parametrize("width", [2, 3, 4])
def test_the_grid_of_the_package(dtype, layout, width):
    torch.manual_seed(0)
    options = itertools.product((False, True), (False, True), (None, "silu"))
    lengths = (1, 2, 8, 16, 32, 64, 128, 129, 130, 151, 256, 372, 512, 784, 1024, 1134)
    for length, (with_bias, with_states, activation) in zip(lengths, itertools.cycle(options), strict=False):
        check((2, 64 + length % 9, length), width, dtype, layout, True, with_bias, with_states, None, activation)


@pytest.mark.parametrize("seed", range(8))
def test_random_problems(seed):
    random.seed(seed)
    torch.manual_seed(seed)
    for _ in range(25):
        length = random.choice([1, 2, 3, 5, 15, 16, 17, 33, 70, 129, 300])
        size = (random.choice([1, 2, 3]), random.choice([1, 2, 7, 16, 33, 80]), length)
        width = random.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 31, 64])
        layout = random.choice(["ncl", "nlc", "ncl part", "nlc part"])
        kind = random.choice([None, None, "sequences", "padded"])
        flags = (random.random() < 0.5 for _ in range(3))
        dtype = random.choice(DTYPES)
        problem = (size, width, dtype, layout, *flags, kind, random.choice([None, "silu", "swish"]))
        try:
            check(*problem)
        except AssertionError as error:
            raise AssertionError(f"{problem}: {error}") from error


@pytest.mark.parametrize("layout", ["ncl", "nlc"])
@pytest.mark.parametrize(
    "size, width", [((1, 40, 9000), 4), ((1, 3, 4700), 5), ((2, 1500, 300), 4), ((1, 70, 5000), 20)]
)
def test_long_rows_and_many_channels(size, width, layout):
    """More than a span or a block of each kernel, past which results leave the caches."""
    torch.manual_seed(0)
    check(size, width, torch.float32, layout, False, True, True, "sequences", "silu")
    check(size, width, torch.bfloat16, layout, True, True, False, None, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["ncl", "nlc"])
@pytest.mark.parametrize("width", [64, 65, 200])
def test_wide_filters(width, layout, dtype):
    """Up to 64 taps there are kernels; more are composed."""
    torch.manual_seed(0)
    for length, kind, activation in ((90, None, "silu"), (300, None, None), (70, "sequences", "silu")):
        check((2, 19, length), width, dtype, layout, True, True, True, kind, activation)
    with torch.inference_mode():
        check((2, 19, 90), width, dtype, layout, False, False, False, None, "silu", gradients=False)


def test_taps_that_reach_far():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 700, dtype=torch.float64, requires_grad=True)
    for dilation in (256, 257):  # with three taps, 512 positions and more
        weight = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
        out = CAUSAL_CONV1D(x, weight, None, None, None, dilation, 0)
        padded = torch.nn.functional.pad(x, (2 * dilation, 0))
        expected = torch.nn.functional.conv1d(padded, weight[:, None], dilation=dilation, groups=5)
        assert close(out, expected, torch.float64)
        v = torch.randn(out.shape, dtype=torch.float64)
        leaves = (x, weight)
        for got, right in zip(
            torch.autograd.grad(out, leaves, v), torch.autograd.grad(expected, leaves, v), strict=True
        ):
            assert close(got, right, torch.float64)


def test_other_strides_and_broadcast_operands():
    torch.manual_seed(0)
    x = torch.randn(2, 20, 3, 10)[:, :, 1]  # neither dimension is dense
    x = torch.randn(2, 20, 30)[:, ::2, ::3]
    weight, bias = torch.randn(4, 10).t(), torch.randn(1).expand(10)
    out = causal_conv1d_fn(x, weight, bias)
    assert close(out, convolved(x, weight, bias), torch.float32)
    states = torch.randn(1, 10, 1).expand(2, 10, 3)
    assert close(
        causal_conv1d_fn(x, weight, bias, None, states), convolved(x, weight, bias, None, states), torch.float32
    )


def test_chunks_through_states_are_the_whole():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 24, 100), torch.randn(24, 4), torch.randn(24)
    whole, states, parts = causal_conv1d_fn(x, weight, bias, activation="silu"), None, []
    for chunk in x.split([1, 2, 40, 57], 2):
        part, states = causal_conv1d_fn(chunk, weight, bias, None, states, True, activation="silu")
        parts.append(part)
    assert close(torch.cat(parts, 2), whole.double(), torch.float32)


def test_final_states_out():
    x, weight = torch.randn(2, 8, 20), torch.randn(8, 4)
    out = torch.empty(2, 3, 8).transpose(1, 2)
    _, final = causal_conv1d_fn(x, weight, return_final_states=True, final_states_out=out)
    assert final is out and torch.equal(out, x[:, :, -3:])


def test_same_bits_with_any_number_of_threads():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    try:
        for layout, width in itertools.product(("ncl", "nlc"), (4, 20)):
            x = strided((2, 100, 3000), torch.float32, layout, True)
            weight, bias = torch.randn(100, width, requires_grad=True), torch.randn(100, requires_grad=True)
            v, results = torch.randn(2, 100, 3000), []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                out = causal_conv1d_fn(x, weight, bias, activation="silu")
                results.append([out, *torch.autograd.grad(out, (x, weight, bias), v)])
            for other in results[1:]:
                assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    finally:
        torch.set_num_threads(before)


def test_sizes_of_zero():
    for size in ((0, 8, 5), (2, 0, 5), (2, 8, 0)):
        x = torch.randn(size, requires_grad=True)
        weight, bias = torch.randn(size[1], 4, requires_grad=True), torch.randn(size[1], requires_grad=True)
        out, final = causal_conv1d_fn(x, weight, bias, return_final_states=True, activation="silu")
        assert out.shape == x.shape and final.shape == (*size[:2], 3)
        grads = torch.autograd.grad(out.sum() + final.sum(), (x, weight, bias))
        assert not any(grad.abs().sum() for grad in grads)


def test_infinities_stay_where_they_belong():
    x = torch.zeros(1, 16, 64)
    x[0, 3, 20] = torch.inf
    out = causal_conv1d_fn(x, torch.ones(16, 4))
    assert out[0, 3, 20:24].isinf().all() and out[0, 3, 24:].abs().sum() == 0
    assert out.isinf().sum() == 4 and not out.isnan().any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("call", ["ncl", "nlc", "step", "gradient"])
def test_silu_of_every_number(call, dtype):
    """Little is added to what rounding the result costs."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    x = numbers[numbers.isfinite()].expand(1, 2, -1)
    weight = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=dtype)
    exact = torch.nn.functional.silu(x.double())
    if call == "step":
        rows = x[0].t().contiguous()
        taps = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0]], dtype=dtype)
        got = causal_conv1d_update(rows, torch.zeros(len(rows), 2, 4, dtype=dtype), taps, activation="silu").t()[None]
    elif call == "gradient":
        leaf = x.contiguous().requires_grad_()
        (got,) = torch.autograd.grad(causal_conv1d_fn(leaf, weight, activation="silu"), leaf, torch.ones_like(x))
        gate = torch.sigmoid(x.double())
        exact = gate * (1 + x.double() * (1 - gate))
    else:
        given = x.contiguous() if call == "ncl" else x.transpose(1, 2).contiguous().transpose(1, 2)
        got = causal_conv1d_fn(given, weight, activation="silu")
    limits = torch.finfo(dtype)
    # The derivative passes through zero, where its parts of up to 1 cancel.
    near_zero = 1e-36 + limits.tiny * limits.eps + (3e-4 if call == "gradient" else 0)
    assert ((got.double() - exact).abs() <= exact.abs() * (limits.eps / 2 + 1e-4) + near_zero).all()

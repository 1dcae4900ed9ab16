"""depthwise_conv2d, forward, backward and double backward, on tensors of any form, against F.conv2d in float64.

`make test` draws the same examples every time; `make fuzz` others each time, and prints the seed to have them again.
"""

import os
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.calls import DTYPES, TOLERANCE, reference
from torch_dwconv import DepthwiseConv2d, depthwise_conv2d
from torch_dwconv.functional.rules import resolve_padding
from torch_dwconv.operators.schemas import ACTIVATIONS

# Set by `make fuzz`.
EXAMPLES = int(os.environ.get("TORCH_DWCONV_FUZZ_EXAMPLES", "250"))
FUZZ_SEED = os.environ.get("TORCH_DWCONV_FUZZ_SEED")
# What a test under hypothesis looks like: small examples of a dozen operators, on a machine that may be busy.
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=FUZZ_SEED is None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)


def fuzzed(strategy):
    """A test of anything that the strategy draws, under SETTINGS and the seed of `make fuzz`."""

    def decorate(test):
        test = SETTINGS(given(strategy)(test))
        return test if FUZZ_SEED is None else seed(int(FUZZ_SEED))(test)

    return decorate


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    pass


class Example(NamedTuple):
    """A call and how its tensors lie in memory; pairs are (h, w)."""

    dtype: torch.dtype
    batch: int | None  # none: a 3-D input
    channels: int
    multiplier: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: object
    padding: object
    dilation: object
    with_bias: bool
    activation: str | None
    forms: tuple[str, str, str]  # of input, weight and grad_output: names in FORMS
    needs: tuple[bool, bool, bool]  # a gradient: input, weight, bias
    numbers: int  # seeds the values


# Views with other strides, or elsewhere in their storage, of a dense tensor's values or, where they repeat themselves
# (expanded, one_image, overlapping), of some of these.
def _offset(tensor):
    return torch.cat((tensor.new_zeros(3), tensor.flatten()))[3:].view(tensor.shape)


def _sliced(tensor):
    wide = tensor.new_zeros([size + 2 for size in tensor.shape])
    inner = wide[tuple(slice(1, -1) for _ in tensor.shape)]
    return inner.copy_(tensor)


def _stepped(tensor):
    wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
    return wide[..., ::2].copy_(tensor)


def _overlapping(tensor):
    storage = tensor.flatten().repeat(2)
    return storage.as_strided(tensor.shape, (2, *(1,) * (tensor.dim() - 1)), 1)


FORMS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "transposed": lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2),
    "permuted": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "offset": _offset,
    "sliced": _sliced,
    "stepped": _stepped,
    "expanded": lambda t: t[..., :1, :1].expand(t.shape),
    "one_image": lambda t: t[:1].expand(t.shape),
    "overlapping": _overlapping,
    "negated": torch._neg_view,
}


@st.composite
def examples(draw, dtypes=DTYPES, largest=24):
    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    def maybe_one(value):
        return value[0] if value[0] == value[1] and draw(st.booleans()) else value

    kernel, stride, dilation = pair(1, 7), pair(1, 4), pair(1, 3)
    padding = draw(
        st.one_of(
            st.sampled_from(("valid", "same")),
            st.integers(0, 4),
            st.tuples(st.integers(0, 5), st.integers(0, 5)),
            st.tuples(*(st.tuples(st.integers(0, 5), st.integers(0, 5)),) * 2),
        )
    )
    least = (1, 1)
    if padding != "same":
        sides = resolve_padding(padding, (1, 1), kernel, stride, dilation)
        before_and_after = (sides[0] + sides[1], sides[2] + sides[3])
        least = tuple(max(1, d * (k - 1) + 1 - p) for d, k, p in zip(dilation, kernel, before_and_after, strict=True))
    size = tuple(draw(st.integers(low, low + largest)) for low in least)
    return Example(
        dtype=draw(st.sampled_from(dtypes)),
        batch=draw(st.one_of(st.none(), st.integers(0, 3))),
        channels=draw(st.one_of(st.integers(1, 5), st.sampled_from((8, 16, 17, 33)))),
        multiplier=draw(st.integers(1, 3)),
        size=size,
        kernel=kernel,
        stride=maybe_one(stride),
        padding=padding,
        dilation=maybe_one(dilation),
        with_bias=draw(st.booleans()),
        activation=draw(st.one_of(st.none(), st.sampled_from(tuple(ACTIVATIONS)))),
        forms=draw(st.tuples(*(st.sampled_from(tuple(FORMS)),) * 3)),
        needs=draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
        numbers=draw(st.integers(0, 2**16)),
    )


def tensors(example: Example) -> tuple[Tensor, Tensor, Tensor | None]:
    """Input, weight and bias, in their forms and requiring gradients as the example says."""
    generator = torch.Generator().manual_seed(example.numbers)
    out_channels = example.channels * example.multiplier
    batch = () if example.batch is None else (example.batch,)
    sizes = (*batch, example.channels, *example.size), (out_channels, 1, *example.kernel), (out_channels,)
    values = [torch.randn(size, generator=generator, dtype=torch.float64).to(example.dtype) for size in sizes]
    input, weight = (FORMS[form](value) for form, value in zip(example.forms[:2], values[:2], strict=True))
    bias = values[2] if example.with_bias else None
    leaves = zip((input, weight, bias), example.needs, strict=True)
    return tuple(t if t is None else t.detach().requires_grad_(needs) for t, needs in leaves)


def options(example: Example) -> dict:
    return {"stride": example.stride, "padding": example.padding, "dilation": example.dilation}


def in_float64(example: Example, input, weight, bias):
    """F.conv2d's result without an activation, of the same numbers, differentiable as often as one likes."""
    top, bottom, left, right = resolve_padding(
        example.padding, example.size, example.kernel, example.stride, example.dilation
    )
    operands = (t if t is None else t.double() for t in (input, weight, bias))
    return reference(*operands, example.stride, ((top, bottom), (left, right)), example.dilation)


def assert_close(actual: Tensor, exact: Tensor, what: str, terms: Tensor | float = 0.0, slack: float = 1.0) -> None:
    """Norm of the error: what the dtype allows of the result, or of the terms that went into it where they cancel."""
    assert actual.shape == exact.shape, f"{what}: {tuple(actual.shape)} instead of {tuple(exact.shape)}"
    error = (actual.double() - exact).norm()
    unit = TOLERANCE[actual.dtype]
    allowed = slack * (unit * exact.norm() + min(unit, 2e-6) * terms) + 1e-300
    assert error <= allowed, f"{what}: error {error:.3e}, allowed {allowed:.3e}, in {actual.dtype}"


def magnitude(example, *operands):
    """Norm of the result of the operands' absolute values: what cancels in sums."""
    return in_float64(example, *(t if t is None else t.detach().double().abs() for t in operands)).norm()


@fuzzed(examples())
def test_forward_and_backward(example):
    input, weight, bias = tensors(example)
    output = depthwise_conv2d(input, weight, bias, **options(example))
    exact = in_float64(example, input, weight, bias)
    assert output.dtype == example.dtype
    assert output.requires_grad == any(t is not None and t.requires_grad for t in (input, weight, bias))
    assert_close(output.detach(), exact.detach(), "output", magnitude(example, input, weight, bias))
    images = output if output.dim() == 4 else output.unsqueeze(0)
    assert images.is_contiguous() or images.is_contiguous(memory_format=torch.channels_last)
    wanted = [t for t in (input, weight, bias) if t is not None and t.requires_grad]
    if not wanted:
        return
    generator = torch.Generator().manual_seed(example.numbers + 1)
    grad = FORMS[example.forms[2]](torch.randn(exact.shape, generator=generator, dtype=torch.float64).to(output.dtype))
    got = torch.autograd.grad(output, wanted, grad)
    right = torch.autograd.grad(exact, wanted, grad.double())
    absolute = [
        t if t is None else t.detach().double().abs().requires_grad_(t.requires_grad) for t in (input, weight, bias)
    ]
    leaves = [t for t in absolute if t is not None and t.requires_grad]
    sizes = torch.autograd.grad(in_float64(example, *absolute), leaves, grad.double().abs())
    for actual, expected, size in zip(got, right, sizes, strict=True):
        assert actual.dtype == example.dtype
        # The right gradient has been rounded to the leaf's dtype on its way to the leaf.
        assert_close(actual, expected.double(), "gradient", size.norm(), slack=2.1)


@fuzzed(examples(dtypes=(torch.float64,), largest=8))
def test_double_backward(example):
    input, weight, bias = tensors(example)
    wanted = [t for t in (input, weight, bias) if t is not None and t.requires_grad]
    if not wanted or 0 in input.shape:
        return
    results = []
    ours = depthwise_conv2d(input, weight, bias, **options(example))
    for output in (ours, in_float64(example, input, weight, bias)):
        loss = output.square().sum()
        gradients = torch.autograd.grad(loss, wanted, create_graph=True)
        second = sum(g.sin().sum() for g in gradients)
        results.append(torch.autograd.grad(second, wanted, allow_unused=True, materialize_grads=True))
    for actual, expected in zip(*results, strict=True):
        scale = max(1.0, float(expected.detach().abs().max()))
        assert torch.allclose(actual, expected, rtol=1e-9, atol=1e-9 * scale)


@fuzzed(examples(dtypes=(torch.float32, torch.float64)))
def test_activation(example):
    input, weight, bias = (t if t is None else t.detach() for t in tensors(example))
    output = depthwise_conv2d(input, weight, bias, **options(example), activation=example.activation)
    plain = in_float64(example, input, weight, bias)
    exact = plain if example.activation is None else ACTIVATIONS[example.activation](plain)
    assert_close(
        output, exact, f"{example.activation} output", 3 * magnitude(example, input, weight, bias) + plain.norm()
    )


@fuzzed(examples(dtypes=(torch.float32,)))
def test_module_is_the_function(example):
    input, weight, bias = (t if t is None else t.detach() for t in tensors(example))
    layer = DepthwiseConv2d(
        example.channels,
        example.channels * example.multiplier,
        example.kernel,
        bias=example.with_bias,
        **options(example),
    )
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
        assert torch.equal(layer(input), depthwise_conv2d(input, layer.weight, layer.bias, **options(example)))

"""The out overloads: the same bits in the caller's buffer, and every buffer that does not fit refused."""

import pytest
import torch

from tests.calls import DTYPES, FORMATS
from tests.operators.test_operators import DIFFERENTIABLE, OPS, arguments, tuple_of

KEYWORDS = ("out", "bias_out")


def buffers_like(results):
    return dict(zip(KEYWORDS, (torch.full_like(result, float("nan")) for result in results), strict=False))


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_out_holds_the_result_and_is_returned(name, dtype, format, with_bias):
    operands = arguments(name, dtype, format, with_bias=with_bias)
    expected = tuple_of(getattr(OPS, name).default(*operands))
    buffers = buffers_like(expected)
    returned = tuple_of(getattr(OPS, name).out(*operands, **buffers))
    for result, buffer, right in zip(returned, buffers.values(), expected, strict=True):
        assert result is buffer
        assert torch.equal(buffer, right)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_out_need_not_own_its_storage(name):
    operands = arguments(name, with_bias=False)
    expected = tuple_of(getattr(OPS, name).default(*operands))
    buffers = buffers_like(expected)
    whole = torch.full((expected[0].numel() + 2,), 7.0)
    buffers["out"] = whole[1:-1].view(expected[0].shape)
    getattr(OPS, name).out(*operands, **buffers)
    assert torch.equal(buffers["out"], expected[0])
    assert whole[0] == whole[-1] == 7


WRONG = {
    "rank": (lambda out: out[0], "out must have 4 dimensions, got 3"),
    "size": (lambda out: torch.cat((out, out)), "out must be ("),
    "dtype": (lambda out: out.double(), "out must have the dtype of the other operands"),
    "device": (lambda out: out.to("meta"), ""),
    "format": (lambda out: out.to(memory_format=torch.channels_last), "out must be contiguous"),
    "strides": (lambda out: torch.empty_like(out).repeat_interleave(2, -1)[..., ::2], "out must be contiguous"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", ["forward", "grad_input"])
def test_a_buffer_that_does_not_fit_is_refused(name, kind):
    change, message = WRONG[kind]
    operands = arguments(name)
    out = change(torch.empty_like(getattr(OPS, name).default(*operands)))
    with pytest.raises((RuntimeError, NotImplementedError)) as error:
        getattr(OPS, name).out(*operands, out=out)
    assert message in str(error.value)


@pytest.mark.parametrize("operand", [0, 1])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_buffer_that_is_also_read_is_refused(name, operand):
    operands = list(arguments(name, with_bias=False))
    results = tuple_of(getattr(OPS, name).default(*operands))
    # The result's buffer begins inside an operand.
    storage = torch.randn(operands[operand].numel() + results[0].numel())
    operands[operand] = storage[: operands[operand].numel()].view(operands[operand].shape)
    buffers = buffers_like(results)
    start = operands[operand].numel() - 1
    buffers["out"] = storage[start : start + results[0].numel()].view(results[0].shape)
    with pytest.raises(RuntimeError, match="out must not share memory with another argument"):
        getattr(OPS, name).out(*operands, **buffers)


def test_the_bias_gradients_buffer_is_checked_too():
    operands = arguments("grad_weight")
    out, bias_out = (torch.empty_like(result) for result in OPS.grad_weight.default(*operands))
    for wrong, message in (
        (bias_out[1:], "bias_out must be (6,) and contiguous, got (5,)"),
        (torch.empty(12)[::2], "bias_out must be (6,) and contiguous"),
        (bias_out.double(), "bias_out must have the dtype"),
        (out.flatten()[:6], "bias_out must not share memory"),
    ):
        with pytest.raises(RuntimeError) as error:
            OPS.grad_weight.out(*operands, out=out, bias_out=wrong)
        assert message in str(error.value)


@pytest.mark.parametrize("at", [0, 1, "out"])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_out_has_no_derivative(name, at):
    """As PyTorch's: refused before anything is written, unless gradients are off."""
    operands = list(arguments(name, with_bias=False))
    buffers = buffers_like(tuple_of(getattr(OPS, name).default(*operands)))
    (buffers if at == "out" else operands)[at].requires_grad_()
    with pytest.raises(RuntimeError, match=rf"{name}.out has no derivative, but an argument requires grad"):
        getattr(OPS, name).out(*operands, **buffers)
    assert all(buffer.isnan().all() for buffer in buffers.values())
    with torch.no_grad():
        results = tuple_of(getattr(OPS, name).out(*operands, **buffers))
    assert not any(buffer.isnan().any() for buffer in results)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_autograd_notices_that_out_is_written_to(name, mode):
    operands = arguments(name)
    buffers = buffers_like(tuple_of(getattr(OPS, name).default(*operands)))
    factors = [torch.ones_like(buffer, requires_grad=True) for buffer in buffers.values()]
    products = [(factor * buffer).sum() for factor, buffer in zip(factors, buffers.values(), strict=True)]
    with mode():
        getattr(OPS, name).out(*operands, **buffers)
    for product in products:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            product.backward()


def test_tensors_of_inference_mode_have_no_count():
    with torch.inference_mode():
        operands = arguments("forward")
        out = torch.empty_like(OPS.forward.default(*operands))
        assert torch.equal(OPS.forward.out(*operands, out=out), OPS.forward.default(*operands))

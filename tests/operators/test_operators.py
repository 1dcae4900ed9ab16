"""The registered operators: opcheck, and fake kernels that tell the truth about strides."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

import torch_dwconv  # noqa: F401
from tests.calls import DTYPES, FORMATS

OPS = torch.ops.torch_dwconv
GEOMETRY = (2, 1, 1, 2, 1, 2)  # stride, pad_top and pad_left, dilation


def arguments(name, dtype=torch.float32, format=torch.contiguous_format, requires_grad=False, batch=2, with_bias=True):
    """A call of the operator `name` on input (batch, 3, 7, 6), weight (6, 1, 3, 2) and output (batch, 6, 4, 6)."""

    def draw(*size):
        tensor = torch.randn(size, dtype=dtype)
        tensor = tensor.to(memory_format=format) if len(size) == 4 else tensor
        return tensor.requires_grad_(requires_grad)

    input, weight, bias, grad_output = draw(batch, 3, 7, 6), draw(6, 1, 3, 2), draw(6), draw(batch, 6, 4, 6)
    channels_last = format is torch.channels_last
    return {
        "forward": (input, weight, bias if with_bias else None, 4, 6, *GEOMETRY, channels_last),
        "grad_input": (grad_output, weight, 3, 7, 6, *GEOMETRY, channels_last),
        "grad_weight": (input, grad_output, 3, 2, *GEOMETRY, with_bias, channels_last),
        "backward": (grad_output, input, weight, *GEOMETRY, with_bias, channels_last, channels_last),
    }[name]


DIFFERENTIABLE = ("forward", "grad_input", "grad_weight")
NAMES = (*DIFFERENTIABLE, "backward")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_opcheck(name, with_bias, format):
    op = getattr(OPS, name).default
    torch.library.opcheck(op, arguments(name, torch.float64, format, requires_grad=True, with_bias=with_bias))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_every_dtype(name, dtype):
    utilities = ("test_schema", "test_autograd_registration", "test_faketensor")
    op = getattr(OPS, name).default
    torch.library.opcheck(op, arguments(name, dtype), test_utils=utilities)


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("operand_format", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_fake_strides_are_the_real_ones(name, operand_format, channels_last, batch):
    real_arguments = (*arguments(name, format=operand_format, batch=batch)[:-1], channels_last)
    real = getattr(OPS, name)(*real_arguments)
    with FakeTensorMode() as mode:
        fake = getattr(OPS, name)(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in real_arguments))
    for real_result, fake_result in zip(tuple_of(real), tuple_of(fake), strict=True):
        assert (fake_result.shape, fake_result.stride()) == (real_result.shape, real_result.stride())


@pytest.mark.parametrize("weight_channels_last", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("operand_format", FORMATS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_backward_is_both_gradients(with_bias, operand_format, channels_last, weight_channels_last):
    """Against F.conv2d in float64, and to the bit what the operators for each gradient return."""
    grad_output, input, weight, *rest = arguments("backward", torch.float64, operand_format, with_bias=with_bias)
    formats = channels_last, weight_channels_last
    gradients = OPS.backward(grad_output, input, weight, *rest[:-2], *formats)
    bias = torch.zeros(6, dtype=torch.float64)
    operands = [tensor.detach().requires_grad_() for tensor in (input, weight, bias)]
    padded = F.pad(operands[0], (2, 0, 1, 1))
    output = F.conv2d(padded, *operands[1:], GEOMETRY[:2], 0, GEOMETRY[4:], groups=3)
    exact = torch.autograd.grad(output, operands, grad_output)
    for got, expected in zip(gradients[: 2 + with_bias], exact, strict=False):
        torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13, check_stride=False)
    assert [g.is_contiguous(memory_format=FORMATS[f]) for g, f in zip(gradients, formats, strict=False)] == [True] * 2
    assert gradients[2].shape == ((6,) if with_bias else (0,))
    alone = OPS.grad_input(grad_output, weight, *input.shape[1:], *GEOMETRY, channels_last)
    assert torch.equal(gradients[0], alone)
    for got, alone in zip(
        gradients[1:], OPS.grad_weight(input, grad_output, 3, 2, *GEOMETRY, with_bias, False), strict=True
    ):
        assert torch.equal(got, alone)


@pytest.mark.parametrize("size", [(2, 1, 5, 4), (2, 3, 1, 1), (3, 1, 1, 1), (2, 3, 1, 4), (1, 1, 1, 1), (0, 3, 5, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_result_strides_are_those_of_torch_empty(size, channels_last):
    weight = torch.ones(size[1], 1, 1, 1)
    output = OPS.forward(torch.randn(size), weight, None, *size[2:], 1, 1, 0, 0, 1, 1, channels_last)
    expected = torch.empty(size, memory_format=FORMATS[channels_last])
    assert output.stride() == expected.stride()


def tuple_of(result):
    return result if isinstance(result, tuple) else (result,)


def int_operands(args):
    return tuple(a.int() if isinstance(a, torch.Tensor) else a for a in args)


def put(position, value):
    """A change of one argument; `value` may be a function of the old one."""
    return lambda args: (*args[:position], value(args[position]) if callable(value) else value, *args[position + 1 :])


BROKEN = {
    "rank": ("forward", put(0, lambda x: x[0])),
    "rank of the weight": ("grad_input", put(1, lambda w: w[0])),
    "dtype": ("forward", put(1, lambda w: w.double())),
    "dtype without a kernel": ("forward", int_operands),
    "dtype of the gradient": ("grad_weight", put(1, lambda g: g.double())),
    "multiple": ("forward", put(1, lambda w: w[:5])),
    "channels that are none": ("grad_input", put(2, 0)),
    "negative channels": ("grad_input", put(2, -3)),
    "one input channel a filter": ("forward", put(1, lambda w: w.expand(6, 2, 3, 2))),
    "bias": ("forward", put(2, lambda b: b[:5])),
    "rank of the bias": ("forward", put(2, lambda b: b[None])),
    "negative size": ("forward", put(3, -1)),
    "stride": ("forward", put(5, 0)),
    "padding": ("grad_weight", put(7, -1)),
    "padding at the left": ("grad_weight", put(7, -2)),
    "dilation": ("grad_input", put(9, 0)),
    "empty kernel": ("grad_weight", put(2, 0)),
    "batch": ("grad_weight", put(1, lambda g: torch.cat((g, g)))),
    "channels of the gradient": ("grad_input", put(0, lambda g: g[:, :3])),
    "overflow": ("forward", put(3, 2**60)),
    "overflow of an index": ("grad_weight", put(8, 2**61)),
    "rank of the input in backward": ("backward", put(1, lambda x: x[0])),
    "dtype in backward": ("backward", put(2, lambda w: w.double())),
    "dtype without a kernel in backward": ("backward", int_operands),
    "multiple in backward": ("backward", put(2, lambda w: w[:5])),
    "batch in backward": ("backward", put(0, lambda g: g[:1])),
    "channels of the gradient in backward": ("backward", put(0, lambda g: g[:, :3])),
    "one input channel a filter in backward": ("backward", put(2, lambda w: w.expand(6, 2, 3, 2))),
    "stride in backward": ("backward", put(3, 0)),
    "padding in backward": ("backward", put(6, -1)),
    "activation": ("forward", lambda args: (*args, 7)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_fake_and_meta_tensors_are_held_to_the_same_rules(kind):
    name, change = BROKEN[kind]
    broken = change(arguments(name))
    with pytest.raises(RuntimeError) as real:
        getattr(OPS, name)(*broken)
    text = str(real.value).splitlines()[0]
    with FakeTensorMode() as mode, pytest.raises(RuntimeError) as fake:
        getattr(OPS, name)(*(mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in broken))
    with pytest.raises(RuntimeError) as meta:
        getattr(OPS, name)(*(a.to("meta") if isinstance(a, torch.Tensor) else a for a in broken))
    for error in (fake, meta):
        assert text.startswith("torch_dwconv: ") or "torch_dwconv: " in text
        assert str(error.value).splitlines()[0].split("torch_dwconv: ")[1] == text.split("torch_dwconv: ")[1]

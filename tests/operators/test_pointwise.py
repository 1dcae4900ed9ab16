"""The operators of the pointwise convolution in training, against F.conv2d."""

import itertools

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.nn import functional as F

from torch_dwconv import PointwiseConv2d
from torch_dwconv.functional import pointwise as dispatch
from torch_dwconv.operators import pointwise as operators

FORMATS = (torch.contiguous_format, torch.channels_last)
# (N, C, O, H, W)
SIZES = (
    (2, 5, 7, 9, 6),
    (3, 64, 24, 14, 14),
    (9, 40, 33, 7, 7),
    (2, 3, 100, 33, 32),
    (4, 96, 16, 8, 8),
    (1, 1, 1, 1, 1),
)


@pytest.fixture(autouse=True)
def _of_any_size(monkeypatch):
    """The kernels take every call, small ones too."""
    monkeypatch.setattr(dispatch, "_FEWEST_PIXELS", 0)
    monkeypatch.setattr(dispatch, "_LEAST_WORK", 0)


def numbers(*size, seed=0, integers=False):
    generator = torch.Generator().manual_seed(seed)
    if integers:
        return torch.randint(-4, 5, size, generator=generator).float()
    return torch.randn(size, generator=generator)


def operands(size, memory_format=torch.contiguous_format, bias=True, integers=False):
    n, c, o, h, w = size
    x = numbers(n, c, h, w, seed=1, integers=integers).contiguous(memory_format=memory_format).requires_grad_()
    weight = numbers(o, c, 1, 1, seed=2, integers=integers).contiguous(memory_format=memory_format).requires_grad_()
    return x, weight, numbers(o, seed=3, integers=integers).requires_grad_() if bias else None


def ours(x, weight, bias=None):
    assert dispatch.is_ours(x, weight, bias)
    return operators.pointwise(x, weight, bias)


def gradients(function, tensors, v):
    output = function(*tensors)
    return [output, *torch.autograd.grad(output, [tensor for tensor in tensors if tensor is not None], v)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_exact_on_integers(size, memory_format, bias):
    tensors = operands(size, memory_format, bias, integers=True)
    v = numbers(size[0], size[2], *size[3:], seed=4, integers=True).contiguous(memory_format=memory_format)
    right = gradients(F.conv2d, tensors, v)
    for one, other in zip(gradients(ours, tensors, v), right, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride() or 1 in one.shape


@pytest.mark.parametrize("memory_format", FORMATS)
def test_as_accurate_as_conv2d(memory_format):
    """The error against float64, in the norm, is at most 1.5 times PyTorch's."""
    tensors = operands((16, 48, 40, 28, 28), memory_format)
    v = numbers(16, 40, 28, 28, seed=4)
    exact = gradients(F.conv2d, [tensor.detach().double().requires_grad_() for tensor in tensors], v.double())
    for one, other, right in zip(gradients(ours, tensors, v), gradients(F.conv2d, tensors, v), exact, strict=True):
        assert (one - right).norm() <= 1.5 * (other - right).norm() + 1e-7 * right.norm()


@pytest.mark.parametrize(("of_input", "of_weight"), itertools.product(FORMATS, FORMATS))
def test_formats_of_results_are_conv2ds(of_input, of_weight):
    x, weight, bias = operands((3, 6, 10, 5, 8))
    x = x.detach().contiguous(memory_format=of_input).requires_grad_()
    weight = weight.detach().contiguous(memory_format=of_weight).requires_grad_()
    v = numbers(3, 10, 5, 8, seed=4)
    results, right = (gradients(function, (x, weight, bias), v) for function in (ours, F.conv2d))
    assert results[0].stride() == right[0].stride()
    assert results[2].stride() == weight.stride()
    torch.testing.assert_close(results, right)


def test_any_strides():
    """Of the input, of the weight, and of the gradient that comes in, which may be expanded."""
    x = numbers(4, 12, 9, 16, seed=1)[:, ::2, :, 3:11].requires_grad_()
    weight, bias = numbers(6, 10, 1, 1, seed=2).transpose(0, 1).requires_grad_(), numbers(20, seed=3)[::2]
    for v in (torch.ones(()).expand(4, 10, 9, 8), numbers(4, 10, 8, 9).mT):
        results = gradients(ours, (x, weight, bias.requires_grad_()), v)
        torch.testing.assert_close(results, gradients(F.conv2d, (x, weight, bias), v))


@pytest.mark.parametrize("wanted", [*itertools.product([False, True], repeat=3)])
def test_computes_the_gradients_that_are_needed(wanted):
    tensors = operands((2, 6, 10, 5, 8))
    for tensor, wants in zip(tensors, wanted, strict=True):
        tensor.requires_grad_(wants)
    output, right = ours(*tensors), F.conv2d(*tensors)
    assert output.requires_grad == any(wanted)
    of = [tensor for tensor in tensors if tensor.requires_grad]
    for each in of:
        one, other = (torch.autograd.grad(y.sin().sum(), each, retain_graph=True) for y in (output, right))
        torch.testing.assert_close(one, other)


def test_saves_what_needed_gradients_use():
    x, weight, bias = operands((2, 6, 10, 5, 8))
    for needs_input, needs_weight in itertools.product([False, True], repeat=2):
        x.requires_grad_(needs_input), weight.requires_grad_(needs_weight)
        saved = list[torch.Size]()
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.shape), lambda tensor: tensor
        ):
            ours(x, weight, bias)
        assert saved == [x.shape] * needs_weight + [weight.shape] * needs_input


@pytest.mark.parametrize("memory_format", FORMATS)
def test_second_derivatives_are_conv2ds(memory_format):
    tensors, v = operands((2, 4, 5, 6, 3), memory_format), numbers(2, 5, 6, 3, seed=4).requires_grad_()
    results = []
    for function in (ours, F.conv2d):
        first = torch.autograd.grad(function(*tensors), tensors, v, create_graph=True)
        loss = sum(each.sin().sum() for each in first)
        results.append([*first, *torch.autograd.grad(loss, [*tensors[:2], v])])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_batched_gradients():
    x, weight, bias = operands((2, 4, 5, 6, 3))
    v = numbers(3, 2, 5, 6, 3, seed=4)
    results = [
        torch.autograd.grad(function(x, weight, bias), (x, weight, bias), v, is_grads_batched=True)
        for function in (ours, F.conv2d)
    ]
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_bits_do_not_depend_on_threads(memory_format):
    tensors, v = operands((8, 33, 70, 14, 14), memory_format), numbers(8, 70, 14, 14, seed=4)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(gradients(ours, tensors, v))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_nothing_else_is_taken():
    x, weight, bias = (tensor.detach() for tensor in operands((2, 6, 10, 5, 8)))
    is_ours = dispatch.is_ours
    assert is_ours(x, weight, bias)
    assert not is_ours(x.double(), weight, bias) and not is_ours(x, weight.bfloat16(), bias)
    assert not is_ours(x[0], weight, bias) and not is_ours(x[:, 1:], weight, bias)
    assert not is_ours(x, weight, bias[1:]) and not is_ours(x, weight.expand(10, 6, 3, 3), bias)
    assert not is_ours(x.to("meta"), weight.to("meta"), None) and not is_ours(x, weight.to("meta"), bias)
    assert not is_ours(x, weight, bias.double())
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_ours(x, weight, bias)
    with torch._subclasses.FakeTensorMode() as mode:
        assert not is_ours(*(mode.from_tensor(tensor) for tensor in (x, weight, bias)))


def test_small_calls_are_left_to_conv2d(monkeypatch):
    monkeypatch.undo()
    assert not dispatch.is_ours(torch.ones(64, 64, 1, 1), torch.ones(64, 64, 1, 1), None)
    assert not dispatch.is_ours(torch.ones(1, 2, 8, 8), torch.ones(2, 2, 1, 1), None)
    assert dispatch.is_ours(torch.ones(16, 64, 14, 14), torch.ones(64, 64, 1, 1), None)


def test_what_is_slower_is_left_to_conv2d(monkeypatch):
    monkeypatch.undo()
    few, more = torch.empty(16, 16, 112, 112), torch.empty(16, 32, 112, 112)
    weight = torch.empty(96, 16, 1, 1), torch.empty(96, 32, 1, 1)
    assert dispatch.is_ours(few, weight[0], None)
    assert not dispatch.is_ours(few.contiguous(memory_format=torch.channels_last), weight[0], None)
    assert dispatch.is_ours(more.contiguous(memory_format=torch.channels_last), weight[1], None)
    small, weight = torch.empty(16, 320, 7, 7), torch.empty(1280, 320, 1, 1)
    assert not dispatch.is_ours(small, weight, None)
    assert dispatch.is_ours(small.contiguous(memory_format=torch.channels_last), weight, None)
    assert dispatch.is_ours(small, weight[:960], None)


def test_transforms_see_conv2d():
    layer, x = PointwiseConv2d(6, 10), numbers(2, 6, 5, 8)
    parameters = {name: value.detach() for name, value in layer.named_parameters()}

    def loss(parameters, x):
        return functional_call(layer, parameters, (x,)).sin().sum()

    def right(parameters, x):
        return F.conv2d(x, parameters["weight"], parameters["bias"]).sin().sum()

    torch.testing.assert_close(grad(loss)(parameters, x), grad(right)(parameters, x))
    per_sample = [vmap(grad(f), (None, 0))(parameters, x[:, None]) for f in (loss, right)]
    torch.testing.assert_close(*per_sample)
    tangents = [jvp(lambda x, f=f: f(parameters, x), (x,), (torch.ones_like(x),)) for f in (loss, right)]
    torch.testing.assert_close(*tangents)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w, g: operators.POINTWISE(x.double(), w, None, False), "input of pointwise must be float32"),
        (lambda x, w, g: operators.POINTWISE(x, w.double(), None, False), "weight must have the dtype"),
        (lambda x, w, g: operators.POINTWISE(x[0], w, None, False), "input must have 4 dimensions"),
        (lambda x, w, g: operators.POINTWISE(x, w[:, 1:], None, False), r"weight must be \(10, 6, 1, 1\)"),
        (lambda x, w, g: operators.POINTWISE(x, w, w[1:, 0, 0, 0], False), "one value for each of the 10 output"),
        (lambda x, w, g: operators.POINTWISE(x, w, w[:, 0, 0], False), "bias must have 1 dimensions"),
        (lambda x, w, g: operators.GRAD_INPUT(g, w[1:], False), r"weight must be \(10, 6, 1, 1\)"),
        (lambda x, w, g: operators.GRAD_INPUT(g.half(), w.half(), False), "grad_output of pointwise must be float32"),
        (lambda x, w, g: operators.GRAD_WEIGHT(x, g[1:], False, False), r"grad_output must be \(2, 10, 5, 8\)"),
        (lambda x, w, g: operators.GRAD_WEIGHT(x, g[..., 1:], True, False), r"grad_output must be \(2, 10, 5, 8\)"),
    ],
)
def test_errors_of_operators(call, message):
    with pytest.raises(RuntimeError, match=message):
        call(torch.ones(2, 6, 5, 8), torch.ones(10, 6, 1, 1), torch.ones(2, 10, 5, 8))


@pytest.mark.parametrize("size", [(0, 6, 10, 5, 8), (2, 0, 10, 5, 8), (2, 6, 0, 5, 8), (2, 6, 10, 0, 8)])
@pytest.mark.parametrize("channels_last", [False, True])
def test_operators_of_nothing(size, channels_last):
    n, c, o, h, w = size
    x, weight, g = torch.ones(n, c, h, w), torch.ones(o, c, 1, 1), torch.ones(n, o, h, w)
    bias = torch.arange(float(o))
    output = operators.POINTWISE(x, weight, bias, channels_last)
    assert torch.equal(output, bias[:, None, None] + torch.zeros(n, o, h, w) + (c if output.numel() else 0))
    assert torch.equal(operators.GRAD_INPUT(g, weight, channels_last), torch.full((n, c, h, w), float(o)))
    assert torch.equal(operators.GRAD_WEIGHT(x, g, channels_last, False), torch.full((o, c, 1, 1), float(n * h * w)))

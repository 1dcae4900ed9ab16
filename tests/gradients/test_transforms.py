"""torch.func's transforms, alone and nested, in eager mode and compiled: the values are F.conv2d's."""

import pytest
import torch
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.nn import functional as F

from torch_dwconv import depthwise_conv2d

STRIDE, PADDING = (2, 1), (1, 0)


def ours(input, weight, bias):
    return depthwise_conv2d(input, weight, bias, STRIDE, PADDING)


def theirs(input, weight, bias):
    return F.conv2d(input, weight, bias, STRIDE, PADDING, groups=input.shape[-3])


def loss(function):
    return lambda *tensors: function(*tensors).sin().sum()


def stack(tensor, dim=0, copies=2):
    """A batch of different tensors along `dim`."""
    return torch.stack([tensor * (i + 1) for i in range(copies)], dim)


ALL = (0, 1, 2)


def transforms(function, input, weight, bias):
    """Every transform under test, as name -> a function without arguments."""
    tensors, tangents = (input, weight, bias), (input.cos(), weight.cos(), bias.cos())
    scalar = loss(function)
    first = grad(scalar, ALL)
    return {
        "grad": lambda: first(*tensors),
        "vjp": lambda: vjp(function, *tensors)[1](function(*tensors).cos()),
        "jvp": lambda: jvp(function, tensors, tangents),
        "jvp in the bias": lambda: jvp(lambda b: function(input, weight, b), (bias,), (tangents[2],)),
        "linearize": lambda: linearize(function, *tensors)[1](*tangents),
        "jacrev": lambda: jacrev(function, ALL)(*tensors),
        "jacfwd": lambda: jacfwd(function, ALL)(*tensors),
        "hessian": lambda: hessian(scalar, ALL)(*tensors),
        "jacfwd of jacfwd": lambda: jacfwd(jacfwd(scalar, ALL), ALL)(*tensors),
        "jacrev of jacfwd": lambda: jacrev(jacfwd(scalar, ALL), ALL)(*tensors),
        "jacrev of jacrev": lambda: jacrev(jacrev(scalar, ALL), ALL)(*tensors),
        "grad of grad": lambda: grad(lambda *t: sum(g.sin().sum() for g in first(*t)), ALL)(*tensors),
        "jvp of grad": lambda: jvp(first, tensors, tangents),
        "grad of jvp": lambda: grad(lambda *t: jvp(function, t, tangents)[1].sin().sum(), ALL)(*tensors),
        "jvp of jvp": lambda: jvp(lambda *t: jvp(function, t, tangents)[1], tensors, tangents),
        "jvp of grad of jvp": lambda: jvp(
            grad(lambda *t: jvp(function, t, tangents)[1].sin().sum(), ALL), tensors, tangents
        ),
        "per-sample gradients": lambda: vmap(grad(lambda w, b, x: loss(function)(x, w, b), (0, 1)), (None, None, 0))(
            weight, bias, input
        ),
        "vmap of input": lambda: vmap(function, (4, None, None))(stack(input, 4), weight, bias),
        "vmap of weight": lambda: vmap(function, (None, 0, None))(input, stack(weight), bias),
        "vmap of bias": lambda: vmap(function, (None, None, 0))(input, weight, stack(bias)),
        "vmap of all": lambda: vmap(function, (1, 2, 1), 1)(stack(input, 1), stack(weight, 2), stack(bias, 1)),
        "vmap of all but bias": lambda: vmap(lambda x, w: function(x, w, None))(stack(input), stack(weight)),
        "vmap of vmap": lambda: vmap(vmap(function, (0, None, None)), (None, 0, 0))(
            stack(input), stack(weight, copies=3), stack(bias, copies=3)
        ),
        "grad of vmap": lambda: grad(
            lambda w, b: vmap(function, (0, None, None))(stack(input), w, b).sin().sum(), (0, 1)
        )(weight, bias),
        "hessian in an ensemble": lambda: vmap(hessian(lambda w, b: scalar(input, w, b), (0, 1)))(
            stack(weight), stack(bias)
        ),
    }


def sizes():
    def draw(*size):
        return torch.randn(size, dtype=torch.float64)

    return draw(2, 2, 5, 4), draw(4, 1, 3, 2), draw(4)


NAMES = list(transforms(ours, *sizes()))
# Compiling these fails for F.conv2d just the same: PyTorch's own limits.
UNCOMPILED = {"linearize", "hessian in an ensemble"}
if torch.__version__ < (2, 12):
    UNCOMPILED |= {"jacfwd", "hessian", "jacfwd of jacfwd", "jacrev of jacfwd", "jacrev of jacrev"}
# What is compiled in every run: one of each kind, and every kind of nesting.
TELLING = ["jvp", "hessian", "grad of grad", "grad of jvp", "jvp of jvp", "per-sample gradients", "vmap of all"]


def check(name, compiled=lambda function: function):
    tensors = sizes()
    actual = compiled(transforms(ours, *tensors)[name])()
    torch.testing.assert_close(actual, transforms(theirs, *tensors)[name](), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_eager(name):
    check(name)


@pytest.mark.parametrize("name", [name for name in TELLING if name not in UNCOMPILED])
def test_aot_eager(name, fresh_compiler):
    check(name, torch.compile(backend="aot_eager", fullgraph=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - UNCOMPILED - set(TELLING)))
def test_aot_eager_all(name, fresh_compiler):
    check(name, torch.compile(backend="aot_eager", fullgraph=True))


@pytest.mark.parametrize("name", {"hessian"} - UNCOMPILED)
def test_inductor(name, fresh_compiler):
    check(name, torch.compile(fullgraph=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(NAMES) - UNCOMPILED - {"hessian"}))
def test_inductor_all(name, fresh_compiler):
    check(name, torch.compile(fullgraph=True))


def test_channels_last_per_sample_gradients():
    """The batch is folded into the channels, which channels_last keeps innermost."""
    input, weight, bias = sizes()
    input = input.to(memory_format=torch.channels_last)
    name = "per-sample gradients"
    actual, right = (transforms(function, input, weight, bias)[name]() for function in (ours, theirs))
    torch.testing.assert_close(actual, right)


def test_vmap_over_nothing():
    input, weight, bias = sizes()
    empty = input.new_empty(0, *input.shape)
    assert vmap(lambda x: ours(x, weight, bias))(empty).shape == vmap(lambda x: theirs(x, weight, bias))(empty).shape


def test_functional_call():
    layer = torch.nn.Conv2d(2, 4, 3, groups=2).double()
    layer._conv_forward = lambda input, weight, bias: depthwise_conv2d(input, weight, bias)
    input, parameters = torch.randn(3, 2, 5, 5, dtype=torch.float64), dict(layer.named_parameters())
    gradients = grad(lambda p: functional_call(layer, p, input).sin().sum())(parameters)
    right = grad(lambda p: F.conv2d(input, p["weight"], p["bias"], groups=2).sin().sum())(parameters)
    torch.testing.assert_close(gradients, right)


def test_forward_mode_in_eager_mode():
    """Dual tensors, without torch.func."""
    tensors = sizes()
    tangents = [t.cos() for t in tensors]
    with torch.autograd.forward_ad.dual_level():
        duals = [torch.autograd.forward_ad.make_dual(*pair) for pair in zip(tensors, tangents, strict=True)]
        output = torch.autograd.forward_ad.unpack_dual(ours(*duals))
    torch.testing.assert_close((output.primal, output.tangent), jvp(theirs, tensors, tuple(tangents)))


def test_dead_wrapper():
    """A tensor that outlives its transform is the plain one that it wraps."""
    leaked = []
    tensors = sizes()
    grad(lambda input: (leaked.append(input), input.sum())[1])(tensors[0])
    torch.testing.assert_close(ours(leaked[0], *tensors[1:]), theirs(*tensors))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(reentrant):
    tensors = [t.requires_grad_() for t in sizes()]
    torch.utils.checkpoint.checkpoint(ours, *tensors, use_reentrant=reentrant).sin().sum().backward()
    right = torch.autograd.grad(theirs(*tensors).sin().sum(), tensors)
    torch.testing.assert_close(tuple(t.grad for t in tensors), right)

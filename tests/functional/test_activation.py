"""activation=: fused into forward where no gradient is needed, composed where one is, the same function either way."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from tests.calls import DTYPES, FORMATS, Call, assert_close, reference
from torch_dwconv import depthwise_conv2d, explain
from torch_dwconv.operators import autograd, eager, schemas

FUNCTIONS = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}
# A shape for each way in which the kernels store: rows and bands, packed small planes, single pixels, odd channels.
CALLS = (
    Call(2, 19, 1, (20, 21), (3, 3), padding=((1, 1), (1, 1))),
    Call(1, 32, 1, (7, 7), (5, 5), padding=((2, 2), (2, 2))),
    Call(3, 33, 1, (14, 14), (3, 3), (2, 2), ((1, 0), (0, 1))),
    Call(2, 5, 3, (9, 40), (1, 7), (1, 2), dilation=(2, 2)),
    Call(1, 3, 1, (40, 35), (13, 13), padding=((6, 6), (6, 6))),
)
OP = torch.ops.torch_dwconv.forward


@pytest.fixture
def composed(monkeypatch):
    """The codes of the activations that PyTorch's functions computed."""
    codes = []

    def activation_of(code, function_of=schemas.activation_of):
        codes.append(code)
        return function_of(code)

    for module in (autograd, eager):
        monkeypatch.setattr(module, "activation_of", activation_of)
    return codes


def depthwise_operator(input, weight, bias, call, output, code):
    """The raw operator with the sizes of a call whose output is like `output`."""
    (top, _), (left, _) = call.padding
    channels_last = output.is_contiguous(memory_format=torch.channels_last)
    geometry = (*output.shape[2:], *call.stride, top, left, *call.dilation, channels_last)
    return OP(input, weight, bias, *geometry, code)


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_fused_is_the_function_of_the_sums(activation, dtype, memory_format, call, composed):
    input, weight, bias = call.tensors(dtype)
    input = (3 * input).to(memory_format=memory_format)  # both ends of relu6 and hardswish
    output = depthwise_conv2d(input, weight, bias, activation=activation, **call.options)
    exact = reference(input.double(), weight.double(), bias.double(), **call.options)
    assert_close(output, FUNCTIONS[activation](exact))
    assert output.is_contiguous(memory_format=memory_format)
    slow = dtype == torch.float64 and activation in ("silu", "gelu", "gelu_tanh")
    assert bool(composed) is slow
    if slow:  # the operator has it, for graphs
        operator = depthwise_operator(input, weight, bias, call, output, list(FUNCTIONS).index(activation) + 1)
        assert_close(operator, FUNCTIONS[activation](exact))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", FUNCTIONS)
def test_extreme_values(activation, dtype):
    """Where the sum is tiny, huge, infinite or NaN."""
    top = torch.finfo(dtype).max / 8  # torch's hardswish overflows above, and so does ours
    values = torch.tensor([0.0, -0.0, 1e-4, -1e-4, 3, -3, 6, -6, 30, -30, -104, 104, top, -top], dtype=dtype)
    values = torch.cat([values, torch.tensor([float("inf"), float("-inf"), float("nan")], dtype=dtype)])
    input, weight = values.view(1, 1, 1, -1), torch.ones(1, 1, 1, 1, dtype=dtype)
    output = depthwise_conv2d(input, weight, activation=activation).flatten()
    expected = FUNCTIONS[activation](values.double())
    assert torch.equal(output.isnan(), expected.isnan())
    near = expected.to(dtype)
    tolerance = {"rtol": 32 * torch.finfo(dtype).eps, "atol": 8 * torch.finfo(dtype).tiny}
    torch.testing.assert_close(output, near, equal_nan=True, **tolerance)


@pytest.mark.parametrize("activation", FUNCTIONS)
@pytest.mark.parametrize("leaf", ["input", "weight", "bias"])
def test_gradients_are_those_of_the_composed_form(leaf, activation):
    call = CALLS[0]
    ours = dict(zip(("input", "weight", "bias"), call.tensors(torch.float64), strict=True))
    theirs = {name: tensor.clone() for name, tensor in ours.items()}
    for tensors in (ours, theirs):
        tensors[leaf].requires_grad_()
    output = depthwise_conv2d(**ours, **call.options, activation=activation)
    expected = FUNCTIONS[activation](reference(**theirs, **call.options))
    assert_close(output, expected)
    grad_output = torch.randn_like(output)
    (gradient,), (exact,) = (
        torch.autograd.grad(result, tensors[leaf], grad_output)
        for result, tensors in ((output, ours), (expected, theirs))
    )
    assert_close(gradient, exact)


@pytest.mark.parametrize("activation", ["relu6", "silu", "gelu_tanh"])
def test_the_operator_under_transforms(activation):
    """Below the functional: reverse and forward mode, nested, and vmap, on the raw operator with its activation."""
    code = list(FUNCTIONS).index(activation) + 1
    input, weight, bias = (t.double() for t in Call(2, 3, 1, (6, 5), (3, 3)).tensors(torch.float32))
    geometry = (4, 3, 1, 1, 0, 0, 1, 1, False)

    def ours(input, weight):
        return OP(input, weight, bias, *geometry, code)

    def theirs(input, weight):
        return FUNCTIONS[activation](F.conv2d(input, weight, bias, groups=3))

    tangents = torch.randn_like(input), torch.randn_like(weight)
    for transform in (
        lambda f: f(input, weight),
        lambda f: torch.func.grad(lambda *t: f(*t).sin().sum(), (0, 1))(input, weight),
        lambda f: torch.func.jvp(f, (input, weight), tangents),
        lambda f: torch.func.jvp(torch.func.grad(lambda *t: f(*t).sin().sum(), (0, 1)), (input, weight), tangents),
        lambda f: torch.func.vmap(f, (0, None))(torch.stack([input, -input]), weight),
        lambda f: torch.func.vmap(f)(torch.stack([input, -input]), torch.stack([weight, 2 * weight])),
    ):
        torch.testing.assert_close(transform(ours), transform(theirs))


@pytest.mark.parametrize("needs_gradient", [False, True])
def test_a_graph_has_it_fused_unless_a_gradient_is_needed(needs_gradient, fresh_compiler):
    input, weight, bias = CALLS[0].tensors(torch.float32)
    weight.requires_grad_(needs_gradient)
    graphs = []

    def keep(graph, _):
        graphs.append([node.args for node in graph.graph.nodes if node.target is OP.default])
        return graph

    from torch._dynamo.backends.common import aot_autograd

    options = CALLS[0].options  # the compiler of PyTorch 2.10 cannot trace how they are made

    def call(*tensors):
        return depthwise_conv2d(*tensors, **options, activation="silu")

    output = torch.compile(call, fullgraph=True, backend=aot_autograd(fw_compiler=keep))(input, weight, bias)
    assert torch.equal(output, call(input, weight, bias))
    ((arguments,),) = graphs
    assert (len(arguments) == 13 and arguments[-1] == 4) is not needs_gradient


@pytest.mark.parametrize("code", [-1, 7, 2**40])
@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("needs_gradient", [False, True])
def test_a_code_out_of_range_is_refused(needs_gradient, device, code):
    input = torch.randn(1, 2, 4, 4, device=device, requires_grad=needs_gradient)
    weight = torch.randn(2, 1, 3, 3, device=device)
    with pytest.raises(RuntimeError, match=f"activation must be 0 \\(none\\) to 6, got {code}"):
        OP(input, weight, None, 2, 2, 1, 1, 0, 0, 1, 1, False, code)


def test_out_has_it_too():
    input, weight, bias = CALLS[0].tensors(torch.float32)
    arguments = (input, weight, bias, 20, 21, 1, 1, 1, 1, 1, 1, False)
    out = torch.full((2, 19, 20, 21), float("nan"))
    OP.out(*arguments, 1, out=out)
    assert torch.equal(out, OP(*arguments).relu())
    OP.out(*arguments, out=out)
    assert torch.equal(out, OP(*arguments))


def test_a_dtype_without_kernels_is_composed():
    input, weight = torch.randint(-3, 3, (1, 2, 4, 4)), torch.randint(-3, 3, (2, 1, 3, 3))
    assert torch.equal(depthwise_conv2d(input, weight, activation="relu"), F.conv2d(input, weight, groups=2).relu())


def test_a_three_dimensional_input():
    input, weight, bias = CALLS[0].tensors(torch.float64)
    output = depthwise_conv2d(input[0], weight, bias, activation="gelu", **CALLS[0].options)
    assert_close(output, F.gelu(reference(input, weight, bias, **CALLS[0].options)[0]))


def test_explain_says_so():
    input, weight, _ = CALLS[0].tensors(torch.float32)
    explanation = explain(input, weight, activation="silu")
    assert explanation.activation == "silu" and "activation='silu'" in explanation.problem
    assert ", with silu unless a gradient is needed" in str(explanation).splitlines()[1]
    with pytest.raises(ValueError, match="activation must be"):
        explain(input, weight, activation="swish")

"""depthwise_conv_transpose2d against F.conv_transpose2d in float64."""

import warnings

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tests.calls import TOLERANCE
from torch_dwconv import (
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    depthwise_conv2d,
    depthwise_conv_transpose2d,
)

# stride, padding, output_padding, dilation
OPTIONS = [
    (1, 0, 0, 1),
    (2, 1, 1, 1),
    ((2, 3), (0, 2), (1, 2), 1),
    (1, (1, 0), (0, 1), (1, 2)),
    (3, 2, 0, 2),
]


def leaves(multiplier, dtype=torch.float64):
    sizes = (2, 5, 6, 7), (5, multiplier, 3, 4), (5 * multiplier,)
    return [torch.randn(size, dtype=dtype, requires_grad=True) for size in sizes]


def output_and_gradients(function, tensors, *options):
    output = function(*tensors, *options)
    torch.manual_seed(1)
    return [output, *torch.autograd.grad(output, tensors, torch.randn_like(output))]


def theirs(input, weight, bias, stride, padding, output_padding, dilation):
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, input.shape[-3], dilation)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("multiplier", [1, 3])
def test_equals_conv_transpose2d(options, multiplier):
    tensors = leaves(multiplier)
    actual, expected = (output_and_gradients(f, tensors, *options) for f in (depthwise_conv_transpose2d, theirs))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_dtypes_and_formats(dtype, memory_format):
    input, weight, _ = (tensor.detach() for tensor in leaves(2, dtype))
    output = depthwise_conv_transpose2d(input.to(memory_format=memory_format), weight, None, 2, 1)
    expected = theirs(input.double(), weight.double(), None, 2, 1, 0, 1)
    assert output.dtype == dtype and output.is_contiguous(memory_format=memory_format)
    assert (output - expected).norm() <= TOLERANCE[dtype] * expected.norm()


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_gradient_keeps_the_format_of_the_input(multiplier, memory_format):
    input, weight, _ = leaves(multiplier)
    input = input.detach().to(memory_format=memory_format).requires_grad_()
    output = depthwise_conv_transpose2d(input, weight, None, 2, 1)
    expected = theirs(input, weight, None, 2, 1, 0, 1)
    (ours,), (exact,) = (torch.autograd.grad(result.square().sum(), input) for result in (output, expected))
    torch.testing.assert_close(ours, exact)
    assert ours.stride() == input.stride()


def test_without_a_batch_and_without_a_bias():
    input, weight, _ = leaves(2)
    torch.testing.assert_close(
        depthwise_conv_transpose2d(input[0], weight, stride=2), theirs(input[0], weight, None, 2, 0, 0, 1)
    )


def test_each_side_has_its_own_padding():
    tensors = leaves(2)
    full = theirs(*tensors, 2, 0, 1, 1)
    cut = depthwise_conv_transpose2d(*tensors, 2, ((1, 3), (0, 2)), 1)
    torch.testing.assert_close(cut, full[:, :, 1:-3, :-2])


@pytest.mark.parametrize("options", OPTIONS[:2] + OPTIONS[4:], ids=str)
def test_is_the_adjoint_of_depthwise_conv2d(options):
    """<conv(x), g> = <x, transpose(g)>, exactly, on integers."""
    stride, padding, _, dilation = options
    g, weight = (torch.randint(-3, 4, size).double() for size in [(2, 5, 6, 7), (5, 1, 3, 4)])
    transposed = depthwise_conv_transpose2d(g, weight, None, *options)
    x = torch.randint_like(transposed, -3, 4)
    forward = depthwise_conv2d(x, weight, None, stride, padding, dilation)
    assert forward.shape == g.shape
    assert (forward * g).sum() == (x * transposed).sum()


def test_gradgradcheck():
    tensors = [tensor.detach()[..., :3].requires_grad_() for tensor in leaves(1)[:2]]
    assert torch.autograd.gradcheck(lambda x, w: depthwise_conv_transpose2d(x, w, None, 2, 1, 1), tensors)
    assert torch.autograd.gradgradcheck(lambda x, w: depthwise_conv_transpose2d(x, w, None, 2, 1, 1), tensors)


def test_compiles_and_traces(fresh_compiler):
    input, weight, bias = (tensor.detach() for tensor in leaves(2))
    expected = depthwise_conv_transpose2d(input, weight, bias, 2, 1)
    compiled = torch.compile(depthwise_conv_transpose2d, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(input, weight, bias, 2, 1), expected)

    class Upsample(torch.nn.Module):
        def forward(self, x, weight):
            return depthwise_conv_transpose2d(x, weight, stride=2)

    traced = torch.fx.symbolic_trace(Upsample())
    assert depthwise_conv_transpose2d in [node.target for node in traced.graph.nodes]
    torch.testing.assert_close(traced(input, weight), Upsample()(input, weight))


@pytest.mark.parametrize("padding", [1, (2, 0), ((1, 0), (0, 2)), ((0, 3), (2, 2))], ids=str)
@pytest.mark.parametrize("batch", [(2,), ()], ids=str)
def test_a_trace_is_right_at_other_sizes(padding, batch):
    """It records no size of what it was traced with: cuts are constants, and PyTorch has the padding otherwise."""
    input, weight, bias = (tensor.detach() for tensor in leaves(2))

    def upsample(input):
        return depthwise_conv_transpose2d(input, weight, bias, 2, padding, 1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(upsample, input[:2] if batch else input[0])
    assert "aten::size" not in str(traced.graph)
    for size in ((9, 4), (5, 11)):
        other = torch.randn(*batch, 5, *size, dtype=torch.float64)
        torch.testing.assert_close(traced(other), upsample(other))


def test_a_trace_gives_the_padding_to_pytorch():
    input, weight, _ = (tensor.detach() for tensor in leaves(1))
    traced = torch.jit.trace(lambda input: depthwise_conv_transpose2d(input, weight, padding=(1, 2)), input)
    assert "aten::slice" not in str(traced.graph)


class Script(torch.nn.Module):
    """Calls of the function with every form of its options."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = (torch.nn.Parameter(tensor.detach()) for tensor in leaves(2)[1:])

    def forward(self, input: torch.Tensor) -> list[torch.Tensor]:
        return [
            depthwise_conv_transpose2d(input, self.weight, self.bias),
            depthwise_conv_transpose2d(input, self.weight, None, 2, (1, 2), 1),
            depthwise_conv_transpose2d(input, self.weight, self.bias, (3, 2), ((0, 2), (1, 0)), (2, 0)),
            depthwise_conv_transpose2d(input, self.weight, stride=[2, 2], padding="valid", dilation=2),
        ]


def test_torchscript():
    scripted, model = torch.jit.script(Script()), Script()
    model.load_state_dict(scripted.state_dict())
    for size in ((2, 5, 6, 7), (5, 3, 4)):
        input = torch.randn(size, dtype=torch.float64)
        torch.testing.assert_close(scripted(input), model(input))


def test_autocast():
    input, weight, _ = (tensor.detach() for tensor in leaves(1, torch.float32))
    with torch.autocast("cpu", torch.bfloat16):
        output = depthwise_conv_transpose2d(input, weight)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, depthwise_conv_transpose2d(input.bfloat16(), weight.bfloat16()))


@pytest.mark.parametrize("padding", [1, ((1, 0), (0, 2))])
def test_falls_back_for_what_has_no_kernel(padding):
    """Complex numbers, whose result the real kernels give by parts."""
    input, weight, _ = (tensor.detach() for tensor in leaves(2))
    options = {"stride": 2, "padding": padding, "output_padding": 1}
    output = depthwise_conv_transpose2d(torch.complex(input, -input), torch.complex(weight, 0 * weight), **options)
    real = depthwise_conv_transpose2d(input, weight, **options)
    torch.testing.assert_close(output, torch.complex(real, -real))


def test_native_calls_never_reach_atens():
    class Forbid(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert function is not F.conv_transpose2d
            return function(*args, **(kwargs or {}))

    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        with Forbid():
            depthwise_conv_transpose2d(*leaves(2, dtype), 2).sum().backward()


GOOD = {"input": (2, 4, 5, 5), "weight": (4, 2, 3, 3), "bias": (8,)}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input": (4, 5)}, r"input must be \(N, C, H, W\) or \(C, H, W\), got \(4, 5\)"),
        ({"weight": (3, 2, 3, 3)}, r"input must have 3 channels, those of weight \(3, .*, got \(2, 4, 5, 5\)"),
        ({"weight": (4, 3, 3)}, r"weight must be \(C, M, .* got \(4, 3, 3\)"),
        ({"weight": (4, 2, 0, 3)}, r"weight must be \(C, M, .* got \(4, 2, 0, 3\)"),
        ({"bias": (4,)}, r"bias must be \(8,\), one value per output channel, got \(4,\)"),
        ({"stride": 0}, "stride must be positive, got 0"),
        ({"dilation": (1, 0)}, r"dilation must be positive, got \(1, 0\)"),
        ({"padding": -1}, "padding must not be negative, got -1"),
        ({"padding": "same"}, r"padding must be an int, .* got 'same'"),
        ({"input": (2, 4, 0, 5)}, r"input must have at least one row and column, got \(2, 4, 0, 5\)"),
        ({"padding": 9}, r"the output must not be empty, got -11 x -11 for input \(2, 4, 5, 5\)"),
        (
            {"output_padding": 1},
            r"output_padding must be .* less than stride=\(1, 1\) or dilation=\(1, 1\), got \(1, 1\)",
        ),
        ({"output_padding": -1}, "output_padding must be at least 0"),
    ],
)
def test_errors(changes, message):
    arguments = GOOD | changes
    tensors = [torch.zeros(arguments.pop(name)) for name in GOOD]
    with pytest.raises(RuntimeError, match=message):
        depthwise_conv_transpose2d(*tensors, **arguments)


@pytest.mark.parametrize("option, name", [(1.5, "stride"), ("a", "output_padding")])
def test_type_errors(option, name):
    with pytest.raises(TypeError, match=f"{name} must be an int or"):
        depthwise_conv_transpose2d(torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 3, 3), **{name: option})


def test_operands_must_match():
    with pytest.raises(RuntimeError, match=r"weight must have the input's dtype torch\.float32, got torch\.float64"):
        depthwise_conv_transpose2d(torch.zeros(1, 2, 3, 3), torch.zeros(2, 1, 3, 3, dtype=torch.float64))


class OfDataSize(torch.nn.Module):
    """A transposed convolution of an input whose sizes are data."""

    def __init__(self, dim, multiplier, where):
        super().__init__()
        kind = (DepthwiseConvTranspose1d, DepthwiseConvTranspose2d)[dim - 1]
        self.layer = kind(16, 16 * multiplier, 3, stride=2, padding=1, output_padding=1)
        self.where = where

    def forward(self, sizes):
        a, b = sizes.tolist()
        size = {"height": (1, 16, a + b, 8), "width": (1, 16, 8, a), "both": (1, 16, a, b), "batch": (a, 16, 8, 8)}
        size |= {"unbatched": (16, a, b), "length": (2, 16, a + b), "length of one": (16, b)}
        return self.layer(torch.ones(size[self.where], dtype=self.layer.weight.dtype))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    "dim, where",
    [(2, "height"), (2, "width"), (2, "both"), (2, "batch"), (2, "unbatched"), (1, "length"), (1, "length of one")],
)
def test_exports_sizes_that_are_data(dim, where, strict):
    model = OfDataSize(dim, 1 if strict else 2, where)
    program = torch.export.export(model, (torch.tensor([4, 5]),), strict=strict)
    for sizes in (torch.tensor([7, 2]), torch.tensor([3, 6])):
        torch.testing.assert_close(program.module()(sizes), model(sizes))


def test_a_program_asserts_what_a_call_checks():
    """Sizes that are data are checked when they come: here the output would be empty."""

    class Cut(torch.nn.Module):
        def forward(self, sizes):
            a, _ = sizes.tolist()
            return depthwise_conv_transpose2d(torch.ones(1, 2, a, 9), torch.ones(2, 1, 3, 3), padding=3)

    program = torch.export.export(Cut(), (torch.tensor([7, 5]),))
    assert program.module()(torch.tensor([6, 0])).shape == (1, 2, 2, 5)
    with pytest.raises(RuntimeError, match="Runtime assertion failed"):
        program.module()(torch.tensor([4, 0]))


@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize(
    "options", [(2, ((0, 1), (2, 0)), 1, 1), (1, ((3, 0), (1, 2)), 0, 2), (3, ((0, 0), (1, 0)), 2, 1)]
)
def test_padding_of_each_side_in_float64(options, multiplier):
    """Values, gradients and their gradients, against a cut of the full result."""
    stride, ((top, bottom), (left, right)), output_padding, dilation = options

    def cut(input, weight, bias):
        full = theirs(input, weight, bias, stride, 0, output_padding, dilation)
        return full[:, :, top : full.shape[2] - bottom, left : full.shape[3] - right]

    def ours(input, weight, bias):
        return depthwise_conv_transpose2d(input, weight, bias, *options)

    tensors = leaves(multiplier)
    results = []
    for function in (ours, cut):
        output = function(*tensors)
        first = torch.autograd.grad(output.square().sum(), tensors, create_graph=True)
        second = torch.autograd.grad(sum(gradient.square().sum() for gradient in first), tensors)
        results.append([output, *first, *second])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_round_once_with_a_bias_too(dtype):
    input, weight = torch.ones(1, 4, 5, 5, dtype=dtype), torch.full((4, 1, 3, 3), 28.5, dtype=dtype)
    bias = torch.full((4,), -256.0, dtype=dtype)
    exact = F.conv_transpose2d(input.double(), weight.double(), bias.double(), padding=1, groups=4)
    for layout in (torch.contiguous_format, torch.channels_last):
        output = depthwise_conv_transpose2d(input.to(memory_format=layout), weight, bias, padding=1)
        assert output.dtype == dtype and output.is_contiguous(memory_format=layout)
        assert torch.equal(output, exact.to(dtype))

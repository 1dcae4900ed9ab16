"""separable_conv2d, SeparableConv2d and SeparableConv1d against the two convolutions of PyTorch, in float64."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.calls import TOLERANCE
from torch_dwconv import SeparableConv1d, SeparableConv2d, separable_conv2d

OPTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1)},
]


def tensors(multiplier=1, dtype=torch.float64, size=(2, 6, 13, 11)):
    channels, out_channels = size[1], 9
    middle = channels * multiplier
    sizes = size, (middle, 1, 3, 5), (out_channels, middle, 1, 1), (out_channels,)
    return [torch.randn(size, dtype=dtype) for size in sizes]


def two_calls(input, depthwise_weight, pointwise_weight, bias=None, **options):
    return F.conv2d(F.conv2d(input, depthwise_weight, **options, groups=input.shape[-3]), pointwise_weight, bias)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_values_and_gradients(options, multiplier, memory_format):
    leaves = [t.requires_grad_() for t in tensors(multiplier)]
    leaves[0] = leaves[0].detach().to(memory_format=memory_format).requires_grad_()
    outputs = [function(*leaves, **options) for function in (separable_conv2d, two_calls)]
    assert outputs[0].is_contiguous(memory_format=memory_format)
    gradients = [torch.autograd.grad(output.square().sum(), leaves) for output in outputs]
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("size", [(2, 6, 13, 11), (1, 40, 70, 66), (6, 11, 12)], ids=str)
def test_inference(options, dtype, memory_format, size):
    """Without gradients, where the result of the depthwise convolution need not exist as a whole."""
    batched = len(size) == 4
    input, *rest = tensors(2, dtype, size if batched else (1, *size))
    input = input.to(memory_format=memory_format) if batched else input[0]
    with torch.no_grad():
        output = separable_conv2d(input, *rest, **options)
        middle = F.conv2d(input.double(), rest[0].double(), **options, groups=input.shape[-3])
        exact = F.conv2d(middle.to(dtype).double(), *(t.double() for t in rest[1:]))
    assert output.dtype == dtype and output.shape == exact.shape
    assert not batched or output.is_contiguous(memory_format=memory_format)
    assert (output - exact).norm() <= 3 * TOLERANCE[dtype] * exact.norm()


def test_an_empty_batch():
    input, *rest = tensors(size=(0, 6, 13, 11))
    assert separable_conv2d(input, *rest).shape == (0, 9, 11, 7)


@pytest.mark.parametrize("sides", [((1, 0), (2, 3)), "same"], ids=str)
def test_every_form_of_padding(sides):
    input, *rest = tensors()
    pads = (2, 3, 1, 0) if sides != "same" else (2, 2, 1, 1)
    expected = two_calls(F.pad(input, pads), *rest)
    torch.testing.assert_close(separable_conv2d(input, *rest, padding=sides), expected)


def test_compiles_exports_and_traces(fresh_compiler):
    layer, input = SeparableConv2d(6, 9, 3, 2, "same", channel_multiplier=2).eval(), torch.randn(2, 6, 13, 11)
    expected = layer(input)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(input), expected)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(input), expected)
    torch.testing.assert_close(torch.export.export(layer, (input,)).module()(input), expected)
    traced = torch.fx.symbolic_trace(layer)
    assert separable_conv2d in [node.target for node in traced.graph.nodes]
    torch.testing.assert_close(traced(input), expected)


def test_autocast():
    input, *rest = tensors(dtype=torch.float32)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = separable_conv2d(input, *rest)
        expected = two_calls(input, *rest)
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.1)


def test_meta_tensors_and_other_dtypes():
    assert separable_conv2d(*(t.to("meta") for t in tensors(2))).shape == (2, 9, 11, 7)
    complex_tensors = [t.to(torch.complex128) for t in tensors()]
    torch.testing.assert_close(separable_conv2d(*complex_tensors), two_calls(*complex_tensors))


def test_vmap_and_forward_mode():
    input, *rest = tensors()
    stacked = torch.stack([input, -input])
    expected = torch.stack([separable_conv2d(x, *rest) for x in stacked])
    torch.testing.assert_close(torch.vmap(lambda x: separable_conv2d(x, *rest))(stacked), expected)
    with torch.no_grad():
        _, tangent = torch.func.jvp(lambda x: separable_conv2d(x, *rest[:2]), (input,), (input,))
    torch.testing.assert_close(tangent, separable_conv2d(input, *rest[:2]))


@pytest.mark.parametrize(
    "change, message",
    [
        ({1: (7, 1, 3, 5)}, r"weight must have a multiple of the input's 6 channels"),
        ({2: (9, 5, 1, 1)}, r"pointwise_weight must be \(O, 6, 1, 1\), .* got \(9, 5, 1, 1\)"),
        ({2: (9, 6, 3, 3)}, r"pointwise_weight must be \(O, 6, 1, 1\), .* got \(9, 6, 3, 3\)"),
        ({2: (9, 6)}, r"pointwise_weight must be \(O, 6, 1, 1\), .* got \(9, 6\)"),
        ({3: (6,)}, r"bias must be \(9,\), one value per output channel, got \(6,\)"),
    ],
    ids=str,
)
@pytest.mark.parametrize("grad", [True, False])
def test_errors(change, message, grad):
    arguments = tensors()
    for index, size in change.items():
        arguments[index] = torch.zeros(size, dtype=torch.float64)
    if 1 in change:
        arguments[2] = torch.zeros(9, 7, 1, 1, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=message), torch.set_grad_enabled(grad):
        separable_conv2d(*arguments)


@pytest.mark.parametrize("index, name", [(1, "weight"), (2, "pointwise_weight"), (3, "bias")])
@pytest.mark.parametrize("grad", [True, False])
def test_operands_must_have_one_dtype(index, name, grad):
    arguments = [t.requires_grad_() for t in tensors(dtype=torch.float32)]
    arguments[index] = arguments[index].double()
    with pytest.raises(RuntimeError, match=f"{name} must have the input's dtype"), torch.set_grad_enabled(grad):
        separable_conv2d(*arguments)


def layers(**options):
    """SeparableConv2d and the two nn.Conv2d that it stands for, with the same weights."""
    torch.manual_seed(0)
    layer = SeparableConv2d(6, 9, (3, 5), dtype=torch.float64, **options)
    middle = 6 * options.pop("channel_multiplier", 1)
    bias = options.pop("bias", True)
    torch.manual_seed(0)
    two = nn.Sequential(
        nn.Conv2d(6, middle, (3, 5), groups=6, bias=False, dtype=torch.float64, **options),
        nn.Conv2d(middle, 9, 1, bias=bias, dtype=torch.float64),
    )
    return layer, two


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1, "channel_multiplier": 2}, {"padding": "same", "bias": False}], ids=str
)
def test_the_layer(options):
    layer, two = layers(**options)
    state = [value.detach().clone() for value in two.parameters()]
    names = ["depthwise_weight", "pointwise_weight", "bias"][: len(state)]
    assert list(layer.state_dict()) == names
    layer.load_state_dict(dict(zip(names, state, strict=True)))
    input = torch.randn(2, 6, 13, 11, dtype=torch.float64)
    torch.testing.assert_close(layer(input), two(input))
    torch.testing.assert_close(layer(input[0]), two(input[0]))
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(input), layer(input)) and repr(twin) == repr(layer)


def test_initialisation_is_that_of_two_conv2d():
    """The same distributions; for 60,000 weights the spread is the layer's to a per cent."""
    layer = SeparableConv2d(300, 200, 3)
    depthwise, pointwise = nn.Conv2d(300, 300, 3, groups=300), nn.Conv2d(300, 200, 1)
    for ours, theirs in [
        (layer.depthwise_weight, depthwise.weight),
        (layer.pointwise_weight, pointwise.weight),
        (layer.bias, pointwise.bias),
    ]:
        assert ours.abs().max().item() == pytest.approx(theirs.abs().max().item(), rel=0.05)
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)


def test_the_layer_on_the_meta_device_and_its_repr():
    layer = SeparableConv2d(4, 6, 3, 2, ((1, 0), (1, 1)), channel_multiplier=2, bias=False, device="meta")
    assert layer(torch.empty(1, 4, 8, 8, device="meta")).shape == (1, 6, 4, 4)
    assert repr(layer) == (
        "SeparableConv2d(4, 6, kernel_size=(3, 3), stride=(2, 2), padding=((1, 0), (1, 1)), bias=False, "
        "channel_multiplier=2)"
    )


@pytest.mark.parametrize("cls", [SeparableConv2d, SeparableConv1d])
@pytest.mark.parametrize(
    "args, options, message",
    [
        ((4, 0, 3), {}, "out_channels must be positive, got 0"),
        ((0, 4, 3), {}, "in_channels must be positive, got 0"),
        ((4, 4, 3), {"channel_multiplier": 0}, "channel_multiplier must be positive, got 0"),
        ((4, 4, 3), {"padding": "full"}, "Invalid padding string 'full'"),
    ],
)
def test_the_layers_refuse(cls, args, options, message):
    with pytest.raises(ValueError, match=message):
        cls(*args, **options)


@pytest.mark.parametrize("padding", [2, (4, 0), "same"])
def test_the_layer_in_1d(padding):
    layer = SeparableConv1d(6, 9, 5, padding=padding, channel_multiplier=2, dtype=torch.float64)
    sides = (2, 2) if padding in (2, "same") else padding
    input = torch.randn(2, 6, 17, dtype=torch.float64)
    middle = F.conv1d(F.pad(input, sides), layer.depthwise_weight, groups=6)
    torch.testing.assert_close(layer(input), F.conv1d(middle, layer.pointwise_weight, layer.bias))
    torch.testing.assert_close(layer(input[0]), layer(input)[0])

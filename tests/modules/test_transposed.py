"""DepthwiseConvTranspose2d and 1d against PyTorch's layers in float64: values, gradients, strides, edits, errors."""

import copy
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode

from torch_dwconv import DepthwiseConvTranspose1d, DepthwiseConvTranspose2d, depthwise_conv_transpose2d

CLASSES = {1: (DepthwiseConvTranspose1d, nn.ConvTranspose1d), 2: (DepthwiseConvTranspose2d, nn.ConvTranspose2d)}
SIZES = {1: (11,), 2: (6, 5)}
OPTIONS = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1, "bias": False},
    {"stride": 3, "dilation": 2, "padding": 2},
    {"dilation": 3, "output_padding": 2, "padding": 3},
]
both = pytest.mark.parametrize("dim", CLASSES)


def pair_of_layers(dim, *args, dtype=torch.float64, **options):
    layers = []
    for kind, groups in zip(CLASSES[dim], (None, args[0]), strict=True):
        torch.manual_seed(0)
        layers.append(kind(*args, groups=groups, dtype=dtype, **options))
    return layers


def draw(dim, *size, dtype=torch.float64):
    return torch.randn(*size, *SIZES[dim], dtype=dtype)


def output_and_gradients(layer, input, *args):
    input = input.clone().requires_grad_()
    output = layer(input, *args)
    torch.manual_seed(1)
    grad_output = torch.randn_like(output)
    gradients = torch.autograd.grad(output, [input, *layer.parameters()], grad_output, create_graph=True)
    second = torch.autograd.grad(gradients[0].square().sum(), layer.weight)
    return [output, *gradients, *second]


@both
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("multiplier", [1, 2])
@pytest.mark.parametrize("kernel_size", [4, 1])
def test_equals_pytorchs(dim, options, multiplier, kernel_size):
    if kernel_size == 1:
        options = {**options, "padding": 0}
    ours, theirs = pair_of_layers(dim, 5, 5 * multiplier, kernel_size, **options)
    assert repr(ours) == "Depthwise" + repr(theirs)
    for batch in [(3,), ()]:
        input = draw(dim, *batch, 5)
        actual, expected = (output_and_gradients(layer, input) for layer in (ours, theirs))
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        assert actual[0].stride() == expected[0].stride()


@both
def test_is_pytorchs_layer(dim):
    """All that an instance holds is what PyTorch's holds: convert may change the class of a layer, and back."""
    ours, theirs = pair_of_layers(dim, 4, 8, 3, 2)
    assert isinstance(ours, CLASSES[dim][1]) and vars(ours).keys() == vars(theirs).keys()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()), rtol=0, atol=0)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(ours)))
    input = draw(dim, 1, 4)
    expected = theirs(input)
    theirs.__class__ = CLASSES[dim][0]
    for layer in (twin, theirs):
        torch.testing.assert_close(layer(input), expected)
        assert type(layer) is CLASSES[dim][0]


def test_positional_arguments_are_pytorchs():
    args = (4, 8, (3, 2), (2, 1), 1, (1, 0), 4, False, (1, 2), "zeros", "cpu", torch.float64)
    ours, theirs = DepthwiseConvTranspose2d(*args), nn.ConvTranspose2d(*args)
    assert repr(ours) == "Depthwise" + repr(theirs) and ours.weight.dtype == torch.float64
    args = (4, 8, 3, 2, 1, 1, 4, False, 1, "zeros", "cpu", torch.float64)
    assert repr(DepthwiseConvTranspose1d(*args)) == "Depthwise" + repr(nn.ConvTranspose1d(*args))


@both
def test_computes_by_its_own_operator(dim):
    class Forbid(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            assert function not in (F.conv_transpose1d, F.conv_transpose2d)
            return function(*args, **(kwargs or {}))

    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        ours, _ = pair_of_layers(dim, 4, 8, 3, dtype=dtype)
        with Forbid():
            ours(draw(dim, 2, 4, dtype=dtype)).sum().backward()


@pytest.mark.parametrize("format", ["contiguous", "channels_last", "weight", "transposed"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_strides_2d(format, multiplier):
    ours, theirs = pair_of_layers(2, 4, 4 * multiplier, 3, 2)
    input = draw(2, 2, 4)
    if format == "weight":
        ours, theirs = (layer.to(memory_format=torch.channels_last) for layer in (ours, theirs))
    elif format == "channels_last":
        input = input.to(memory_format=torch.channels_last)
    elif format == "transposed":
        input = input.transpose(2, 3)
    assert ours(input).stride() == theirs(input).stride()


@pytest.mark.parametrize("multiplier", [1, 2])
def test_strides_1d(multiplier):
    """nn.ConvTranspose1d's result is contiguous, whatever comes: sequence models view it."""
    ours, theirs = pair_of_layers(1, 8, 8 * multiplier, 3, 2)
    for input in (torch.randn(2, 50, 8).transpose(1, 2), torch.randn(50, 8).t(), torch.randn(2, 8, 1)):
        input = input.double()
        for layer in (ours, theirs):
            layer.zero_grad()
        outputs = [layer(input) for layer in (ours, theirs)]
        assert outputs[0].stride() == outputs[1].stride() and outputs[0].is_contiguous()
        torch.testing.assert_close(*outputs)


@both
def test_output_size(dim):
    ours, theirs = pair_of_layers(dim, 4, 4, 3, 3, 1)
    input = draw(dim, 2, 4)
    smallest = ours(input).shape[2:]
    for extra in range(3):
        size = [length + extra for length in smallest]
        for form in (size, [2, 4, *size], torch.Size(size)):
            assert list(ours(input, form).shape[2:]) == size
            torch.testing.assert_close(ours(input, output_size=form), theirs(input, output_size=form))
    for layer in (ours, theirs):
        with pytest.raises(ValueError, match="requested an output size of"):
            layer(input, [length + 3 for length in smallest])


def entrances(layer, input):
    """Every way to call a layer, by name."""
    parameters = dict(layer.named_parameters())
    return {
        "eager": lambda: layer(input),
        "no_grad": lambda: torch.no_grad()(layer)(input),
        "functional_call": lambda: torch.func.functional_call(layer, parameters, (input,)),
        "vmap": lambda: torch.func.vmap(layer)(input[None]),
        "compile": lambda: torch.compile(layer, backend="aot_eager", fullgraph=True)(input),
        "export": lambda: torch.export.export(layer, (input,)),
        "strict": lambda: torch.export.export(layer, (input,), strict=True),
        "trace": lambda: torch.jit.trace(layer, (input,)),
        "script": lambda: torch.jit.script(layer)(input),
        "fx": lambda: torch.fx.symbolic_trace(layer)(input),
        "deepcopy": lambda: copy.deepcopy(layer)(input),
    }


@both
@pytest.mark.parametrize("entrance", entrances(nn.Identity(), torch.zeros(1)))
def test_every_entrance_computes_and_refuses(dim, entrance, fresh_compiler):
    ours, theirs = pair_of_layers(dim, 8, 16, 3, stride=2, padding=1)
    input = draw(dim, 2, 8)
    result = entrances(ours, input)[entrance]()
    if isinstance(result, torch.export.ExportedProgram):
        result = result.module()(input)
    elif isinstance(result, nn.Module):
        result = result(input)
    torch.testing.assert_close(result.view(theirs(input).shape), theirs(input))
    for channels in (1, 2, 4, 16, 7):
        wrong = draw(dim, 2, channels)
        with pytest.raises(Exception, match=r"8 channels|[Oo]bserved exception"):
            entrances(ours, wrong)[entrance]()


@both
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.complex128]
)
@pytest.mark.parametrize("batch", [(2,), ()], ids=str)
def test_refuses_channels_that_are_not_its_own(dim, dtype, batch):
    ours, _ = pair_of_layers(dim, 8, 8, 3, dtype=dtype)
    with pytest.raises(RuntimeError, match=r"input.* 8 channels, .*got .*4"):
        ours(draw(dim, *batch, 4, dtype=dtype))


@both
def test_refuses_other_dimensions_and_dtypes(dim):
    ours, _ = pair_of_layers(dim, 8, 8, 3)
    names = {1: r"\(N, C, L\) or \(C, L\)", 2: r"\(N, C, H, W\) or \(C, H, W\)"}[dim]
    for shape in [(8,), (1, 2, 8, *SIZES[dim])]:
        with pytest.raises(RuntimeError, match=f"input must be {names}, got"):
            ours(torch.zeros(shape, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="weight must have the input's dtype"):
        ours(draw(dim, 2, 8, dtype=torch.float32))


@both
@pytest.mark.parametrize(
    "args, options, message",
    [
        ((4, 4, 3), {"groups": 2}, "groups must be None or in_channels=4, got 2"),
        ((4, 4, 3), {"groups": 1}, "groups must be None or in_channels=4, got 1"),
        ((4, 6, 3), {}, "out_channels must be a positive multiple of in_channels=4, got 6"),
        ((0, 4, 3), {}, "in_channels must be positive, got 0"),
        ((4, 4, 3), {"padding_mode": "reflect"}, 'Only "zeros" padding mode is supported for DepthwiseConvTranspose'),
    ],
)
def test_constructor_refuses(dim, args, options, message):
    with pytest.raises(ValueError, match=message):
        CLASSES[dim][0](*args, **options)


def edit(layer, **attributes):
    for name, value in attributes.items():
        setattr(layer, name, value)


EDITS = [
    {"stride": 2},
    {"stride": 2, "output_padding": 1},
    {"dilation": 2},
    {"stride": (3,), "output_padding": (2,)},
    {"output_padding": 1},
    {"output_padding": -1},
    {"output_padding": (0, 0, 0)},
    {"padding": 1},
    {"padding": "same"},
    {"padding": (1,)},
    {"padding_mode": "reflect"},
    {"groups": 4},
    {"groups": 1},
    {"bias": None},
    {"bias": nn.Parameter(torch.zeros(3, dtype=torch.float64))},
    {"in_channels": 3},
    {"kernel_size": (7, 7)},
]


@both
@pytest.mark.parametrize("attributes", EDITS, ids=str)
def test_an_edited_layer_is_what_pytorchs_would_be(dim, attributes):
    ours, theirs = pair_of_layers(dim, 8, 16, 3)
    results = []
    for layer in (ours, theirs):
        edit(layer, **attributes)
        try:
            results.append(layer(draw(dim, 2, 8).fill_(1)))
        except Exception as error:
            results.append(type(error))
    if isinstance(results[1], torch.Tensor):
        torch.testing.assert_close(*results)
    else:
        assert results[0] is results[1]


@both
@pytest.mark.parametrize("rows, groups, channels", [(16, 8, 16), (8, 4, 8), (3, 3, 3)])
def test_a_replaced_weight(dim, rows, groups, channels):
    """What is not depthwise any more is PyTorch's to compute; another number of channels stays ours."""
    weight = nn.Parameter(torch.randn(rows, 2, *(3,) * dim, dtype=torch.float64))
    ours, theirs = pair_of_layers(dim, 8, 8, 3, bias=False)
    input = draw(dim, 2, channels)
    for layer in (ours, theirs):
        edit(layer, weight=weight, groups=groups)
    expected = theirs(input)
    torch.testing.assert_close(ours(input), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(nn.Sequential(ours))(input), expected)


@both
def test_a_parametrised_weight(dim):
    ours, theirs = pair_of_layers(dim, 4, 4, 3)
    ours, theirs = (parametrizations.weight_norm(layer) for layer in (ours, theirs))
    input = draw(dim, 2, 4)
    torch.testing.assert_close(ours(input), theirs(input))


@both
def test_torchscript(dim, tmp_path):
    ours, theirs = pair_of_layers(dim, 4, 8, 3, stride=2, padding=1, output_padding=1)
    scripted = torch.jit.script(ours)
    scripted.save(str(tmp_path / "layer.pt"))
    loaded = torch.jit.load(str(tmp_path / "layer.pt"))
    input = draw(dim, 2, 4)
    torch.testing.assert_close(loaded(input), theirs(input))
    size = list(theirs(input).shape[2:])
    torch.testing.assert_close(loaded(input, size), theirs(input, size))


@both
def test_a_trace_is_right_at_other_sizes(dim):
    ours, _ = pair_of_layers(dim, 4, 8, 4, stride=3, padding=1, output_padding=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(ours, (draw(dim, 2, 4),))
    for size in ((5, 4, 8, 7)[: dim + 2], (1, 4, 3, 12)[: dim + 2]):
        input = torch.randn(size, dtype=torch.float64)
        torch.testing.assert_close(traced(input), ours(input))


@both
def test_symbolic_trace(dim):
    ours, _ = pair_of_layers(dim, 4, 8, 3, stride=2)
    traced = torch.fx.symbolic_trace(nn.Sequential(ours))
    if "call_module" not in {node.op for node in traced.graph.nodes}:
        assert depthwise_conv_transpose2d in [node.target for node in traced.graph.nodes]
    input = draw(dim, 2, 4)
    torch.testing.assert_close(traced(input), ours(input))


@both
def test_symbolic_trace_with_an_output_size(dim):
    class Decoder(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, input, like):
            return self.layer(input, like.shape[2:])

    ours, theirs = pair_of_layers(dim, 4, 8, 3, stride=3)
    input = draw(dim, 2, 4)
    expected = theirs(input)
    traced = torch.fx.symbolic_trace(Decoder(ours))
    for extra in range(3):
        like = F.pad(expected, (0, extra) * dim)
        torch.testing.assert_close(traced(input, like), theirs(input, like.shape[2:]))


@both
@pytest.mark.parametrize("dtype", [torch.complex128, torch.int64])
def test_other_dtypes_are_pytorchs(dim, dtype):
    ours, theirs = pair_of_layers(dim, 4, 8, 3, stride=2, padding=1)
    for layer in (ours, theirs):
        for parameter in layer.parameters():
            parameter.requires_grad_(False)
            parameter.data = (parameter.data * 9).to(dtype)
    input = (9 * draw(dim, 2, 4)).to(dtype)
    torch.testing.assert_close(ours(input), theirs(input))


@both
def test_meta_device_and_autocast(dim):
    ours, theirs = pair_of_layers(dim, 4, 8, 3, dtype=torch.float32)
    input = draw(dim, 2, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = [layer(input) for layer in (ours, theirs)]
    assert outputs[0].dtype == outputs[1].dtype == torch.bfloat16
    torch.testing.assert_close(*outputs, rtol=0.02, atol=0.01)
    assert ours.to("meta")(input.to("meta")).shape == theirs(input).shape

"""DepthwiseConv2d against nn.Conv2d(groups=in_channels) in float64, and the two things only it can do."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from torch_dwconv import DepthwiseConv2d

PADDING_MODES = ["zeros", "reflect", "replicate", "circular"]


def pair_of_layers(*args, dtype=torch.float64, **kwargs) -> tuple[DepthwiseConv2d, nn.Conv2d]:
    """The same arguments and the same seed for both classes, so that equal weights mean equal initialisation."""
    torch.manual_seed(0)
    ours = DepthwiseConv2d(*args, dtype=dtype, **kwargs)
    torch.manual_seed(0)
    theirs = nn.Conv2d(*args, groups=args[0], dtype=dtype, **kwargs)
    return ours, theirs


def output_and_gradients(layer, input):
    input = input.detach().clone().requires_grad_()
    output = layer(input)
    torch.manual_seed(1)
    gradients = torch.autograd.grad(output, [input, *layer.parameters()], torch.randn_like(output))
    return [output, *gradients]


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    "out_channels, kernel_size, options",
    [
        (6, 3, {}),
        (6, 3, {"padding": 1}),
        (6, 3, {"padding": 1, "stride": 2, "bias": False}),
        (12, (3, 2), {"padding": (2, 1), "stride": (1, 2)}),
        (6, (1, 5), {"padding": (0, 2), "dilation": (1, 2)}),
        (18, (4, 3), {"padding": "same", "dilation": (1, 2)}),
        (6, 5, {"padding": "valid", "stride": 3}),
    ],
)
def test_equals_conv2d(out_channels, kernel_size, options, padding_mode):
    ours, theirs = pair_of_layers(6, out_channels, kernel_size, padding_mode=padding_mode, **options)
    for shape in [(2, 6, 11, 9), (6, 11, 9)]:
        input = torch.randn(shape, dtype=torch.float64)
        torch.testing.assert_close(
            output_and_gradients(ours, input), output_and_gradients(theirs, input), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 2, "stride": (2, 1), "dilation": 3},
        {"padding": "same", "bias": False, "padding_mode": "reflect"},
    ],
)
def test_is_a_conv2d_with_the_same_attributes_initialisation_and_repr(options):
    ours, theirs = pair_of_layers(4, 8, (3, 2), **options)
    assert isinstance(ours, nn.Conv2d)
    assert {k: v for k, v in vars(ours).items() if k != "_parameters"} == {
        k: v for k, v in vars(theirs).items() if k != "_parameters"
    }
    assert repr(ours) == "Depthwise" + repr(theirs)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value)


def test_positional_arguments_come_in_the_order_of_conv2d():
    args = (4, 8, 3, 2, 1, 2, 4, False, "circular", "cpu", torch.float64)
    ours, theirs = DepthwiseConv2d(*args), nn.Conv2d(*args)
    assert repr(ours) == "Depthwise" + repr(theirs)
    assert ours.weight.dtype == torch.float64


@pytest.mark.parametrize("bias", [True, False])
def test_state_dict_loads_in_both_directions(bias):
    ours, theirs = pair_of_layers(4, 4, 3, bias=bias)
    input = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        ours.weight.mul_(2)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(theirs(input), ours(input))
    with torch.no_grad():
        theirs.weight.mul_(3)
    ours.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(theirs(input), ours(input))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("stride", [1, 2])
def test_each_side_has_its_own_padding(padding_mode, stride):
    layer = DepthwiseConv2d(3, 6, 3, stride, ((2, 0), (1, 3)), padding_mode=padding_mode, dtype=torch.float64)
    input = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    mode = "constant" if padding_mode == "zeros" else padding_mode
    expected = F.conv2d(F.pad(input, (1, 3, 2, 0), mode=mode), layer.weight, layer.bias, stride, groups=3)
    torch.testing.assert_close(layer(input), expected)
    assert "padding=((2, 0), (1, 3))" in repr(layer)


def test_padding_with_equal_opposite_sides_is_written_as_conv2d_writes_it():
    assert DepthwiseConv2d(3, 3, 3, padding=((1, 1), [2, 2])).padding == (1, 2)
    assert DepthwiseConv2d(3, 3, 3, padding=[[1, 0], [2, 2]]).padding == ((1, 0), (2, 2))


# (top, bottom) by TensorFlow's formula, worked out by hand: total = max((ceil(H/s) - 1)*s + (k-1)*d + 1 - H, 0).
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize(
    "size, kernel, stride, dilation, pads, out",
    [
        (15, 3, 2, 1, (1, 1), 8),
        (16, 3, 2, 1, (0, 1), 8),
        (16, 5, 2, 1, (1, 2), 8),
        (10, 3, 3, 2, (2, 2), 4),
        (9, 2, 3, 1, (0, 0), 3),
    ],
)
def test_same_padding_with_a_stride_is_tensorflows(size, kernel, stride, dilation, pads, out, padding_mode):
    layer = DepthwiseConv2d(2, 4, kernel, stride, "same", dilation, padding_mode=padding_mode, dtype=torch.float64)
    mode = "constant" if padding_mode == "zeros" else padding_mode
    for shape in [(2, 2, size, size), (2, size, size)]:
        input = torch.randn(shape, dtype=torch.float64)
        expected = F.conv2d(
            F.pad(input, (*pads, *pads), mode=mode), layer.weight, layer.bias, stride, 0, dilation, groups=2
        )
        assert expected.shape[-1] == out
        torch.testing.assert_close(layer(input), expected)
    assert "padding=same" in repr(layer)


@pytest.mark.parametrize(
    "args, options, message",
    [
        ((4, 4, 3), {"groups": 2}, r"groups must be None or in_channels=4, got 2"),
        ((4, 4, 3), {"groups": 1}, r"groups must be None or in_channels=4, got 1"),
        ((4, 6, 3), {}, r"out_channels must be a positive multiple of in_channels=4, got 6"),
        ((4, 2, 3), {}, r"out_channels must be a positive multiple of in_channels=4, got 2"),
        ((4, 0, 3), {}, r"out_channels must be a positive multiple of in_channels=4, got 0"),
        ((0, 4, 3), {}, r"in_channels must be positive, got 0"),
        ((4, 4, 3), {"padding": ((1, 1), (1, 1), (1, 1))}, r"padding must be .*'same', got \(\(1, 1\), \(1, 1\)"),
        ((4, 4, 3), {"padding": ((1, 1), 2)}, r"padding must be .*'same', got \(\(1, 1\), 2\)"),
        ((4, 4, 3), {"padding": "full"}, r"Invalid padding string 'full'"),
        ((4, 4, 3), {"padding_mode": "mirror"}, r"padding_mode must be one of .*'mirror'"),
    ],
)
def test_constructor_refuses(args, options, message):
    with pytest.raises(ValueError, match=message):
        DepthwiseConv2d(*args, **options)


LAYERS = {
    "plain": lambda: DepthwiseConv2d(3, 6, 3, padding=1),
    "sides": lambda: DepthwiseConv2d(3, 6, 3, padding=((1, 0), (2, 1))),
    "same_stride": lambda: DepthwiseConv2d(3, 6, 3, stride=2, padding="same", padding_mode="reflect"),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save"])
def test_copies_are_equal_and_independent(make, copied):
    layer = make().eval()
    if copied == "deepcopy":
        twin = copy.deepcopy(layer)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    input = torch.randn(2, 3, 9, 9)
    expected = layer(input)
    assert type(twin) is DepthwiseConv2d and not twin.training and repr(twin) == repr(layer)
    assert torch.equal(twin(input), expected)
    with torch.no_grad():
        twin.weight.zero_()
    assert torch.equal(layer(input), expected)


def test_state_dict_survives_a_weights_only_checkpoint():
    layer, file = LAYERS["sides"](), io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    twin = LAYERS["sides"]()
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(twin.weight, layer.weight) and torch.equal(twin.bias, layer.bias)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_meta_device_then_materialised(make):
    with torch.device("meta"):
        layer = make()
    assert layer.weight.is_meta
    shape = layer(torch.empty(2, 3, 9, 9, device="meta")).shape
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    output = layer(torch.ones(2, 3, 9, 9))
    assert output.shape == shape and output.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_dtype_and_memory_format_moves(dtype, channels_last):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    ours, theirs = pair_of_layers(8, 8, 3, padding=1, dtype=torch.float32)
    ours = ours.to(dtype).to(memory_format=memory_format)
    assert ours.weight.dtype == dtype and ours.weight.is_contiguous(memory_format=memory_format)
    input = torch.randn(2, 8, 6, 6).to(dtype).to(memory_format=memory_format)
    output = ours(input)
    assert output.dtype == dtype and output.is_contiguous(memory_format=memory_format)
    expected = theirs.to(dtype).double()(input.double())
    # One rounding of the result, and float32 accumulation before it.
    torch.testing.assert_close(output.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_factory_arguments():
    layer = DepthwiseConv2d(2, 2, 3, device="meta", dtype=torch.bfloat16)
    assert layer.weight.is_meta and layer.bias.dtype == torch.bfloat16


def test_conv_forward_is_the_extension_point():
    """Quantisation-aware training overrides forward and hands `_conv_forward` a weight of its own."""

    class QuantisedWeight(DepthwiseConv2d):
        def forward(self, input):
            return self._conv_forward(input, self.weight.round(), self.bias)

    layer = QuantisedWeight(3, 3, 3, padding=1)
    with torch.no_grad():
        layer.weight.uniform_(-3, 3)
    input = torch.randn(1, 3, 5, 5)
    expected = F.conv2d(input, layer.weight.round(), layer.bias, padding=1, groups=3)
    torch.testing.assert_close(layer(input), expected)


class _AtenConvolutionRaises(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "conv" not in func.name() or not func.name().startswith("aten::"), f"{func} was called"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_runs_on_our_kernels(make):
    input = torch.randn(2, 3, 9, 9, requires_grad=True)
    with pytest.raises(AssertionError, match="convolution"), _AtenConvolutionRaises():  # the mode does catch it
        nn.Conv2d(3, 6, 3)(input)
    with _AtenConvolutionRaises():
        make()(input).sum().backward()
    assert input.grad is not None


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("make", [LAYERS["plain"], LAYERS["sides"]], ids=["plain", "sides"])
def test_torch_jit_trace(make):
    layer = make().eval()
    traced = torch.jit.trace(layer, torch.randn(2, 3, 9, 9))
    input = torch.randn(3, 3, 9, 9)
    torch.testing.assert_close(traced(input), layer(input))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_torch_compile(make):
    layer = make()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    input = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(output_and_gradients(compiled, input), output_and_gradients(layer, input))

"""Subclasses whose own forward only pads: TensorFlow's SAME and causal padding, found by what they do."""

import copy
import functools
import math
import pickle
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, convert, revert

from .test_convert import conversion_report


class Dynamic(nn.Conv2d):
    """As efficientnet_pytorch and segmentation_models_pytorch have it."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.stride = list(self.stride)

    def forward(self, x):
        height, width = x.size()[-2:]
        kernel_h, kernel_w = self.weight.size()[-2:]
        stride_h, stride_w = self.stride
        out_h, out_w = math.ceil(height / stride_h), math.ceil(width / stride_w)
        pad_h = max((out_h - 1) * self.stride[0] + (kernel_h - 1) * self.dilation[0] + 1 - height, 0)
        pad_w = max((out_w - 1) * self.stride[1] + (kernel_w - 1) * self.dilation[1] + 1 - width, 0)
        if pad_h > 0 or pad_w > 0:
            x = F.pad(x, [pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2])
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Static(nn.Conv2d):
    """SAME for images of 30 x 30, in a child."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        pads = []
        for kernel, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True):
            total = max((math.ceil(30 / stride) - 1) * stride + (kernel - 1) * dilation + 1 - 30, 0)
            pads = [total // 2, total - total // 2, *pads]
        self.static_padding = nn.ZeroPad2d(pads) if any(pads) else nn.Identity()

    def forward(self, x):
        x = self.static_padding(x)
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


def same_pads(size, kernel, stride, dilation=1):
    total = max(-(-size // stride) * stride - stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


class Helpers(nn.Conv2d):
    """SAME by a function of the module, a static method, a property and PyTorch's own forward."""

    @staticmethod
    def pads(size, kernel, stride, dilation):
        return same_pads(size, kernel, stride, dilation=dilation)

    @property
    def axes(self):
        return zip(self.kernel_size, self.stride, self.dilation, strict=True)

    def forward(self, x):
        pads = []
        for size, axis in zip(x.shape[-2:], self.axes, strict=True):
            pads = [*self.pads(size, *axis), *pads]
        return super().forward(nn.functional.pad(x, pads, value=0.0))


class OddOnly(nn.Conv2d):
    """SAME that pads the odd row and column first and leaves the rest to the convolution."""

    def forward(self, x):
        total_h = sum(same_pads(x.size(2), self.kernel_size[0], self.stride[0], self.dilation[0]))
        total_w = sum(same_pads(x.size(3), self.kernel_size[1], self.stride[1], self.dilation[1]))
        x = F.pad(x, [0, int(total_w % 2 != 0), 0, int(total_h % 2 != 0)])
        return F.conv2d(
            x, self.weight, self.bias, self.stride, (total_h // 2, total_w // 2), self.dilation, groups=self.groups
        )


class OwnWord(OddOnly):
    """Its `padding` is a word that nn.Conv2d does not know."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.padding = "SAME"


class ConvForward(nn.Conv2d):
    """As Perceiver's: padding in a child, and the convolution by PyTorch's method."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.zero_pad_2d = nn.ZeroPad2d((1, 2, 0, 3))

    def forward(self, input):
        return self._conv_forward(self.zero_pad_2d(input), self.weight, self.bias)


class Reflected(nn.Conv2d):
    def forward(self, x):
        return super().forward(x)


class Overridden(nn.Conv2d):
    def _conv_forward(self, input, weight, bias):
        return super()._conv_forward(F.pad(input, (2, 1, 0, 0)), weight, bias)


GRID = [
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": (5, 3), "stride": (2, 3)},
    {"kernel_size": 4, "dilation": 2},
    {"kernel_size": 3, "dilation": (1, 3), "stride": 2},
    {"kernel_size": 1, "stride": 3},
    {"kernel_size": 2, "stride": 3, "bias": False},
    {"kernel_size": 7},
]


@pytest.mark.parametrize("cls", [Dynamic, Static, Helpers, OddOnly, OwnWord, ConvForward, Reflected, Overridden])
@pytest.mark.parametrize("options", GRID, ids=str)
def test_two_dimensions(cls, options, run):
    model = nn.Sequential(cls(3, 6, groups=3, **options).double())
    layer, before, keys = model[0], copy.deepcopy(vars(model[0])), list(model.state_dict())
    plain = copy.deepcopy(model)
    report = conversion_report(model)
    assert report.swapped == ["0"] and report.left == {}
    assert isinstance(layer, DepthwiseConv2d) and isinstance(layer, cls) and list(model.state_dict()) == keys
    for size in [(30, 30), (31, 17), (23, 40)]:
        image = torch.randn(2, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(run(model, image), run(plain, image), rtol=1e-12, atol=1e-12)
    twin = pickle.loads(pickle.dumps(layer))
    assert type(twin) is type(layer) and type(type(layer)(3, 3, 3)) is cls
    for reverted in (twin, layer):
        revert(reverted)
        assert type(reverted) is cls and vars(reverted).keys() == before.keys()
        assert all(vars(reverted)[name] == before[name] for name in ("padding", "stride", "dilation"))


def test_the_padding_says_what_the_class_did():
    assert convert(Dynamic(4, 4, 3, 2, groups=4)).padding == "same"
    assert convert(Dynamic(4, 4, 1, groups=4)).padding == (0, 0)
    assert convert(Static(4, 4, 3, 2, groups=4)).padding == ((0, 1), (0, 1))
    assert convert(ConvForward(4, 4, 3, groups=4, padding=(1, 0))).padding == ((1, 4), (1, 2))
    assert convert(Overridden(4, 4, 3, groups=4, padding=1)).padding == ((1, 1), (3, 2))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [0, 2, (1, 3), "same"])
def test_padding_modes(mode, padding, image, run):
    model = nn.Sequential(Reflected(3, 3, (3, 4), padding=padding, padding_mode=mode, groups=3).double())
    expected = run(copy.deepcopy(model), image)
    assert conversion_report(model).swapped == ["0"]
    torch.testing.assert_close(run(model, image), expected, rtol=1e-12, atol=1e-12)


def test_padding_edited_in_another_padding_mode(image, run):
    """nn.Conv2d goes on to pad by what `padding` was when the layer was made."""
    model = nn.Sequential(Reflected(3, 3, 3, padding=2, padding_mode="reflect", groups=3).double())
    model[0].padding = (1, 1)
    expected = run(copy.deepcopy(model), image)
    assert conversion_report(model).swapped == ["0"]
    torch.testing.assert_close(run(model, image), expected, rtol=1e-12, atol=1e-12)
    assert revert(model)[0].padding == (1, 1)


class ReflectSame(nn.Conv2d):
    def forward(self, x):
        pads = [
            *same_pads(x.size(3), self.kernel_size[1], self.stride[1]),
            *same_pads(x.size(2), self.kernel_size[0], self.stride[0]),
        ]
        return F.conv2d(F.pad(x, pads, self.padding_mode), self.weight, self.bias, self.stride, groups=self.groups)


@pytest.mark.parametrize("stride", [1, 2])
def test_same_in_another_padding_mode(stride, run):
    model = nn.Sequential(ReflectSame(3, 3, 4, stride, padding_mode="reflect", groups=3).double())
    plain = copy.deepcopy(model)
    assert conversion_report(model).swapped == ["0"]
    for size in [(8, 9), (11, 6)]:
        image = torch.randn(1, 3, *size, dtype=torch.float64)
        torch.testing.assert_close(run(model, image), run(plain, image), rtol=1e-12, atol=1e-12)


class Causal(nn.Conv1d):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.left_pad = (self.kernel_size[0] - 1) * self.dilation[0]

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (self.left_pad, 0)))


class CachedCausal(nn.Conv1d):
    @functools.cached_property
    def left_pad(self):
        return (self.kernel_size[0] - 1) * self.dilation[0] + 1 - self.stride[0]

    def forward(self, x):
        x = F.pad(x, (self.left_pad, 0))
        return super().forward(x)


class Chomped(nn.Conv1d):
    def __init__(self, channels, out_channels, kernel_size, dilation=1, **options):
        self.__padding = (kernel_size - 1) * dilation
        super().__init__(channels, out_channels, kernel_size, padding=self.__padding, dilation=dilation, **options)

    def forward(self, x):
        result = super().forward(x)
        if self.__padding != 0:
            return result[:, :, : -self.__padding]
        return result


class ScalarSame(nn.Conv1d):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.stride = self.stride[0]

    def forward(self, x):
        length = int(x.size()[-1])
        pad = max((math.ceil(length / self.stride) - 1) * self.stride + self.kernel_size[0] - length, 0)
        if pad > 0:
            x = F.pad(x, [pad // 2, pad - pad // 2])
        return F.conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@pytest.mark.parametrize(
    "make, padding",
    [
        (lambda: Causal(3, 3, 4, groups=3, dilation=2), (6, 0)),
        (lambda: CachedCausal(3, 3, 5, 2, groups=3), (3, 0)),
        (lambda: Chomped(3, 6, 4, groups=3, dilation=3), (9, 0)),
        (lambda: Chomped(3, 3, 1, groups=3), (0,)),
        (lambda: ScalarSame(3, 3, 4, 3, groups=3), "same"),
    ],
)
def test_one_dimension(make, padding, run):
    model = nn.Sequential(make().double())
    plain, cls, stride = copy.deepcopy(model), type(model[0]), model[0].stride
    assert conversion_report(model).swapped == ["0"]
    assert isinstance(model[0], DepthwiseConv1d) and model[0].padding == padding
    for length in (30, 31, 7):
        input = torch.randn(2, 3, length, dtype=torch.float64)
        torch.testing.assert_close(run(model, input), run(plain, input), rtol=1e-12, atol=1e-12)
    revert(model)
    assert type(model[0]) is cls and model[0].stride == stride
    torch.testing.assert_close(run(model, input), run(plain, input), rtol=0, atol=0)


def test_no_hook_and_no_layer_is_run(monkeypatch):
    calls = []
    layer = Static(4, 4, 3, 2, groups=4)
    layer.register_forward_hook(lambda *arguments: calls.append("layer"))
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *arguments: calls.append("global"))
    monkeypatch.setattr(torch, "conv2d", lambda *arguments: calls.append("conv2d"))
    try:
        assert isinstance(convert(layer), DepthwiseConv2d) and calls == []
    finally:
        handle.remove()


def test_a_deep_model_converts_in_no_time():
    model = nn.Sequential(*(Dynamic(4, 4, k, s, groups=4) for k in (3, 5, 7) for s in (1, 2) for _ in range(50)))
    start = time.process_time()
    assert len(conversion_report(model).swapped) == 300
    assert time.process_time() - start < 2  # a tenth of it on an idle machine


def test_layers_of_other_geometry_are_looked_at_by_themselves():
    model = nn.Sequential(Static(4, 4, 3, 2, groups=4), Static(4, 4, 5, 2, groups=4), Static(4, 4, 3, 2, groups=4))
    model[2].static_padding = nn.ZeroPad2d((3, 0, 3, 0))
    convert(model)
    assert [layer.padding for layer in model] == [((0, 1), (0, 1)), ((1, 2), (1, 2)), ((3, 0), (3, 0))]


def test_a_forward_wrapped_on_the_instance_stays():
    for layer in (Dynamic(4, 4, 3, groups=4), convert(Dynamic(4, 4, 3, groups=4))):
        layer.forward = functools.partial(layer.forward)
        cls = type(layer)
        convert(layer), revert(layer)
        assert type(layer) is cls


def test_a_stride_given_after_conversion_survives_revert(image):
    layer = convert(Dynamic(3, 3, 3, groups=3).double())
    layer.stride = (2, 2)
    expected = layer(image)
    assert type(revert(layer)) is Dynamic and layer.stride == (2, 2)
    torch.testing.assert_close(layer(image), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("make", [lambda: Dynamic(3, 3, 3, 2, groups=3), lambda: Static(3, 3, 4, 2, groups=3)])
def test_scripts_and_compiles(make, image):
    layer = make().double()
    expected = layer(image)
    convert(layer)
    torch.testing.assert_close(torch.jit.script(layer)(image), expected)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(image), expected)
    smaller = image[..., 1:, 1:]
    torch.testing.assert_close(torch.jit.script(layer)(smaller), make_plain(layer)(smaller))


def make_plain(layer):
    return revert(copy.deepcopy(layer))

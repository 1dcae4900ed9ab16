"""fuse: what is folded, and that the outputs stay equal."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv1d, DepthwiseConv2d, convert, fuse
from torch_dwconv.operators.schemas import ACTIVATION_CODES, FORWARD

from .fusing import OutOfOrder, calls, depthwise, fused_and_report, kernel, randomised

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def image():
    return torch.randn(2, 4, 9, 8, dtype=torch.float64)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


ACTIVATIONS = {
    "relu": [nn.ReLU(), nn.ReLU(inplace=True), Call(torch.relu), Call(lambda x: x.clamp(min=0))],
    "relu6": [
        nn.ReLU6(inplace=True),
        Call(F.relu6),
        Call(lambda x: F.hardtanh(x, 0, 6)),
        Call(lambda x: x.clamp_(0, 6)),
    ],
    "hardswish": [nn.Hardswish(), nn.Hardswish(inplace=True), Call(lambda x: x * F.hardsigmoid(x))],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True), Call(F.silu), Call(lambda x: x.sigmoid() * x)],
    "gelu": [nn.GELU(), Call(F.gelu)],
    "gelu_tanh": [nn.GELU("tanh"), Call(lambda x: F.gelu(x, approximate="tanh"))],
}


@pytest.mark.parametrize(
    "name, activation", [(name, each) for name, modules in ACTIVATIONS.items() for each in modules], ids=str
)
def test_folds_batch_norm_and_activation(name, activation, image):
    fused, report = fused_and_report(randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), activation)), image)
    assert report.converted == ["0"] and report.fused == {"0": f"BatchNorm2d, {name}"} and report.left == {}
    assert calls(fused) == ["torch_dwconv.forward"] and f", {ACTIVATION_CODES[name]})" in fused.code


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_either_alone(bias, affine, image):
    model = randomised(nn.Sequential(depthwise(bias=bias), nn.SiLU()))
    _, report = fused_and_report(model, image)
    assert report.fused == {"0": "silu"} and report.left == {}
    model = randomised(nn.Sequential(depthwise(bias=bias), nn.BatchNorm2d(8, affine=affine)))
    _, report = fused_and_report(model, image)
    assert report.fused == {"0": "BatchNorm2d"} and report.left == {"0": "nothing follows"}


def test_a_converted_model_fuses_alike(image):
    model = randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)))
    fused, report = fused_and_report(model, image)
    again, after = fused_and_report(convert(copy.deepcopy(model)), image)
    assert after.fused == report.fused == {"0": "BatchNorm2d, relu6", "3": "BatchNorm2d"} and after.converted == []
    assert calls(again) == calls(fused) == ["torch_dwconv.forward", "aten.conv2d"]
    twice, report = fused_and_report(fused, image)
    assert torch.equal(twice(image), fused(image)) and report.fused == {}


class Frozen(nn.Module):
    """torchvision's FrozenBatchNorm2d."""

    def __init__(self, channels):
        super().__init__()
        for name, low, high in (("weight", 0.5, 2), ("bias", -1, 1), ("mean", -1, 1), ("var", 0.5, 2)):
            self.register_buffer(name, torch.empty(channels).uniform_(low, high))

    def forward(self, x):
        scale = self.weight.reshape(1, -1, 1, 1) * (self.var.reshape(1, -1, 1, 1) + 1e-5).rsqrt()
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.mean.reshape(1, -1, 1, 1) * scale)


class NormAct(nn.BatchNorm2d):
    """timm's BatchNormAct2d."""

    def forward(self, x):
        return F.hardswish(super().forward(x), inplace=True)


@pytest.mark.parametrize(
    "norm, taken",
    [
        (lambda: nn.SyncBatchNorm(8), "SyncBatchNorm, relu"),
        (lambda: Frozen(8), "mul, add, relu"),
        (lambda: NormAct(8), "NormAct, hardswish"),
        (lambda: Call(lambda x: x / 3 - 1), "div, sub, relu"),
        (lambda: Call(lambda x: 2 * (1 + x)), "add, mul, relu"),
        (lambda: nn.Sequential(nn.BatchNorm2d(8), nn.Identity(), nn.BatchNorm2d(8)), "BatchNorm2d, BatchNorm2d, relu"),
    ],
    ids=["SyncBatchNorm", "frozen", "timm", "div, sub", "add, mul", "two"],
)
def test_other_norms(norm, taken, image):
    fused, report = fused_and_report(randomised(nn.Sequential(depthwise(), norm(), nn.ReLU())), image)
    assert report.fused == {"0": taken} and report.left == {} and calls(fused)[0] == "torch_dwconv.forward"
    assert len(calls(fused)) == 1 + (taken == "NormAct, hardswish")  # the relu after it stays


def test_one_activation_for_all(image):
    """As the blocks of ultralytics' YOLO share it."""
    act = nn.SiLU(inplace=True)
    layers = [depthwise(), nn.BatchNorm2d(8), act, nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), act]
    _, report = fused_and_report(randomised(nn.Sequential(*layers)), image)
    assert report.fused == {"0": "BatchNorm2d, silu", "3": "BatchNorm2d, silu"} and report.left == {}


@pytest.mark.parametrize("options", [{}, {"groups": 2}, {"padding": "same"}, {"padding": 1, "padding_mode": "reflect"}])
def test_an_ordinary_convolution_takes_the_batch_norm_only(options, image):
    model = randomised(nn.Sequential(nn.Conv2d(4, 8, 3, **options), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)))
    fused, report = fused_and_report(model, image)
    assert report.fused == {"0": "BatchNorm2d"} and report.left == {} and report.converted == []
    convolution = "aten.conv2d.padding" if options.get("padding") == "same" else "aten.conv2d"
    assert [call for call in calls(fused) if "pad" not in call or "conv" in call] == [
        convolution,
        "aten.relu_",
        "aten.conv2d",
    ]


def test_one_dimension():
    signal = torch.randn(2, 4, 20, dtype=torch.float64)
    model = randomised(
        nn.Sequential(nn.Conv1d(4, 8, 3, 2, padding=1, groups=4), nn.BatchNorm1d(8), nn.GELU(), nn.Conv1d(8, 8, 1))
    )
    fused, report = fused_and_report(model, signal)
    assert report.converted == ["0"] and report.fused == {"0": "BatchNorm1d, gelu"} and report.left == {}
    assert fused(signal).stride() == model(signal).stride()
    layer = DepthwiseConv1d(4, 8, 3, padding=(2, 0))
    fused, report = fused_and_report(randomised(nn.Sequential(layer, nn.BatchNorm1d(8), nn.SiLU())), signal)
    assert report.fused == {"0": "BatchNorm1d, silu"} and "batch_norm" not in fused.code and "silu" not in calls(fused)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2, "padding": (2, 1)},
        {"padding": "same", "dilation": (1, 2)},
        {"padding": "valid"},
        {"kernel_size": (2, 4), "padding": "same"},
        {"padding_mode": "circular", "padding": 1},
    ],
    ids=str,
)
def test_geometry(options, image):
    model = nn.Sequential(nn.Conv2d(4, 8, **{"kernel_size": 3, **options}, groups=4), nn.BatchNorm2d(8), nn.ReLU())
    _, report = fused_and_report(randomised(model), image)
    assert report.fused == {"0": "BatchNorm2d, relu"}


def test_zero_padding_before_is_the_operators(image):
    """TensorFlow's SAME, in the manner of timm and keras."""
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 1, 2)), nn.Conv2d(4, 8, 3, stride=2, groups=4), nn.Hardswish())
    fused, _ = fused_and_report(randomised(model), image)
    assert calls(fused) == ["torch_dwconv.forward"]
    model[0] = nn.ConstantPad2d((0, 1, 1, 2), 1.0)
    fused, _ = fused_and_report(model, image)
    assert calls(fused) == ["aten.pad", "torch_dwconv.forward"]


def test_height_and_width_may_vary(image):
    model = randomised(nn.Sequential(depthwise(stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)))
    auto = torch.export.Dim.AUTO
    fused = fuse(model, image, dynamic_shapes=({0: auto, 2: auto, 3: auto},))
    for size in ((2, 4, 9, 8), (1, 4, 30, 21), (5, 4, 3, 3)):
        other = torch.randn(size, dtype=torch.float64)
        torch.testing.assert_close(fused(other), model(other))


def test_pairs_are_found_by_the_graph(image):
    _, report = fused_and_report(randomised(OutOfOrder()), image)
    assert report.fused == {"first": "BatchNorm2d, relu", "second": "BatchNorm2d, gelu"} and report.left == {}


def test_constants_are_computed_once(image):
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(depthwise()),
        nn.utils.spectral_norm(nn.Conv2d(8, 8, 1)),
        nn.BatchNorm2d(8),
    )
    fused, report = fused_and_report(randomised(model), image)
    assert calls(fused) == ["torch_dwconv.forward", "aten.conv2d"] and report.fused == {"1": "BatchNorm2d"}


def test_a_constant_result_is_the_callers_own(image):
    model = kernel(lambda self, x: (self.second(x), self.first.weight * 2))
    fused = fuse(model, image)
    expected = fused(image)[1].clone()
    fused(image)[1].zero_()
    assert torch.equal(fused(image)[1], expected)


def test_weights_that_would_overflow_are_left():
    model = nn.Sequential(depthwise(bias=False), nn.BatchNorm2d(8, eps=1e-12), nn.Tanh()).half().eval()
    model[1].running_var.zero_()  # a scale of a million
    reports = []
    image = torch.randn(2, 4, 9, 8).half() * 1e-4
    fused = fuse(model, image, report=reports.append)
    torch.testing.assert_close(fused(image), model(image), rtol=0.01, atol=0.01)
    assert reports[0].left == {"0": "BatchNorm2d would make its weights overflow"} and reports[0].fused == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_dtype_and_memory_format_stay(dtype, memory_format):
    model = nn.Sequential(depthwise(bias=False), nn.BatchNorm2d(8), nn.Hardswish(), nn.Conv2d(8, 6, 1))
    model = randomised(model).to(dtype).to(memory_format=memory_format)
    image = torch.randn(2, 4, 9, 8).to(dtype).to(memory_format=memory_format)
    fused, _ = fused_and_report(model, image, tolerance=1e-5 if dtype == torch.float32 else 0.1)
    assert fused(image).is_contiguous(memory_format=memory_format)
    other = torch.channels_last if memory_format == torch.contiguous_format else torch.contiguous_format
    torch.testing.assert_close(fused(image.contiguous(memory_format=other)), fused(image))


def test_an_activation_of_the_layers_own_stays(image):
    model = randomised(nn.Sequential(DepthwiseConv2d(4, 8, 3, activation="silu"), nn.BatchNorm2d(8), nn.ReLU()))
    fused, report = fused_and_report(model, image)
    assert report.fused == {} and report.left == {"0": "it has an activation of its own"}
    assert FORWARD.name() in {name.replace(".", "::") for name in calls(fused)}


class Positions(nn.Module):
    """Tables of a few numbers, which attention reads at the distances of all pairs of pixels."""

    def __init__(self, tables: int = 8, side: int = 14):
        super().__init__()
        self.tables = nn.ParameterList(torch.randn(4, (2 * side - 1) ** 2) for _ in range(tables))
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        distance = at[:, :, None] - at[:, None] + side - 1
        self.register_buffer("index", distance[0] * (2 * side - 1) + distance[1])

    def forward(self, x):
        for table in self.tables:
            x = x + (x[:, :4, None] * table[:, self.index]).sum(-1).mean(1, keepdim=True)
        return x


def test_tables_that_would_be_much_larger_than_the_model_are_made_at_each_call():
    """Each would add more than half a megabyte, the model has half a megabyte."""
    model, image = Positions().double().eval(), torch.randn(2, 4, 196, dtype=torch.float64)
    fused, _ = fused_and_report(model, image)
    before = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    after = sum(tensor.nbytes for tensor in fused.buffers())
    assert calls(fused).count("aten.index.Tensor") == 8 and after <= 1.05 * before + 2**18
    small = Positions(tables=1, side=5).double().eval()
    fused, _ = fused_and_report(small, torch.randn(2, 4, 25, dtype=torch.float64))
    assert "aten.index.Tensor" not in calls(fused)

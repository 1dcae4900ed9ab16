"""fuse: which chains become a block, by their report, and that results stay those of the model in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv2d, fuse
from torch_dwconv.models.fuse.module import FusedModule

from .fusing import Call, calls, in_blocks, randomised

pytestmark = pytest.mark.usefixtures("one_torch_thread")

BLOCK = "torch_dwconv.block"


@pytest.fixture
def image():
    return torch.randn(2, 6, 9, 8)


def norm_act(channels, act=nn.ReLU6):
    return [nn.BatchNorm2d(channels), act(inplace=True)]


def inverted_residual(channels=6, wide=20, out=6, stride=1, extra=(), act=nn.ReLU6):
    return nn.Sequential(
        nn.Conv2d(channels, wide, 1, bias=False),
        *norm_act(wide, act),
        nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
        *norm_act(wide, act),
        *extra,
        nn.Conv2d(wide, out, 1, bias=False),
        nn.BatchNorm2d(out),
    )


class Residual(nn.Module):
    def __init__(self, body, swap=False):
        super().__init__()
        self.body, self.swap = body, swap

    def forward(self, x):
        return x + self.body(x) if self.swap else self.body(x) + x


class SqueezeExcite(nn.Module):
    """Four ways to write it: timm's, torchvision's, with linear layers, and with x first."""

    def __init__(self, channels, way, gate=torch.sigmoid, hidden=3):
        super().__init__()
        self.way, self.gate = way, gate
        self.pool = nn.AdaptiveAvgPool2d(1)
        if way == "linear":
            self.reduce, self.expand = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        else:
            self.reduce, self.expand = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x):
        if self.way == "linear":
            n, c = x.shape[:2]
            return x * self.gate(self.expand(F.relu(self.reduce(self.pool(x).view(n, c))))).view(n, c, 1, 1)
        if self.way == "torchvision":
            return self.gate(self.expand(F.relu(self.reduce(self.pool(x))))) * x
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(F.silu(self.reduce(mean)) if self.way == "timm" else self.reduce(mean).relu()))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Both ways: on (N, H, W, C) with linear layers, and on images with 1x1 convolutions."""

    def __init__(self, channels, way, wide=40):
        super().__init__()
        self.way = way
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.gamma = nn.Parameter(torch.rand(channels) + 0.5)
        if way == "linear":
            self.norm = nn.LayerNorm(channels, eps=1e-6)
            self.mlp = nn.Sequential(nn.Linear(channels, wide), nn.GELU(), nn.Linear(wide, channels))
        else:
            self.norm = LayerNorm2d(channels, eps=1e-6)
            self.mlp = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.GELU(), nn.Conv2d(wide, channels, 1))
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias, -1, 1)

    def forward(self, x):
        y = self.depthwise(x)
        if self.way == "linear":
            y = self.gamma * self.mlp(self.norm(y.permute(0, 2, 3, 1)))
            return x + y.permute(0, 3, 1, 2)
        return self.mlp(self.norm(y)) * self.gamma[:, None, None] + x


def only_block(model, image, **options) -> str:
    """The steps of the one block that a whole model is."""
    fused, report = in_blocks(randomised(model), image, **options)
    assert calls(fused).count(BLOCK) == 1 and report.left == {}, (fused.code, report)
    assert {*calls(fused)} <= {BLOCK, "aten.permute", "aten.clone"}  # the last two restore strides of the result
    (steps,) = report.blocks.values()
    return steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("swap", [True, False])
def test_inverted_residual(dtype, memory_format, swap, image):
    steps = only_block(Residual(inverted_residual(), swap), image.to(dtype).to(memory_format=memory_format))
    assert steps == "dense 1x1 6→20 relu6, depthwise 3x3 relu6, dense 1x1 20→6, + residual"


def test_strides_of_two_end_a_block(image):
    model = nn.Sequential(inverted_residual(6, 20, 8, 2), inverted_residual(8, 24, 8, act=nn.Hardswish))
    fused, report = in_blocks(randomised(model), image)
    assert report.blocks == {
        "0": "dense 1x1 6→20 relu6, depthwise 3x3 s2 relu6, dense 1x1 20→8",
        "1": "dense 1x1 8→24 hardswish, depthwise 3x3 hardswish, dense 1x1 24→8",
    }
    assert calls(fused)[:2] == [BLOCK] * 2


@pytest.mark.parametrize("way", ["timm", "torchvision", "linear", "x first"])
@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid], ids=["sigmoid", "hardsigmoid"])
def test_squeeze_excite(way, gate, image):
    model = inverted_residual(extra=[SqueezeExcite(20, way, gate)], act=nn.SiLU)
    act = "silu" if way == "timm" else "relu"
    assert only_block(model, image) == (
        f"dense 1x1 6→20 silu, depthwise 3x3 silu, squeeze_excite 20→3 {act} {gate.__name__}, dense 1x1 20→6"
    )


@pytest.mark.parametrize("way", ["linear", "convolutions"])
def test_convnext(way, image):
    assert only_block(ConvNext(6, way), image) == (
        "depthwise 7x7, layer_norm, dense 1x1 6→40 gelu, dense 1x1 40→6, + residual"
    )


@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_before_a_strided_convolution(bias, image):
    """The bias of the norm is not what padding adds: then it stays."""
    model = nn.Sequential(LayerNorm2d(6, bias=bias), nn.Conv2d(6, 10, 2, 2))
    nn.init.uniform_(model[0].weight, 0.5, 2)
    assert only_block(model, image) == "layer_norm, dense 2x2 6→10 s2"
    model[1] = nn.Conv2d(6, 10, 3, padding=1)
    if bias:
        nn.init.uniform_(model[0].bias, -1, 1)
        fused, report = in_blocks(randomised(model), image)
        assert "aten.layer_norm" in calls(fused) and [*report.blocks.values()] == ["dense 3x3 6→10"]
    else:
        assert only_block(model, image) == "layer_norm, dense 3x3 6→10"


def test_a_layer_norm_with_several_readers(image):
    def forward(self, x):
        y = self.norm(x)
        return self.q(y) + self.k(y).tanh()

    model = Call(forward, norm=LayerNorm2d(6), q=nn.Conv2d(6, 8, 1), k=nn.Conv2d(6, 8, 1))
    nn.init.uniform_(model.norm.weight, 0.5, 2)
    nn.init.uniform_(model.norm.bias, -1, 1)
    fused, _ = in_blocks(randomised(model), image)
    assert "aten.layer_norm" not in calls(fused) and calls(fused).count(BLOCK) == 3
    model.function = lambda self, x: forward(self, x) + self.norm(x).mean()
    fused, _ = in_blocks(model, image)
    assert "aten.layer_norm" in calls(fused)


ACTIVATIONS = {
    "relu": [nn.ReLU(), F.relu, lambda x: x.clamp(min=0), lambda x: x.clamp_min(0)],
    "relu6": [nn.ReLU6(), F.relu6, lambda x: F.hardtanh(x, 0, 6), lambda x: x.clamp(0, 6)],
    "hardswish": [
        nn.Hardswish(),
        lambda x: x * F.hardsigmoid(x),
        lambda x: x * F.relu6(x + 3) / 6,
        lambda x: (F.hardtanh(3 + x, 0, 6) * (1 / 6)) * x,
        lambda x: x * ((x + 3).clamp(0, 6) / 6),
    ],
    "silu": [nn.SiLU(inplace=True), lambda x: x.sigmoid() * x],
    "gelu": [
        nn.GELU(),
        lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
        lambda x: x * 0.5 * (1.0 + torch.erf(x * 0.5**0.5)),
        lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
        lambda x: 0.5 * (x * (1 + torch.erf(x / 1.41421))),
        lambda x: x * (0.5 * (1 + torch.erf(x / 2**0.5))),
    ],
    "gelu_tanh": [nn.GELU("tanh")],
    "hardsigmoid": [nn.Hardsigmoid(inplace=True), F.hardsigmoid, lambda x: F.relu6(x + 3) / 6],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid],
}


@pytest.mark.parametrize("name, way", [(name, way) for name, ways in ACTIVATIONS.items() for way in range(len(ways))])
def test_activations(name, way, image):
    """Behind a dense step, behind a residual, and behind a view."""
    act = ACTIVATIONS[name][way]
    model = Call(lambda self, x: act(self.conv(x)), conv=nn.Conv2d(6, 6, 1))
    assert only_block(model, image) == f"dense 1x1 6→6 {name}"
    model.function = lambda self, x: act(self.conv(x) + x)
    assert only_block(model, image) == f"dense 1x1 6→6 {name}, + residual"
    model.function = lambda self, x: act(self.conv(x).permute(0, 2, 3, 1).flatten(1, 2))
    fused, report = in_blocks(model, image)
    assert [*report.blocks.values()] == [f"dense 1x1 6→6 {name}"] and calls(fused).count(BLOCK) == 1


NEARLY = {
    "relu6(x + 3) / 5": lambda x: F.relu6(x + 3) / 5,
    "relu6(x + 2) / 6": lambda x: F.relu6(x + 2) / 6,
    "6 / relu6(x + 3)": lambda x: 6 / (F.relu6(x + 3) + 1),
    "hardsigmoid of another": lambda x: (x + 1) * F.relu6(x + 3) / 6,
    "up to 5": lambda x: (x + 3).clamp(0, 5) / 6,
    "alpha": lambda x: F.relu6(torch.add(x, 3, alpha=2)) / 6,
    "read twice": lambda x: (y := F.relu6(x + 3)) / 6 + y,
    "erf(x / 2)": lambda x: 0.5 * x * (1 + torch.erf(x / 2)),
    "x (1 + erf)": lambda x: x * (1 + torch.erf(x / 2**0.5)),
    "1 - erf": lambda x: 0.5 * x * (1 - torch.erf(x / 2**0.5)),
    "2 + erf": lambda x: 0.5 * x * (2 + torch.erf(x / 2**0.5)),
    "erf of another": lambda x: 0.5 * (x + 1) * (1 + torch.erf(x / 2**0.5)),
    "a quarter": lambda x: 0.25 * x * (1 + torch.erf(x / 2**0.5)),
}


@pytest.mark.parametrize("name", NEARLY)
def test_what_is_nearly_an_activation_is_none(name, image):
    model = Call(lambda self, x: NEARLY[name](self.conv(x) * 1.5), conv=nn.Conv2d(6, 6, 1))
    fused, _ = in_blocks(randomised(model), image)
    assert {"aten.hardsigmoid", "aten.hardswish", "aten.gelu"}.isdisjoint(calls(fused)), fused.code


@pytest.mark.parametrize(
    "options, words",
    [
        ({}, "dense 3x3 6→10"),
        ({"padding": "same", "dilation": (1, 2)}, "dense 3x3 6→10 d1x2"),
        ({"padding": "valid", "stride": (2, 1)}, "dense 3x3 6→10 s2x1"),
        ({"kernel_size": (2, 5), "padding": "same"}, "dense 2x5 6→10"),
        ({"kernel_size": 1, "stride": 2, "bias": False}, "dense 1x1 6→10 s2"),
        ({"padding": (0, 2), "dilation": 2}, "dense 3x3 6→10 d2"),
    ],
    ids=str,
)
def test_geometry(options, words, image):
    assert only_block(nn.Conv2d(**{"in_channels": 6, "out_channels": 10, "kernel_size": 3, **options}), image) == words


def test_padding_of_zeros_before_goes_into_the_step(image):
    model = nn.Sequential(nn.ZeroPad2d((0, 1, 1, 2)), nn.Conv2d(6, 10, 3, 2))
    assert only_block(model, image) == "dense 3x3 6→10 s2"
    model[0] = nn.ZeroPad2d((0, 3, 1, 2))  # wider than the kernel
    fused, _ = in_blocks(randomised(model), image)
    assert calls(fused)[:2] == ["aten.pad", BLOCK]
    model[0] = nn.ConstantPad2d(1, 1.0)
    fused, _ = in_blocks(randomised(model), image)
    assert calls(fused)[:2] == ["aten.pad", BLOCK]


def test_a_layer_of_ours(image):
    model = nn.Sequential(DepthwiseConv2d(6, 12, 3, stride=2, padding="same", activation="silu"), nn.Conv2d(12, 4, 1))
    assert only_block(model, image) == "depthwise 3x3 6→12 s2 silu, dense 1x1 12→4"


def test_linear_layers_of_any_rank():
    for shape in ((4, 7), (3, 5, 7), (2, 3, 5, 7)):
        model = nn.Sequential(nn.Linear(7, 9), nn.GELU(), nn.Linear(9, 3, bias=False))
        fused, report = in_blocks(randomised(model), torch.randn(shape))
        assert [*report.blocks.values()] == ["dense 1x1 7→9 gelu, dense 1x1 9→3"]
        assert calls(fused).count(BLOCK) == 1
    _, report = in_blocks(randomised(model), torch.randn(2, 2, 3, 5, 7))
    assert [*report.blocks.values()] == ["dense 1x1 7→9", "dense 1x1 9→3"]  # no view of one image


def test_tokens_and_back(image):
    """(N, C, H, W) to (N, H*W, C) and back: what is computed pixel by pixel needs neither."""

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.fc2(F.gelu(self.fc1(self.norm(tokens))))
        return tokens.transpose(1, 2).reshape(x.shape[0], 6, 9, 8)

    model = Call(forward, norm=nn.LayerNorm(6), fc1=nn.Linear(6, 30), fc2=nn.Linear(30, 6))
    assert only_block(model, image) == "layer_norm, dense 1x1 6→30 gelu, dense 1x1 30→6, + residual"


def test_batch_norm_of_tokens(image):
    """LeViT's Linear and BatchNorm1d over (N*L, C)."""

    def forward(self, x):
        y = self.linear(x.flatten(2).transpose(1, 2))
        return self.norm(y.flatten(0, 1)).reshape_as(y)

    fused, report = in_blocks(randomised(Call(forward, linear=nn.Linear(6, 8), norm=nn.BatchNorm1d(8))), image)
    assert "aten.batch_norm" not in calls(fused) and [*report.blocks.values()] == ["dense 1x1 6→8"]


def test_mean_and_classifier(image):
    model = nn.Sequential(
        nn.Conv2d(6, 20, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(20, 5)
    )
    _, report = in_blocks(randomised(model), image)
    assert report.blocks == {"0": "dense 1x1 6→20 hardswish, mean", "5": "dense 1x1 20→5"}
    _, report = in_blocks(randomised(Call(lambda self, x: self.conv(x).mean((3, 2)), conv=nn.Conv2d(6, 4, 1))), image)
    assert [*report.blocks.values()] == ["dense 1x1 6→4, mean"]


def test_two_residuals_and_a_shared_layer(image):
    conv = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        y = F.relu(self.conv(x) + x)
        z = self.conv(y) + y
        return self.other(z) + x, z

    fused, report = in_blocks(randomised(Call(forward, conv=conv, other=nn.Conv2d(6, 6, 1))), image)
    assert [*report.blocks.values()] == [
        "dense 3x3 6→6 relu, + residual",
        "dense 3x3 6→6, + residual",
        "dense 1x1 6→6, + residual",
    ]
    assert [name for name in fused.state_dict() if "weight" in name] == ["fused_conv_weight", "fused_other_weight"]


LEFT = {
    "groups": (nn.Conv2d(6, 6, 3, groups=2), "it has 2 groups"),
    "padding wider than the kernel": (nn.Conv2d(6, 6, 1, padding=1), "its padding reaches further than its kernel"),
    "a weight of the input": (
        Call(lambda self, x: F.conv2d(x, self.weight * x.mean()), weight=nn.Parameter(torch.randn(3, 6, 1, 1))),
        "its weight or bias depends on the input",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_leaves_and_says_why(name, image):
    model, reason = LEFT[name]
    fused, report = in_blocks(randomised(model), image)
    assert report.blocks == {} and [*report.left.values()] == [reason] and BLOCK not in calls(fused)


def test_a_sum_with_a_broadcast_is_no_residual(image):
    model = Call(lambda self, x: self.conv(x) + x.mean((2, 3), keepdim=True), conv=nn.Conv2d(6, 6, 1))
    fused, _ = in_blocks(randomised(model), image)
    assert [call for call in calls(fused) if call.startswith("aten.add")] != []
    model.function = lambda self, x: (y := self.conv(x)) + y  # the same twice
    fused, _ = in_blocks(model, image)
    assert [call for call in calls(fused) if call.startswith("aten.add")] != []


def test_a_depthwise_layer_alone_stays_the_operators(image):
    fused, report = in_blocks(randomised(nn.Sequential(nn.Tanh(), nn.Conv2d(6, 6, 3, groups=6), nn.Tanh())), image)
    assert "torch_dwconv.forward" in calls(fused) and report.blocks == {} and report.left == {"1": "tanh follows"}


def test_what_asks_for_strides_gets_those_of_the_model(image):
    model = Call(
        lambda self, x: torch.as_strided((y := self.conv(x)), (2, 3), (y.stride(1), 1)), conv=nn.Conv2d(6, 8, 1)
    )
    narrow = model.float().eval()
    fused = fuse(narrow, image, dynamic_shapes={"args": (None,)})
    torch.testing.assert_close(fused(image), narrow(image), rtol=1e-5, atol=1e-5)


def test_height_and_width_may_vary():
    auto = torch.export.Dim.AUTO
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1),
            nn.ReLU(),
            Residual(inverted_residual(extra=[SqueezeExcite(20, "torchvision")])),
            ConvNext(6, "linear"),
            inverted_residual(6, 20, 8, 2),
            nn.AdaptiveAvgPool2d(1),
        )
    ).float()
    image = torch.randn(2, 3, 33, 40)
    reports = []
    fused = fuse(model, image, dynamic_shapes=({0: auto, 2: auto, 3: auto},), report=reports.append)
    assert len(reports[0].blocks) == 4
    for size in ((2, 3, 33, 40), (1, 3, 64, 17), (3, 3, 20, 31)):
        other = torch.randn(size)
        torch.testing.assert_close(fused(other), model(other), rtol=1e-4, atol=1e-4)


def test_memory_is_that_of_the_weights_packed_once():
    model = randomised(nn.Sequential(*(inverted_residual(16, 96, 16) for _ in range(3)))).float()
    fused, _ = in_blocks(model.double(), torch.randn(1, 16, 8, 8))
    plain = sum(tensor.nbytes for tensor in (*model.float().parameters(), *model.buffers()))
    assert isinstance(fused, FusedModule) and sum(tensor.nbytes for tensor in fused.buffers()) < 1.05 * plain

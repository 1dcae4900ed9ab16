"""fuse: what is folded, what stays and is said to, and that the outputs stay equal."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv2d, fuse, revert


def randomised(model: nn.Module) -> nn.Module:
    """In float64 and eval mode, every BatchNorm with statistics and parameters that matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in [(module.running_mean, -1, 1), (module.running_var, 0.5, 2)]:
                if tensor is not None:
                    nn.init.uniform_(tensor, low, high)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return model.double().eval()


def fused_and_report(model, input, tolerance=1e-12):
    """Fuses, checks that the output stays, and returns (model, report)."""
    reports = []
    with torch.no_grad():
        expected = model(input)
        assert fuse(model, report=reports.append) is model
        torch.testing.assert_close(model(input), expected, rtol=tolerance, atol=tolerance)
    return model, reports[0]


def depthwise(**options) -> nn.Conv2d:
    return nn.Conv2d(4, 8, 3, padding=1, groups=4, **options)


@pytest.fixture
def image():
    return torch.randn(2, 4, 9, 8, dtype=torch.float64)


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu6": lambda: nn.ReLU6(inplace=True),
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_folds_batch_norm_and_activation(name, bias, affine, image):
    model = randomised(nn.Sequential(depthwise(bias=bias), nn.BatchNorm2d(8, affine=affine), ACTIVATIONS[name]()))
    model, report = fused_and_report(model, image)
    assert report.fused == {"0": f"BatchNorm2d, {name}"} and report.left == {}
    assert isinstance(model[0], DepthwiseConv2d) and [type(module) for module in model][1:] == [
        nn.Identity,
        nn.Identity,
    ]
    assert model[0].activation == name and f"activation={name}" in repr(model[0])


def test_either_alone(image):
    model, report = fused_and_report(randomised(nn.Sequential(depthwise(), nn.SiLU())), image)
    assert report.fused == {"0": "silu"} and report.left == {}
    model, report = fused_and_report(randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8))), image)
    assert report.fused == {"0": "BatchNorm2d"} and report.left == {"0": "nothing follows"}
    assert type(model[1]) is nn.Identity and model[0].activation is None


def test_an_ordinary_convolution_takes_the_batch_norm_only(image):
    model = randomised(nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()))
    model, report = fused_and_report(model, image)
    assert report.fused == {"0": "BatchNorm2d"} and report.left == {}
    assert [type(module) for module in model] == [nn.Conv2d, nn.Identity, nn.ReLU, nn.Conv2d, nn.ReLU]


class OutOfOrder(nn.Module):
    """Defined in an order that is not the order of the calls: pairs by position would be wrong."""

    def __init__(self):
        super().__init__()
        self.second = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm_of_first = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.norm_of_second = nn.BatchNorm2d(4)
        self.gelu, self.relu = nn.GELU(), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.norm_of_first(self.first(x)))
        return self.gelu(self.norm_of_second(self.second(x))) + x


def test_pairs_are_found_by_the_graph(image):
    _, report = fused_and_report(randomised(OutOfOrder()), image)
    assert report.fused == {"first": "BatchNorm2d, relu", "second": "BatchNorm2d, gelu"} and report.left == {}


class Twice(OutOfOrder):
    def forward(self, x):
        return self.relu(self.norm_of_first(self.first(x))) + self.first(x)


class Branch(OutOfOrder):
    def forward(self, x):
        x = self.first(x)
        return self.norm_of_first(x) + x


class SharedActivation(OutOfOrder):
    def forward(self, x):
        return self.relu(self.norm_of_first(self.first(self.relu(x))))


class SharedNorm(OutOfOrder):
    def forward(self, x):
        return self.norm_of_first(self.first(self.norm_of_first(x)))


class FunctionalActivation(OutOfOrder):
    def forward(self, x):
        return F.relu6(self.norm_of_first(self.first(x)))


class OtherModule(OutOfOrder):
    def __init__(self):
        super().__init__()
        self.relu = nn.Tanh()

    def forward(self, x):
        return self.relu(self.norm_of_first(self.first(x)))


class UsesParameters(OutOfOrder):
    def forward(self, x):
        return self.norm_of_first(self.first(x)) * self.first.weight.norm()


class BatchStatistics(OutOfOrder):
    def __init__(self):
        super().__init__()
        self.norm_of_first = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x):
        return self.norm_of_first(self.first(x))


class NormInTrainingMode(OutOfOrder):
    def eval(self):
        super().eval()
        self.norm_of_first.train()
        self.norm_of_first.momentum = 0  # or the two runs that are compared would differ
        return self

    forward = BatchStatistics.forward


class Scaled(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class NormSubclass(OutOfOrder):
    def __init__(self):
        super().__init__()
        self.norm_of_first = Scaled(4)

    forward = BatchStatistics.forward


@pytest.mark.parametrize(
    "cls, fused, reason",
    [
        (Twice, None, "its DepthwiseConv2d is called 2 times"),
        (Branch, None, "its result is used 2 times"),
        (SharedActivation, "BatchNorm2d", "its ReLU is called 2 times"),
        (SharedNorm, None, "its BatchNorm2d is called 2 times"),
        (FunctionalActivation, "BatchNorm2d", "relu6 follows, a function and no module"),
        (OtherModule, "BatchNorm2d", "Tanh follows"),
        (UsesParameters, None, "its parameters are used outside of it too"),
        (BatchStatistics, None, "its BatchNorm normalises by the batch"),
        (NormInTrainingMode, None, "its BatchNorm normalises by the batch"),
        (NormSubclass, None, "Scaled, a subclass of BatchNorm2d that may compute something else"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_leaves_and_says_why(cls, fused, reason, image):
    _, report = fused_and_report(randomised(cls()), image)
    assert report.fused == ({"first": fused} if fused else {})
    assert report.left["first"].endswith(reason)  # a subclass has the name of its module before its own


@pytest.mark.parametrize(
    "index, fused, reason",
    [
        (0, None, "its DepthwiseConv2d has hooks"),
        (1, None, "its BatchNorm2d has hooks"),
        (2, "BatchNorm2d", "its ReLU has hooks"),
    ],
)
def test_hooked_modules_stay(index, fused, reason, image):
    model = randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.ReLU()))
    calls = []
    model[index].register_forward_hook(lambda module, args, output: calls.append(1))
    model, report = fused_and_report(model, image)
    assert report.left == {"0": reason} and report.fused == ({"0": fused} if fused else {})
    assert len(calls) == 2


def test_parametrised_and_replaced_layers_stay(image):
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(depthwise()), nn.BatchNorm2d(8))
    _, report = fused_and_report(randomised(model), image)
    assert report.left == {"0": "it is parametrised"}
    model = nn.Sequential(depthwise(), nn.BatchNorm2d(8))
    model[1].forward = model[1].forward
    _, report = fused_and_report(randomised(model), image)
    assert report.left == {"0": "its BatchNorm2d: its forward was replaced on the instance"}


class DataDependent(nn.Module):
    """Does not trace; its children do."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.ReLU())
        self.alone = nn.Conv2d(8, 8, 3, groups=8)

    def forward(self, x):
        x = self.block(x)
        return self.alone(x) if x.sum() > 0 else x


def test_what_does_not_trace_is_looked_at_child_by_child(image):
    _, report = fused_and_report(randomised(DataDependent()), image)
    assert report.fused == {"block.0": "BatchNorm2d, relu"}
    assert report.left == {"alone": "torch.fx cannot trace the module that calls it"}


def test_training_mode_is_refused():
    model = nn.Sequential(depthwise(), nn.BatchNorm2d(8))
    with pytest.raises(RuntimeError, match=r"model must be in eval mode .* got training=True: call model\.eval\(\)"):
        fuse(model)
    assert [type(module) for module in model] == [nn.Conv2d, nn.BatchNorm2d]


def test_a_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got str"):
        fuse("model")


def test_fusing_twice_changes_nothing(image):
    model, _ = fused_and_report(randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.ReLU())), image)
    model, report = fused_and_report(model, image)
    assert report.fused == {}


def test_report_reads_well(image, capsys):
    fuse(randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.Tanh())), report=print)
    assert capsys.readouterr().out.splitlines() == [
        "fused: 1",
        "  BatchNorm2d: 0",
        "left: 1",
        "  Tanh follows: 0",
    ]


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_dtype_memory_format_and_padding_stay(padding_mode):
    model = nn.Sequential(depthwise(bias=False, padding_mode=padding_mode), nn.BatchNorm2d(8), nn.Hardswish())
    model = randomised(model).to(torch.bfloat16).to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    image = torch.randn(2, 4, 9, 8).bfloat16().to(memory_format=torch.channels_last)
    model, _ = fused_and_report(model, image, tolerance=0.1)
    assert model[0].weight.dtype == model[0].bias.dtype == torch.bfloat16
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) and not model[0].weight.requires_grad


@pytest.mark.parametrize("copied", ["deepcopy", "pickle", "torch.save", "state_dict"])
def test_a_fused_model_copies(copied, image):
    model, _ = fused_and_report(randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.SiLU())), image)
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    file = io.BytesIO()
    if copied == "deepcopy":
        twin = copy.deepcopy(model)
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    elif copied == "torch.save":
        torch.save(model, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    else:
        twin = fuse(nn.Sequential(depthwise(bias=False), nn.BatchNorm2d(8), nn.SiLU()).double().eval())
        twin.load_state_dict(model.state_dict())
    assert repr(twin) == repr(model) and torch.equal(twin(image), model(image))


def test_a_fused_model_still_differentiates_compiles_and_traces(image, fresh_compiler):
    model = randomised(nn.Sequential(depthwise(), nn.BatchNorm2d(8), nn.GELU()))
    image.requires_grad_()
    expected = torch.autograd.grad(model(image).square().sum(), image)
    fuse(model)
    torch.testing.assert_close(torch.autograd.grad(model(image).square().sum(), image), expected)
    torch.testing.assert_close(torch.compile(model, backend="aot_eager", fullgraph=True)(image), model(image))
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(image), model(image))


def test_revert_leaves_a_layer_with_an_activation(image):
    model, _ = fused_and_report(randomised(nn.Sequential(depthwise(), nn.ReLU())), image)
    reports = []
    revert(model, report=reports.append)
    assert reports[0].left == {"0": "activation=relu, which nn.Conv2d does not have"}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_layer_has_an_activation(name, image):
    layer = DepthwiseConv2d(4, 8, 3, dtype=torch.float64, activation=name)
    plain = DepthwiseConv2d(4, 8, 3, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(image), ACTIVATIONS[name]()(plain(image)))
    assert repr(layer).endswith(f"activation={name})") and plain.activation is None


def test_the_layer_refuses_another_activation():
    with pytest.raises(ValueError, match=r"activation must be None or one of relu, .* got 'tanh'"):
        DepthwiseConv2d(4, 4, 3, activation="tanh")

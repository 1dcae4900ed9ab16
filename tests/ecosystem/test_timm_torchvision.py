"""convert on models of torchvision and timm: no depthwise layer is left, the results stay, revert takes all of it back.
And fuse, feature extractors and checkpoints on some of them.

In float64 and with random weights. The two packages are no dependencies; `make check-upgrade` installs them.
"""

import copy
import pickle

import pytest
import torch
from torch import nn

from torch_dwconv import BatchNormAct2d, DepthwiseConv2d, convert, fuse, revert

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# (package, model, depthwise layers in it)
MODELS = [
    ("torchvision", "mobilenet_v2", 17),
    ("torchvision", "efficientnet_b0", 16),
    ("torchvision", "convnext_tiny", 18),  # 7x7 layers, run as nn.Conv2d between permutations
    ("timm", "mobilenetv3_large_100", 15),
    ("timm", "efficientnet_b0", 16),
    ("timm", "tf_efficientnet_b0", 16),  # Conv2dSame: TensorFlow's padding
    ("timm", "convnext_tiny", 18),
    ("timm", "fastvit_t8", 40),  # re-parametrisable branches, also with two filters a channel
    ("timm", "mixnet_s", 43),  # 3x3 to 11x11 side by side
    ("torchvision", "mobilenet_v3_small", 11),
    ("timm", "mobilenetv2_100", 17),
    ("timm", "mobilenetv4_conv_small", 15),
    ("timm", "convnextv2_atto", 12),
    ("timm", "inception_next_atto", 36),  # 1x11 and 11x1 bands
    ("timm", "mobilevit_xxs", 7),
]


def made(package: str, name: str) -> nn.Module:
    library = pytest.importorskip(package)
    if package == "torchvision":
        return library.models.get_model(name, weights=None)
    return library.create_model(name, pretrained=False)


def lively(model: nn.Module, size: int = 64) -> nn.Module:
    """In eval mode, with BatchNorm statistics of random images: without them the signal fades to nothing on its way."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            if not module.weight.any():  # a residual branch that starts switched off
                nn.init.ones_(module.weight)
    with torch.no_grad():
        model.train()(torch.randn(4, 3, size, size, dtype=next(model.parameters()).dtype))
    return model.eval()


def assert_near(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert expected.norm() > 1e-3 and (actual - expected).norm() <= tolerance * expected.norm()


def output_and_gradients(model: nn.Module, input: torch.Tensor) -> dict[str, torch.Tensor]:
    """By name, each divided by its largest magnitude: untrained networks in eval mode fade to 1e-14 on the way."""
    input = input.clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(input)
    leaves = {"input": input, **dict(model.named_parameters())}
    gradients = torch.autograd.grad((output / output.detach().abs().max()).square().sum(), list(leaves.values()))
    values = {"output": output.detach(), **dict(zip(leaves, gradients, strict=True))}
    return {name: value / value.abs().max() for name, value in values.items()}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("package, name, layers", MODELS)
def test_model(package, name, layers, memory_format):
    theirs = made(package, name).double().eval()
    if "mobilevit" in name:  # its residual branches start switched off
        lively(theirs)
    theirs.to(memory_format=memory_format)
    classes = [type(module) for module in theirs.modules()]
    reports = []
    ours = convert(copy.deepcopy(theirs), report=reports.append)

    assert all(reason.startswith("groups=1,") for reason in reports[0].left.values()), reports[0]
    assert sum(isinstance(module, DepthwiseConv2d) for module in ours.modules()) == len(reports[0].swapped) == layers
    assert list(ours.state_dict()) == list(theirs.state_dict())

    input = torch.randn(2, 3, 64, 64, dtype=torch.float64).to(memory_format=memory_format)
    results = [output_and_gradients(model, input) for model in (ours, theirs)]
    torch.testing.assert_close(*results, rtol=0, atol=1e-12)

    assert [type(module) for module in revert(ours).modules()] == classes


# (package, model, size of its image): those whose forward keeps something, and one of each kind of block
FUSED = [
    ("torchvision", "mobilenet_v2", 64),
    ("timm", "tf_mobilenetv3_small_minimal_100", 64),  # SAME padding
    ("timm", "mobilenetv4_conv_small", 64),
    ("timm", "ghostnet_100", 64),
    ("timm", "levit_128s", 224),  # caches its tables of positions
    ("timm", "efficientformerv2_s0", 224),
    ("timm", "tiny_vit_5m_224", 224),
    ("timm", "fastvit_t8", 64),
]


class Intermediates(nn.Module):
    """Another method of a model than forward, which a fused module has not."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, input: torch.Tensor) -> list[torch.Tensor]:
        return self.model.forward_intermediates(input, intermediates_only=True)


@pytest.mark.parametrize("package, name, size", FUSED)
def test_fuse(package, name, size):
    model = lively(made(package, name).double(), size)
    inputs, reports = [torch.randn(batch, 3, size, size, dtype=torch.float64) for batch in (1, 3)], []
    keys = [{*vars(module)} for module in model.modules()]
    originals = copy.deepcopy(model)
    convolutions = {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    with torch.no_grad():
        fused = fuse(model, inputs[0], report=reports.append)
        for input in inputs:
            assert_near(fused(input), originals(input), 1e-9)
    pickle.dumps(model)
    assert [{*vars(module)} for module in model.modules()] == keys
    assert convolutions <= {*reports[0].fused, *reports[0].left}
    convert(model)
    with torch.no_grad():
        if hasattr(model, "forward_intermediates"):
            features = fuse(Intermediates(model).eval(), inputs[0])(inputs[1])
            for ours, theirs in zip(features, Intermediates(originals)(inputs[1]), strict=True):
                assert_near(ours, theirs, 1e-9)
        else:
            assert_near(fuse(model, inputs[0])(inputs[1]), originals(inputs[1]), 1e-9)
    pickle.dumps(model)


# (package, model, size of its image): in float32 all of its dense layers are in blocks
BLOCKS = [
    ("torchvision", "mobilenet_v2", 64),
    ("torchvision", "mobilenet_v3_small", 64),
    ("timm", "efficientnet_b0", 64),
    ("timm", "tf_mobilenetv3_small_minimal_100", 64),
    ("timm", "mobilenetv4_conv_small", 64),
    ("timm", "mnasnet_small", 64),
    ("timm", "convnext_atto", 64),
    ("timm", "resnet18", 64),
    ("timm", "ghostnet_100", 64),
    ("timm", "fastvit_t8", 64),
    ("timm", "levit_128s", 224),
    ("timm", "tiny_vit_5m_224", 224),
]


@pytest.mark.parametrize("package, name, size", BLOCKS)
def test_blocks(package, name, size):
    """As near to float64 as float32 is, within a few roundings."""
    model = lively(made(package, name).double(), size).float()
    exact, reports = copy.deepcopy(model).double(), []
    with torch.no_grad():
        fused = fuse(model, torch.randn(1, 3, size, size), report=reports.append)
        for batch in (1, 3):
            image = torch.randn(batch, 3, size, size)
            true, plain, ours = exact(image.double()), model(image), fused(image)
            noise = (plain - true).norm() / true.norm()
            assert (ours - true).norm() / true.norm() < max(16 * noise, 4e-6) and ours.stride() == plain.stride()
    assert reports[0].blocks and "aten.conv2d" not in fused.code and "aten.linear" not in fused.code


@pytest.mark.parametrize("package, name, size", FUSED)
def test_backend(package, name, size):
    """Of torch.compile: the same blocks, for each batch, and again after the weights have changed. As near as fuse."""
    model, reports = lively(made(package, name), size), []
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="torch_dwconv", options={"report": reports.append})

    def check(input):
        true, plain = copy.deepcopy(model).double()(input.double()), model(input)
        noise = (plain - true).norm() / true.norm()
        for _ in range(3):
            assert (compiled(input) - true).norm() / true.norm() < max(16 * noise, 4e-6)

    with torch.no_grad():
        check(torch.randn(1, 3, size, size))
        check(torch.randn(3, 3, size, size))
        for parameter in model.parameters():
            parameter.mul_(1.02)
        check(torch.randn(3, 3, size, size))
    assert sum(len(report.blocks) for report in reports) > 10


def test_fuse_of_features():
    timm = pytest.importorskip("timm")
    extractor = lively(timm.create_model("mobilenetv3_small_050", pretrained=False, features_only=True))
    input = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(fuse(convert(extractor), input)(input), extractor(input), rtol=1e-4, atol=1e-4)


def test_feature_extractors():
    """torchvision's and timm's, both of which trace by torch.fx, give what they give of the plain model."""
    pytest.importorskip("torchvision")
    from torchvision.models.feature_extraction import create_feature_extractor

    model = lively(made("torchvision", "mobilenet_v2"))
    input = torch.randn(1, 3, 64, 64)
    nodes = ["features.3.conv.1", "features.18"]
    expected = create_feature_extractor(model, nodes)(input)
    torch.testing.assert_close(create_feature_extractor(convert(model), nodes)(input), expected, rtol=1e-4, atol=1e-4)

    timm = pytest.importorskip("timm")
    extractor = timm.create_model("mobilenetv3_small_050", pretrained=False, features_only=True).eval()
    expected = extractor(input)
    torch.testing.assert_close(convert(extractor)(input), expected, rtol=1e-4, atol=1e-4)


def test_symbolic_trace_of_a_whole_model():
    model = convert(lively(made("torchvision", "efficientnet_b0")))
    input = torch.randn(1, 3, 64, 64)
    assert_near(torch.fx.symbolic_trace(model)(input), model(input), 1e-6)


@pytest.mark.parametrize("package, name", [("torchvision", "mobilenet_v2"), ("timm", "tf_efficientnet_b0")])
def test_checkpoints_load_both_ways(package, name, tmp_path):
    """As they are published: a state_dict in a file, read with weights_only."""
    theirs, ours = lively(made(package, name)), convert(lively(made(package, name)))
    input = torch.randn(1, 3, 64, 64)
    for source, target in [(theirs, ours), (ours, theirs)]:
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.mul_(1.01)
        torch.save(source.state_dict(), tmp_path / "checkpoint.pt")
        target.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
        assert_near(target(input), source(input), 1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = convert(lively(made("torchvision", "mobilenet_v2")))
    input = torch.randn(1, 3, 64, 64)
    expected = model(input)
    output = model.to(dtype).to(memory_format=torch.channels_last)(input.to(dtype))
    assert_near(output.float(), expected, 0.15)  # fifty layers of rounding


def test_meta_initialisation():
    with torch.device("meta"):
        model = convert(made("torchvision", "mobilenet_v2").eval())
    assert model(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)
    source = lively(made("torchvision", "mobilenet_v2"))
    model.load_state_dict(source.state_dict(), assign=True)
    input = torch.randn(1, 3, 64, 64)
    assert_near(model(input), source(input), 1e-4)


@pytest.mark.parametrize("name, norms", [("efficientnet_b0", 49), ("mobilenetv3_small_100", 34), ("resnet18", 20)])
def test_blocks_in_training(name, norms):
    """convert(blocks=True): timm's BatchNormAct2d too, where resnet18 has nn.BatchNorm2d; and revert."""
    plain = made("timm", name).double().train()
    ours, reports, input = copy.deepcopy(plain), [], torch.randn(3, 3, 64, 64, dtype=torch.float64)
    convert(ours, blocks=True, report=reports.append)
    assert sum(isinstance(module, BatchNormAct2d) for module in ours.modules()) == norms
    assert not any("BatchNorm" in reason for reason in reports[0].left.values())
    results = []
    for model in (ours, plain):
        torch.manual_seed(0)  # of dropout
        loss = nn.functional.cross_entropy(model(input), torch.arange(3))
        results.append(
            {
                "loss": loss,
                **dict(
                    zip(dict(model.named_parameters()), torch.autograd.grad(loss, [*model.parameters()]), strict=True)
                ),
            }
        )
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    torch.testing.assert_close(ours.eval()(input), plain.eval()(input))
    assert repr(revert(ours)) == repr(plain)


def test_norms_of_timm_for_other_uses():
    """Frozen ones and those of several processes, made of a converted model by timm."""
    timm = pytest.importorskip("timm")
    model = convert(lively(made("timm", "mobilenetv3_small_050")), blocks=True)
    input = torch.randn(1, 3, 64, 64)
    expected, reports = model(input), []
    frozen = timm.layers.freeze_batch_norm_2d(copy.deepcopy(model))
    torch.testing.assert_close(frozen(input), expected, rtol=1e-4, atol=1e-4)
    convert(frozen, blocks=True, report=reports.append)
    assert "FrozenBatchNormAct2d, whose statistics are constants" in reports[0].left.values()
    convert(timm.layers.convert_sync_batchnorm(model), blocks=True, report=reports.append)
    assert any("SyncBatchNormAct, not nn.BatchNorm2d itself" in reason for reason in reports[1].left.values())

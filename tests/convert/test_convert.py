"""convert: what it swaps, what it leaves and says so, and what must survive."""

import copy
import functools
import io
import pickle

import pytest
import torch
from torch import nn

from torch_dwconv import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    convert,
    revert,
)


def swapped(model) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, DepthwiseConv2d)]


def conversion_report(model):
    reports = []
    convert(model, report=reports.append)
    (report,) = reports
    return report


def test_swaps_every_depthwise_layer_in_place(toy, toy_depthwise, image, run):
    expected = run(copy.deepcopy(toy), image)
    objects = {name: id(value) for name, value in [*toy.named_modules(), *toy.named_parameters()]}
    keys = list(toy.state_dict())
    assert convert(toy) is toy
    assert swapped(toy) == toy_depthwise
    assert {name: id(value) for name, value in [*toy.named_modules(), *toy.named_parameters()]} == objects
    assert list(toy.state_dict()) == keys
    torch.testing.assert_close(run(toy, image), expected, rtol=1e-11, atol=1e-11)


def test_root_may_be_the_layer(image, run):
    layer = nn.Conv2d(3, 6, 3, groups=3, dtype=torch.float64)
    expected = run(layer, image)
    report = conversion_report(layer)
    assert isinstance(layer, DepthwiseConv2d) and report.swapped == [""]
    assert "(the model)" in str(report)
    torch.testing.assert_close(run(layer, image), expected)


def test_converting_twice_changes_nothing(toy, toy_depthwise):
    convert(toy)
    report = conversion_report(toy)
    assert report.swapped == [] and swapped(toy) == toy_depthwise
    assert all(report.left[name] == "already a DepthwiseConv2d" for name in toy_depthwise)


def test_a_model_must_be_a_module():
    with pytest.raises(TypeError, match=r"model must be an nn\.Module, got Tensor"):
        convert(torch.zeros(1))


class Scaled(nn.Conv2d):
    """A subclass that computes something else."""

    def forward(self, input):
        return 2 * super().forward(input)


def replaced_on_instance(method, cls=nn.Conv2d):
    layer = cls(4, 4, 3, groups=4)
    setattr(layer, method, functools.partial(getattr(layer, method)))
    return layer


@pytest.mark.parametrize(
    "layer, reason",
    [
        (nn.Conv2d(4, 8, 3), "groups=1, an ordinary convolution"),
        (nn.Conv2d(1, 1, 3), "groups=1, an ordinary convolution"),
        (nn.Conv2d(4, 8, 3, groups=2), "groups=2 with in_channels=4, grouped but not depthwise"),
        (nn.Conv1d(4, 8, 3), "groups=1, an ordinary convolution"),
        (nn.ConvTranspose2d(4, 8, 3, groups=2), "groups=2 with in_channels=4, grouped but not depthwise"),
        (nn.Conv3d(4, 4, 3, groups=4), "Conv3d, not a 1-D or 2-D convolution"),
        (nn.ConvTranspose3d(4, 4, 3, groups=4), "ConvTranspose3d, not a 1-D or 2-D convolution"),
        (nn.LazyConv2d(4, 3, groups=4), "LazyConv2d has no channels yet: run the model once, then convert"),
        (Scaled(4, 4, 3, groups=4), "Scaled, a subclass of nn.Conv2d that may compute something else"),
        (replaced_on_instance("_conv_forward"), "its _conv_forward was replaced on the instance"),
        (replaced_on_instance("forward", nn.ConvTranspose2d), "its forward was replaced on the instance"),
        (replaced_on_instance("forward", Scaled), "its forward was replaced on the instance"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_leaves_and_says_why(layer, reason):
    cls = type(layer)
    report = conversion_report(nn.ModuleDict({"layer": layer}))
    assert type(layer) is cls
    assert report.swapped == [] and list(report.left) == ["layer"]
    assert report.left["layer"].endswith(reason)


KINDS = {
    nn.Conv1d: (DepthwiseConv1d, (2, 3, 20)),
    nn.Conv2d: (DepthwiseConv2d, (2, 3, 20, 18)),
    nn.ConvTranspose1d: (DepthwiseConvTranspose1d, (2, 3, 20)),
    nn.ConvTranspose2d: (DepthwiseConvTranspose2d, (2, 3, 20, 18)),
}


@pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": 1, "dilation": 2, "bias": False}])
def test_every_kind_of_layer_is_swapped_and_reverted(cls, options, run):
    ours, shape = KINDS[cls]
    model = nn.Sequential(cls(3, 6, 3, groups=3, dtype=torch.float64, **options))
    input = torch.randn(shape, dtype=torch.float64)
    expected, keys, before = run(copy.deepcopy(model), input), list(model.state_dict()), dict(vars(model[0]))
    report = conversion_report(model)
    assert report.swapped == ["0"] and report.left == {}
    assert isinstance(model[0], ours) and repr(model[0]).startswith(ours.__name__ + "(3, 6,")
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(run(model, input), expected, rtol=1e-12, atol=1e-12)
    assert conversion_report(model).left == {"0": f"already a {ours.__name__}"}
    revert(model)
    assert type(model[0]) is cls and vars(model[0]) == before
    torch.testing.assert_close(run(model, input), expected, rtol=0, atol=0)


def test_a_transposed_layer_keeps_output_size():
    layer = nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, groups=4)
    input = torch.randn(1, 4, 7, 7)
    expected = layer(input, output_size=(14, 13))
    torch.testing.assert_close(convert(layer)(input, output_size=(14, 13)), expected)


def test_report_reads_well(toy, capsys):
    convert(toy, report=print)
    assert capsys.readouterr().out.splitlines() == [
        "swapped: 2",
        "  block.0",
        "  multiplied",
        "left: 3",
        "  groups=1, an ordinary convolution: stem, block.3",
        "  groups=4 with in_channels=8, grouped but not depthwise: grouped",
    ]


def test_lazy_layer_converts_after_its_first_run():
    model = nn.Sequential(nn.LazyConv2d(4, 3, groups=4))
    convert(model)(torch.zeros(1, 4, 5, 5))
    assert isinstance(convert(model)[0], DepthwiseConv2d)


def test_flags_survive(toy):
    toy.eval()
    toy.multiplied.train()
    toy.multiplied.weight.requires_grad_(False)
    convert(toy)
    assert not toy.block[0].training and toy.multiplied.training
    assert not toy.multiplied.weight.requires_grad and toy.multiplied.bias.requires_grad


def test_hooks_survive(toy, image):
    calls = []
    layer = toy.multiplied
    layer.register_forward_pre_hook(lambda module, args: calls.append("pre"))
    layer.register_forward_hook(lambda module, args, output: calls.append("forward"))
    layer.register_full_backward_hook(lambda module, grad_input, grad_output: calls.append("backward"))
    layer.register_state_dict_post_hook(lambda module, *rest: calls.append("state_dict"))
    layer.weight.register_hook(lambda grad: calls.append("weight"))
    convert(toy)(image).sum().backward()
    toy.state_dict()
    assert sorted(calls) == sorted(["pre", "forward", "backward", "state_dict", "weight"])
    assert calls[:2] == ["pre", "forward"]


def test_an_optimizer_made_before_still_trains(toy, image):
    optimizer = torch.optim.SGD(toy.parameters(), lr=0.1)
    convert(toy)
    before = toy.multiplied.weight.detach().clone()
    toy(image).square().sum().backward()
    gradient = toy.multiplied.weight.grad.clone()
    optimizer.step()
    torch.testing.assert_close(toy.multiplied.weight.detach(), before - 0.1 * gradient)


def test_tied_weights_stay_tied_and_shared_layers_stay_shared(image, run):
    first, second = (nn.Conv2d(3, 3, 3, padding=1, groups=3, dtype=torch.float64) for _ in range(2))
    second.weight = first.weight
    model = nn.Sequential(first, second, first)
    expected = run(copy.deepcopy(model), image)
    report = conversion_report(model)
    assert report.swapped == ["0", "1"]
    assert model[0] is model[2] and model[0].weight is model[1].weight
    assert all(isinstance(layer, DepthwiseConv2d) for layer in model)
    torch.testing.assert_close(run(model, image), expected)


def test_state_dicts_load_in_both_directions(toy, image):
    plain = copy.deepcopy(toy)
    convert(toy)
    with torch.no_grad():
        toy.multiplied.weight.mul_(2)
    plain.load_state_dict(toy.state_dict())
    torch.testing.assert_close(plain(image), toy(image))
    with torch.no_grad():
        plain.multiplied.weight.mul_(3)
    toy.load_state_dict(plain.state_dict())
    torch.testing.assert_close(plain(image), toy(image))


@pytest.mark.parametrize("copied", ["deepcopy", "copy", "pickle", "torch.save"])
def test_a_converted_model_copies(toy, toy_depthwise, image, copied):
    convert(toy)
    if copied == "deepcopy":
        twin = copy.deepcopy(toy)
    elif copied == "copy":
        twin = copy.copy(toy)
        twin.block = nn.Sequential(copy.copy(toy.block[0]), *toy.block[1:])
    elif copied == "pickle":
        twin = pickle.loads(pickle.dumps(toy))
    else:
        file = io.BytesIO()
        torch.save(toy, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    assert swapped(twin) == toy_depthwise and type(twin.multiplied) is type(toy.multiplied)
    assert torch.equal(twin.eval()(image), toy.eval()(image))
    assert type(revert(twin).multiplied) is nn.Conv2d


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("convert_first", [True, False])
def test_moves_to_a_dtype_and_channels_last(toy, image, dtype, convert_first):
    expected = toy.eval()(image)
    if convert_first:
        convert(toy)
    toy.to(dtype).to(memory_format=torch.channels_last)
    convert(toy)
    assert toy.multiplied.weight.dtype == dtype
    assert toy.multiplied.weight.is_contiguous(memory_format=torch.channels_last)
    features = []
    toy.multiplied.register_forward_hook(lambda module, args, output: features.append(output))
    output = toy(image.to(dtype))
    assert features[0].is_contiguous(memory_format=torch.channels_last)
    # Every one of the model's half a dozen layers rounds to dtype.
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_converts_on_the_meta_device(toy_depthwise, toy):
    model = convert(copy.deepcopy(toy).to("meta"))
    assert swapped(model) == toy_depthwise
    assert model(torch.empty(2, 3, 20, 18, dtype=torch.float64, device="meta")).shape == (2, 5)
    model.to_empty(device="cpu").load_state_dict(toy.state_dict())
    image = torch.randn(1, 3, 20, 18, dtype=torch.float64)
    torch.testing.assert_close(model.eval()(image), toy.eval()(image))


def test_fx_symbolic_trace(toy, image):
    traced = torch.fx.symbolic_trace(convert(toy))
    assert {"block.0", "multiplied"} <= {node.target for node in traced.graph.nodes if node.op == "call_module"}
    assert torch.equal(traced.eval()(image), toy.eval()(image))


def test_a_traced_graph_converts(toy, toy_depthwise, image):
    traced = torch.fx.symbolic_trace(toy)
    expected = traced.eval()(image)
    assert swapped(convert(traced)) == toy_depthwise
    torch.testing.assert_close(traced(image), expected)


def test_torch_compile(toy, image, run):
    convert(toy)
    expected = run(copy.deepcopy(toy), image)
    compiled = torch.compile(toy, backend="aot_eager", fullgraph=True)
    input = image.clone().requires_grad_()
    output = compiled(input)
    output.square().sum().backward()
    actual = {"output": output.detach(), "input": input.grad, **{n: p.grad for n, p in toy.named_parameters()}}
    torch.testing.assert_close(actual, expected)


def test_converting_a_compiled_model_recompiles_it(toy, toy_depthwise, image):
    compiled = torch.compile(toy.eval(), backend="aot_eager")
    expected = compiled(image)
    convert(compiled)
    assert swapped(toy) == toy_depthwise
    torch.testing.assert_close(compiled(image), expected)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_torch_jit_trace(toy, image):
    convert(toy).eval()
    traced = torch.jit.trace(toy, image)
    torch.testing.assert_close(traced(image), toy(image))


def test_a_layer_edited_before_conversion(image, run):
    """nn.Conv2d goes on to pad by what `padding` was when the layer was made."""
    layer = nn.Conv2d(3, 3, 3, padding=2, groups=3, dtype=torch.float64)
    layer.padding_mode, layer.padding, layer.stride = "reflect", (1, 1), 2
    expected = run(copy.deepcopy(layer), image)
    torch.testing.assert_close(run(convert(layer), image), expected)
    assert (revert(layer).padding, layer.stride) == ((1, 1), 2)


def test_a_layer_made_anew_in_place():
    layer = convert(nn.Conv2d(4, 4, 3, groups=4))
    layer.__init__(4, 8, 3)
    assert type(layer) is nn.Conv2d and layer.groups == 1 and layer(torch.zeros(1, 4, 5, 5)).shape == (1, 8, 3, 3)

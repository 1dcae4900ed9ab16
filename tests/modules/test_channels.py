"""A layer refuses input whose channels are not its own, by every entrance, as nn.Conv2d does."""

import copy
import itertools

import pytest
import torch
from torch import nn

from torch_dwconv import (
    DepthwiseConv1d,
    DepthwiseConv2d,
    DepthwiseConvTranspose1d,
    DepthwiseConvTranspose2d,
    SeparableConv1d,
    SeparableConv2d,
    convert,
    revert,
)


class Subclass(nn.Conv2d):
    """One that computes what nn.Conv2d does."""


# Each for 8 channels.
LAYERS = {
    "2-D": lambda: DepthwiseConv2d(8, 8, 3),
    "2-D, multiplier": lambda: DepthwiseConv2d(8, 16, 3, padding=1, activation="relu"),
    "2-D, same": lambda: DepthwiseConv2d(8, 8, 3, stride=2, padding="same"),
    "2-D, reflect": lambda: DepthwiseConv2d(8, 8, 3, padding=1, padding_mode="reflect"),
    "2-D, sides": lambda: DepthwiseConv2d(8, 8, 3, padding=((1, 0), (0, 1))),
    "1-D": lambda: DepthwiseConv1d(8, 8, 3),
    "1-D, causal": lambda: DepthwiseConv1d(8, 16, 3, padding=(2, 0)),
    "separable 2-D": lambda: SeparableConv2d(8, 4, 3),
    "separable 1-D": lambda: SeparableConv1d(8, 4, 3, channel_multiplier=2),
    "transposed 2-D": lambda: DepthwiseConvTranspose2d(8, 16, 3, stride=2),
    "transposed 1-D": lambda: DepthwiseConvTranspose1d(8, 8, 3, padding=1),
    "converted 1-D": lambda: convert(nn.Conv1d(8, 16, 3, groups=8)),
    "converted transposed 2-D": lambda: convert(nn.ConvTranspose2d(8, 8, 3, groups=8)),
    "converted transposed 1-D": lambda: convert(nn.ConvTranspose1d(8, 8, 3, groups=8)),
    "converted subclass": lambda: convert(Subclass(8, 8, 3, groups=8)),
    "converted 2-D": lambda: convert(nn.Conv2d(8, 16, 3, groups=8)),
    "converted in a model": lambda: convert(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())),
}


def image(name: str, channels: int, dtype=torch.float32) -> torch.Tensor:
    return torch.ones(2, channels, *((9,) if "1-D" in name else (9, 9)), dtype=dtype)


def functional_call(layer, input):
    return torch.func.functional_call(layer, dict(layer.named_parameters()), input)


def jvp(layer, input):
    return torch.func.jvp(layer, (input,), (input,))


ENTRANCES = {
    "eager": lambda layer, input: layer(input),
    "no_grad": lambda layer, input: torch.no_grad()(layer)(input),
    "unbatched": lambda layer, input: layer(input[0]),
    "transposed": lambda layer, input: layer(input.transpose(1, -1).contiguous().transpose(1, -1)),
    "channels_last": lambda layer, input: layer(
        input.to(memory_format=torch.channels_last) if input.dim() == 4 else input
    ),
    "requires_grad": lambda layer, input: layer(input.requires_grad_()),
    "functional_call": functional_call,
    "vmap": lambda layer, input: torch.func.vmap(layer)(input[None]),
    "jvp": jvp,
    "grad": lambda layer, input: torch.func.grad(lambda x: layer(x).sum())(input),
    "autocast": lambda layer, input: torch.autocast("cpu", torch.bfloat16)(layer)(input),
    "meta": lambda layer, input: layer.to("meta")(input.to("meta")),
    "export": lambda layer, input: torch.export.export(layer, (input,)),
    "compile": lambda layer, input: torch.compile(layer, backend="aot_eager", fullgraph=True)(input),
    "trace": lambda layer, input: torch.jit.trace(layer, input),
    "script": lambda layer, input: torch.jit.script(layer)(input),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", LAYERS)
def test_other_channels_are_refused(name, entrance):
    torch._dynamo.reset()
    for channels in (1, 2, 4, 16):
        with pytest.raises(Exception, match=r"(?s)8 channels|8, 1, 3|channels.*8"):
            ENTRANCES[entrance](LAYERS[name](), image(name, channels))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.float8_e5m2])
@pytest.mark.parametrize("name", LAYERS)
def test_of_every_dtype(name, dtype):
    layer = LAYERS[name]().to(torch.float32 if dtype == torch.float8_e5m2 else dtype)
    other = "dtype|not implemented" if dtype == torch.float8_e5m2 else "8 channels"
    with pytest.raises((RuntimeError, NotImplementedError), match=f"8 channels|to have 8|{other}"):
        layer(image(name, 1, torch.float32).to(dtype))


@pytest.mark.parametrize("name", [name for name in LAYERS if "separable" not in name and "transposed" not in name])
def test_the_text_names_rule_and_input(name):
    with pytest.raises(
        RuntimeError, match=r"input must have the layer's 8 channels \(groups=8, .*\), got 1 in \(2, 1,"
    ):
        LAYERS[name]()(image(name, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_its_own_channels_are_taken(name):
    assert LAYERS[name]()(image(name, 8)).shape[0] == 2


def plain_and_ours(make_plain):
    plain = make_plain()
    ours = convert(make_plain())
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def prune(layer):
    layer.weight = nn.Parameter(layer.weight[:4].detach())
    layer.bias = nn.Parameter(layer.bias[:4].detach())
    layer.groups = 4


def group(layer):
    layer.groups = 4
    layer.weight = nn.Parameter(torch.linspace(-1, 1, 8 * 2 * 9).reshape(8, 2, 3, 3))


def ungroup(layer):
    layer.groups = 1
    layer.weight = nn.Parameter(torch.linspace(-1, 1, 8 * 8 * 9).reshape(8, 8, 3, 3))


EDITS = {
    "padding_mode and padding": lambda layer: layer.__dict__.update(padding_mode="reflect", padding=(1, 1)),
    "padding_mode": lambda layer: setattr(layer, "padding_mode", "circular"),
    "padding to an int": lambda layer: setattr(layer, "padding", 2),
    "padding to a list": lambda layer: setattr(layer, "padding", [2, 1]),
    "padding to same": lambda layer: setattr(layer, "padding", "same"),
    "stride to an int": lambda layer: setattr(layer, "stride", 2),
    "stride to a list": lambda layer: setattr(layer, "stride", [2, 1]),
    "stride to an int, padding to same": lambda layer: layer.__dict__.update(stride=2, padding="same"),
    "kernel_size to an int": lambda layer: setattr(layer, "kernel_size", 5),
    "dilation": lambda layer: setattr(layer, "dilation", 2),
    "kernel_size": lambda layer: setattr(layer, "kernel_size", (5, 5)),
    "in_channels": lambda layer: setattr(layer, "in_channels", 2),
    "no bias": lambda layer: setattr(layer, "bias", None),
    "half of the channels": prune,
    "fewer groups": lambda layer: setattr(layer, "groups", 4),
    "grouped": group,
    "ordinary": ungroup,
}


CONSTRUCTED = [
    {},
    {"padding": 1},
    {"padding": 1, "padding_mode": "replicate"},
    {"padding": "same", "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "circular", "stride": 2},
]


def pads_by_size(edit, constructed) -> bool:
    """What nn.Conv2d refuses and ours adds: 'same' with a stride, in zeros."""
    return edit == "stride to an int, padding to same" and "padding_mode" not in constructed


@pytest.mark.parametrize(
    "edit, constructed",
    [pair for pair in itertools.product(EDITS, CONSTRUCTED) if not pads_by_size(*pair)],
    ids=str,
)
def test_edited_layers_keep_what_nn_conv2d_does(edit, constructed):
    plain, ours = plain_and_ours(lambda: nn.Conv2d(8, 8, 3, groups=8, **constructed))
    for layer in (plain, ours):
        EDITS[edit](layer)
    compare(plain, ours)
    compare(plain, convert(copy.deepcopy(plain)))
    compare(plain, revert(ours))


def compare(plain, ours):
    for channels in (8, 4, 1):
        input = torch.randn(2, channels, 9, 9)
        try:
            expected = plain(input)
        except RuntimeError:
            with pytest.raises(RuntimeError):
                ours(input)
        else:
            torch.testing.assert_close(ours(input), expected)


@pytest.mark.parametrize("option, value", [("stride", 2), ("dilation", 2), ("padding", 1), ("padding", [2])])
@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_edited_1d_layers(option, value, mode):
    plain, ours = nn.Conv1d(4, 4, 3, padding=1, padding_mode=mode, groups=4), DepthwiseConv1d(4, 4, 3, padding=1)
    ours.padding_mode = mode
    ours.load_state_dict(plain.state_dict())
    for layer in (plain, ours):
        setattr(layer, option, value)
    input = torch.randn(2, 4, 12)
    torch.testing.assert_close(ours(input), plain(input))

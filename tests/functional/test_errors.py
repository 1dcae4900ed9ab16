"""Every wrong argument is refused before any work, by an exception that says what is wrong and what arrived."""

import re

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from torch_dwconv import depthwise_conv2d
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight


def call(input_size=(2, 4, 6, 5), weight_size=(8, 1, 3, 3), bias_size=None, **options):
    bias = None if bias_size is None else torch.ones(bias_size)
    return lambda: depthwise_conv2d(torch.ones(input_size), torch.ones(weight_size), bias, **options)


PADDING_FORMS = "an int, (h, w), ((top, bottom), (left, right)), 'valid' or 'same'"

REFUSED = {
    "input of rank 2": (call((4, 6)), "input must be (N, C, H, W) or (C, H, W), got (4, 6)"),
    "input of rank 5": (call((1, 1, 4, 6, 6)), "input must be (N, C, H, W) or (C, H, W), got (1, 1, 4, 6, 6)"),
    "no channels": (call((2, 0, 6, 5)), "input must have at least one channel, got (2, 0, 6, 5)"),
    "weight of rank 3": (call(weight_size=(4, 3, 3)), "weight must be (C*M, 1, kernel_h, kernel_w), got (4, 3, 3)"),
    "weight of a full convolution": (
        call(weight_size=(4, 4, 3, 3)),
        "weight must be (C*M, 1, kernel_h, kernel_w), got (4, 4, 3, 3)",
    ),
    "channels that do not match": (
        call(weight_size=(3, 1, 3, 3)),
        "weight must have a multiple of the input's 4 channels at dimension 0, got (3, 1, 3, 3)",
    ),
    "output channels not a multiple": (
        call(weight_size=(6, 1, 3, 3)),
        "weight must have a multiple of the input's 4 channels at dimension 0, got (6, 1, 3, 3)",
    ),
    "no output channels": (
        call(weight_size=(0, 1, 3, 3)),
        "weight must have a multiple of the input's 4 channels at dimension 0, got (0, 1, 3, 3)",
    ),
    "empty kernel": (call(weight_size=(4, 1, 0, 3)), "weight must have a kernel of at least 1 x 1, got (4, 1, 0, 3)"),
    "bias too short": (call(bias_size=(4,)), "bias must be (8,), one value per output channel, got (4,)"),
    "bias of rank 2": (call(bias_size=(8, 1)), "bias must be (8,), one value per output channel, got (8, 1)"),
    "zero stride": (call(stride=0), "stride must be positive, got 0"),
    "negative stride": (call(stride=(1, -2)), "stride must be positive, got (1, -2)"),
    "three strides": (call(stride=(1, 1, 1)), "stride must be an int or (h, w), got (1, 1, 1)"),
    "zero dilation": (call(dilation=(0, 1)), "dilation must be positive, got (0, 1)"),
    "negative dilation": (call(dilation=-1), "dilation must be positive, got -1"),
    "negative padding": (call(padding=(0, -1)), "padding must not be negative, got (0, -1)"),
    "negative padding at one side": (
        call(padding=((0, 0), (0, -1))),
        "padding must not be negative, got ((0, 0), (0, -1))",
    ),
    "three paddings": (call(padding=(1, 1, 1)), f"padding must be {PADDING_FORMS}, got (1, 1, 1)"),
    "three sides": (call(padding=((1, 1, 1), (0, 0))), f"padding must be {PADDING_FORMS}, got (1, 1, 1)"),
    "unknown padding": (call(padding="full"), f"padding must be {PADDING_FORMS}, got 'full'"),
    "kernel higher than the input": (
        call((1, 4, 2, 5)),
        "the kernel must not be larger than the padded input, 2 x 5, got 3 x 3 with dilation",
    ),
    "dilated kernel wider than the padded input": (
        call((1, 4, 9, 5), dilation=4, padding=((0, 0), (1, 2))),
        "the kernel must not be larger than the padded input, 9 x 8, got 9 x 9 with dilation",
    ),
    "another dtype of the weight": (
        lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), torch.ones(4, 1, 3, 3).double()),
        "weight must have the input's dtype torch.float32, got torch.float64",
    ),
    "another dtype of the bias": (
        lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), torch.ones(4, 1, 3, 3), torch.ones(4).half()),
        "bias must have the input's dtype torch.float32, got torch.float16",
    ),
    "another device of the weight": (
        lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), torch.ones(4, 1, 3, 3, device="meta")),
        "weight must be on the input's device cpu, got meta",
    ),
    "another device of the bias": (
        lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), torch.ones(4, 1, 3, 3), torch.ones(4, device="meta")),
        "bias must be on the input's device cpu, got meta",
    ),
    "grad_output of another size": (
        lambda: depthwise_conv2d_input((2, 4, 6, 5), torch.ones(4, 1, 3, 3), torch.ones(2, 4, 6, 5)),
        "grad_output must have the output's size (2, 4, 4, 3), got (2, 4, 6, 5)",
    ),
    "grad_output of another batch": (
        lambda: depthwise_conv2d_weight(torch.ones(2, 4, 6, 5), (4, 1, 3, 3), torch.ones(1, 4, 4, 3)),
        "grad_output must have the output's size (2, 4, 4, 3), got (1, 4, 4, 3)",
    ),
    "grad_output of another dtype": (
        lambda: depthwise_conv2d_weight(torch.ones(2, 4, 6, 5), (4, 1, 3, 3), torch.ones(2, 4, 4, 3).double()),
        "grad_output must have the input's dtype torch.float32, got torch.float64",
    ),
}

WRONG_TYPE = {
    "input": (lambda: depthwise_conv2d([1.0], torch.ones(4, 1, 3, 3)), "input must be a tensor, got list"),
    "weight": (lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), None), "weight must be a tensor, got NoneType"),
    "bias": (
        lambda: depthwise_conv2d(torch.ones(1, 4, 6, 5), torch.ones(4, 1, 3, 3), 1.0),
        "bias must be a tensor, got float",
    ),
    "stride": (call(stride=1.5), "stride must be an int or (h, w), got 1.5"),
    "stride, one entry": (call(stride=(1, "2")), "stride must be an int or (h, w), got (1, '2')"),
    "dilation": (call(dilation=None), "dilation must be an int or (h, w), got None"),
    "padding": (call(padding=None), f"padding must be {PADDING_FORMS}, got None"),
}


class NoWork(TorchDispatchMode):
    """Refuses every operator."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} ran")


def refuse(function, error, text):
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        function()


@pytest.mark.parametrize(("function", "text"), REFUSED.values(), ids=REFUSED)
def test_out_of_range(function, text):
    refuse(function, RuntimeError, text)


@pytest.mark.parametrize(("function", "text"), WRONG_TYPE.values(), ids=WRONG_TYPE)
def test_wrong_type(function, text):
    refuse(function, TypeError, text)


def test_unknown_activation():
    refuse(
        call(activation="tanh"),
        ValueError,
        "activation must be None or one of relu, relu6, hardswish, silu, gelu, gelu_tanh, got 'tanh'",
    )


def test_no_work_is_done_before_the_checks():
    """The last thing that can be wrong, the bias, is found before the first operator runs."""
    input, weight, bias = torch.ones(2, 4, 6, 5), torch.ones(8, 1, 3, 3), torch.ones(4)
    with NoWork(), pytest.raises(RuntimeError, match="bias must be"):
        depthwise_conv2d(input, weight, bias)
    with NoWork(), pytest.raises(ValueError, match="activation must be"):
        depthwise_conv2d(input, weight, activation="tanh")


@pytest.mark.parametrize("name", ["stride", "padding", "dilation"])
def test_an_answer_remembered_for_a_right_call_excuses_no_wrong_one(name):
    """Equal numbers of another type hit the same memory."""
    call(**{name: 1})()
    with pytest.raises(TypeError, match=f"{name} must be"):
        call(**{name: 1.0})()


@pytest.mark.parametrize("size", [(2, 4, 0, 8), (2, 4, 8, 0), (4, 0, 8)])
@pytest.mark.parametrize("padding", [0, 3, "same"])
def test_an_input_may_be_empty_by_its_batch_only(size, padding):
    with pytest.raises(RuntimeError, match=r"input must not be empty but for its batch, got \("):
        depthwise_conv2d(torch.ones(size), torch.ones(4, 1, 3, 3), padding=padding)
    with pytest.raises(RuntimeError):
        F.conv2d(torch.ones(size), torch.ones(4, 1, 3, 3), padding=padding, groups=4)

"""Whatever has no kernel here is computed by F.conv2d, with every form of padding; what has one never is."""

import warnings
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.calls import Call, reference
from torch_dwconv import depthwise_conv2d, explain
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight

CALL = Call(2, 3, 2, (7, 6), (3, 2), stride=(2, 1), padding=((0, 1), (2, 1)), dilation=(1, 2))
SYMMETRIC = CALL._replace(padding=((1, 1), (2, 2)))


class Recorder(TorchDispatchMode):
    """The names of the operators that ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class Watched(torch.Tensor):
    """A subclass that overrides functions, to note which were called."""

    functions: ClassVar[list] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.functions.append(func)
        return super().__torch_function__(func, types, args, kwargs)


class Duck:
    """No tensor at all, but with a convolution of its own."""

    def __init__(self, shape):
        self.shape = shape

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func


@pytest.mark.parametrize("call", [CALL, SYMMETRIC], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.complex128])
def test_other_dtypes(dtype, call):
    input, weight, bias = call.tensors(dtype, integers=True)
    assert torch.equal(
        depthwise_conv2d(input, weight, bias, **call.options), reference(input, weight, bias, **call.options)
    )
    assert str(dtype) in explain(input, weight, bias, **call.options).fallback


def test_gradients_of_a_complex_dtype():
    input, weight, _ = (t.requires_grad_() for t in CALL.tensors(torch.complex128))
    output = depthwise_conv2d(input, weight, **CALL.options)
    gradients = torch.autograd.grad(output, (input, weight), torch.ones_like(output))
    right = torch.autograd.grad(reference(input, weight, **CALL.options), (input, weight), torch.ones_like(output))
    assert all(map(torch.equal, gradients, right))


def test_meta_tensors():
    input, weight, bias = (t.to("meta") for t in CALL.tensors(torch.float32))
    assert depthwise_conv2d(input, weight, bias, **CALL.options).shape == (2, 6, 3, 7)
    assert explain(input, weight, bias, **CALL.options).fallback == "input is on meta"


def test_mkldnn_tensors():
    input, weight, bias = SYMMETRIC.tensors(torch.float32)
    output = depthwise_conv2d(input.to_mkldnn(), weight, bias, **SYMMETRIC.options)
    torch.testing.assert_close(output.to_dense(), reference(input, weight, bias, **SYMMETRIC.options))


def test_sparse_tensors_reach_conv2d():
    """Which refuses them: the error is PyTorch's own."""
    input, weight, bias = SYMMETRIC.tensors(torch.float32)
    messages = []
    for function, options in ((depthwise_conv2d, {}), (F.conv2d, {"groups": 3})):
        with pytest.raises(RuntimeError) as caught:
            function(input.to_sparse(), weight, bias, 1, (1, 2), 1, **options)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_subclass_that_overrides_operators():
    input, weight, bias = CALL.tensors(torch.float32)
    pair = TwoTensor(input, -input)
    output = depthwise_conv2d(pair, weight, bias, **CALL.options)
    assert isinstance(output, TwoTensor)
    torch.testing.assert_close(output.a, reference(input, weight, bias, **CALL.options))
    torch.testing.assert_close(output.b, reference(-input, weight, bias, **CALL.options))


def test_subclass_that_overrides_functions():
    input, weight, bias = SYMMETRIC.tensors(torch.float32)
    Watched.functions.clear()
    output = depthwise_conv2d(input.as_subclass(Watched), weight, bias, **SYMMETRIC.options)
    assert type(output) is Watched and F.conv2d in Watched.functions
    torch.testing.assert_close(output.as_subclass(torch.Tensor), reference(input, weight, bias, **SYMMETRIC.options))


def test_object_with_a_convolution_of_its_own():
    assert depthwise_conv2d(Duck((2, 3, 7, 6)), torch.ones(3, 1, 3, 3), padding="same") is F.conv2d


def test_function_mode_is_no_reason_to_fall_back():
    input, weight, bias = CALL.tensors(torch.float32)
    recorder = Recorder()
    with torch.device("cpu"), recorder:
        depthwise_conv2d(input, weight, bias, **CALL.options)
    assert recorder.names == ["torch_dwconv::forward"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_trace_holds_pytorchs_operators_and_other_sizes():
    """So that a trace, or an exporter built on it, works where this package is not installed."""
    layer = torch.nn.Conv2d(3, 6, 3, groups=3)
    layer._conv_forward = lambda input, weight, bias: depthwise_conv2d(input, weight, bias, 2, ((0, 1), (1, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(layer, torch.randn(1, 3, 8, 9))
    assert "torch_dwconv::" not in str(traced.inlined_graph)
    other = torch.randn(2, 3, 11, 6)
    torch.testing.assert_close(traced(other), layer(other))


def test_gradient_functions():
    input, weight, _ = CALL.tensors(torch.complex128)
    output = reference(input.requires_grad_(), weight.requires_grad_(), **CALL.options)
    grad_output = torch.randn_like(output)
    grad_input, grad_weight = torch.autograd.grad(output, (input, weight), grad_output)
    options = CALL.options
    torch.testing.assert_close(depthwise_conv2d_input(input.shape, weight, grad_output, **options), grad_input)
    torch.testing.assert_close(depthwise_conv2d_weight(input, weight.shape, grad_output, **options), grad_weight)

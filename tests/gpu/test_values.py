"""On a GPU: every operation against float64 on the CPU, integers exactly, and against F.conv2d on the device."""

import random

import pytest
import torch
from torch.nn import functional as F

from tests.calls import DTYPES, FORMATS, Call, assert_close, reference
from tests.gpu.calls import CALLS, reached, wrong
from tests.kernels.shapes import SEED
from tests.layers import cropped, distinct_geometries
from tests.operators.test_never_aten import NoConvolution, forward_and_backward
from torch_dwconv import depthwise_conv2d, explain, kernels
from torch_dwconv.operators.schemas import ACTIVATIONS

LAYERS = [Call.from_layer(cropped(layer, 20_000_000), batch=2) for layer in distinct_geometries()]
RANDOM = [Call.draw(random.Random(f"{SEED} gpu {i}")) for i in range(60)]
NAMES = ("output", "grad_input", "grad_weight", "grad_bias")


def check(call, dtype, memory_format, integers):
    tensors = call.tensors(dtype, integers)
    tensors = (tensors[0].to(memory_format=memory_format), *tensors[1:])
    exact_tensors = [tensor.double() for tensor in tensors]
    shape = reference(*exact_tensors, **call.options).shape
    grad_output = (torch.randint(-2, 3, shape) if integers else torch.randn(shape)).to(dtype)
    exact = forward_and_backward(reference, call, exact_tensors, grad_output)
    on_gpu = [tensor.cuda() for tensor in tensors]
    with NoConvolution():
        watched = forward_and_backward(depthwise_conv2d, call, on_gpu, grad_output.cuda())
    plain, again = (forward_and_backward(depthwise_conv2d, call, on_gpu, grad_output.cuda()) for _ in range(2))
    # The shortcut alone computes both gradients at once, and adds those of the weight in another order.
    fused = explain(*on_gpu, **call.options).both_gradients is not None
    for name, *results in zip(NAMES, watched, plain, again, exact, strict=True):
        assert results[0].device.type == "cuda"
        assert torch.equal(results[1], results[2]), f"{name}: a second run gives other numbers"
        if not fused or name != "grad_weight":
            assert torch.equal(results[0], results[1]), f"{name}: the shortcut gives other numbers"
        for result in results[:2]:
            if integers:
                assert torch.equal(result.cpu(), results[3].to(dtype)), name
            else:
                assert_close(result.cpu(), results[3], name)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", LAYERS, ids=str)
def test_layers(call, dtype, memory_format):
    check(call, dtype, memory_format, integers=False)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("call", RANDOM, ids=str)
def test_random_calls_are_exact_on_integers(call, memory_format):
    for dtype in DTYPES:
        check(call, dtype, memory_format, integers=True)


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_calls_that_reach_every_kernel(call, dtype, memory_format):
    check(call, dtype, memory_format, integers=True)


def test_every_kernel_by_itself():
    """And that it is what is chosen on this device, but for those that are for newer ones."""
    cases = reached()
    assert {name: problem for name, case in cases.items() if (problem := wrong(case, "cuda"))} == {}
    missing = {kernel.name for kernel in kernels("cuda")} - set(cases)
    assert not missing or (torch.cuda.get_device_capability() < (8, 0) and all("toeplitz" in name for name in missing))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype):
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {}
    for call in (LAYERS[0], RANDOM[0]):
        tensors = call.tensors(dtype)
        exact = ACTIVATIONS[activation](reference(*(tensor.double() for tensor in tensors), **call.options))
        with torch.no_grad():
            output = depthwise_conv2d(*(tensor.cuda() for tensor in tensors), **call.options, activation=activation)
        torch.testing.assert_close(output.cpu(), exact.to(dtype), **tolerance)


def test_like_conv2d_on_the_same_device():
    input, weight = torch.randn(8, 64, 28, 28, device="cuda"), torch.randn(64, 1, 5, 5, device="cuda")
    with torch.backends.cudnn.flags(enabled=False):
        expected = F.conv2d(input, weight, None, 1, 2, 1, 64)
    torch.testing.assert_close(depthwise_conv2d(input, weight, padding=2), expected)
    assert explain(input, weight, padding=2).choices["forward"].kernel == "forward_nchw_f32_stream_k5s1_cuda"


def test_explain_sees_the_activation():
    input, weight = torch.randn(8, 64, 32, 32, device="cuda"), torch.randn(64, 1, 3, 3, device="cuda")
    for activation, stride, kernel in [
        ("relu", 1, "stream_k3s1"),
        ("silu", 1, "tiles"),
        ("relu", 2, "stream_k3s2"),
        ("gelu", 2, "window"),
    ]:
        explanation = explain(input, weight, stride=stride, padding=1, activation=activation)
        assert explanation.choices["forward"].kernel == f"forward_nchw_f32_{kernel}_cuda"
        assert explanation.forward_alone == f"forward_nchw_f32_stream_k3s{stride}_cuda"


def test_both_gradients_at_once():
    input, weight = torch.randn(8, 64, 28, 28, device="cuda"), torch.randn(64, 1, 3, 3, device="cuda")
    assert explain(input, weight, padding=1).both_gradients == "backward_nchw_f32_stream_k3s1_cuda"
    assert explain(input, weight, padding=2).both_gradients is None
    assert explain(input.to(memory_format=torch.channels_last), weight, padding=1).both_gradients is None


def moved(tensor, offset):
    """A copy on the GPU, of the same strides, that begins so many elements behind an allocation."""
    whole = torch.full((tensor.numel() + offset,), float("nan"), dtype=tensor.dtype, device="cuda")
    return whole.as_strided(tensor.shape, tensor.stride(), offset).copy_(tensor)


@pytest.mark.parametrize("offset", range(1, 9))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_operands_that_are_aligned_to_their_element_only(dtype, offset):
    call = Call(2, 8, 1, (14, 16), (3, 3), padding=((1, 1), (1, 1)))
    tensors = call.tensors(dtype)
    expected = depthwise_conv2d(*(tensor.cuda() for tensor in tensors), **call.options)
    operands = [moved(tensor, offset) for tensor in tensors]
    torch.testing.assert_close(depthwise_conv2d(*operands, **call.options), expected)


# Of every family of kernels that accesses vectors; at stride 2 sources are read in vectors twice as wide as results.
UNALIGNED = [Call(2, 8, 1, (8, 32), (k, k), (s, s), ((k // 2, k // 2),) * 2) for k in (3, 5, 7) for s in (1, 2)]
UNALIGNED += [Call(3, 700, 1, (7, 7), (k, k), (1, 1), ((k // 2, k // 2),) * 2) for k in (3, 5, 7)]
UNALIGNED += [Call(3, 700, 1, (14, 14), (3, 3), (2, 2), ((1, 1), (1, 1)))]
UNALIGNED += [Call(3, 700, 1, (9, 9), (3, 3), (1, 1), ((1, 1), (1, 1))), Call(1, 4, 1, (9, 24), (9, 9))]


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("call", UNALIGNED, ids=str)
def test_every_storage_offset(call, dtype, memory_format):
    """Of each operand and of all together, by every number of elements up to the widest access of 16 bytes."""
    tensors = call.tensors(dtype, integers=True)
    tensors = (tensors[0].to(memory_format=memory_format), *tensors[1:])
    exact_tensors = [tensor.double() for tensor in tensors]
    grad_output = torch.randint(-2, 3, reference(*exact_tensors, **call.options).shape).to(dtype)
    operands = (*tensors, grad_output.to(memory_format=memory_format))
    exact = forward_and_backward(reference, call, exact_tensors, grad_output)
    expected = [tensor.to(dtype).cuda() for tensor in exact]
    for offset in range(1, 16 // dtype.itemsize):
        for which in ({0}, {1}, {2}, {3}, {0, 1, 2, 3}):
            *inputs, gradient = (moved(tensor, offset if i in which else 0) for i, tensor in enumerate(operands))
            results = forward_and_backward(depthwise_conv2d, call, inputs, gradient)
            for name, *both in zip(NAMES, results, expected, strict=True):
                assert torch.equal(*both), f"{name}, with {which} moved by {offset}"


def test_empty_batch():
    input, weight = torch.empty(0, 8, 9, 9, device="cuda", requires_grad=True), torch.ones(8, 1, 3, 3, device="cuda")
    weight.requires_grad_()
    output = depthwise_conv2d(input, weight)
    gradients = torch.autograd.grad(output.sum(), (input, weight))
    assert output.shape == (0, 8, 7, 7) and gradients[0].shape == input.shape and not gradients[1].any()


@pytest.mark.parametrize("memory_format", FORMATS, ids=["nchw", "nhwc"])
def test_more_than_2_31_elements(memory_format):
    if torch.cuda.mem_get_info()[0] < 16 << 30:
        pytest.skip("needs 16 GiB of free GPU memory")
    shape = (9, 64, 1932, 1932)
    input = torch.zeros(shape, dtype=torch.bfloat16, device="cuda").to(memory_format=memory_format)
    assert input.numel() > 2**31
    input[-1, -1, -1, -1], weight = 3, torch.ones(64, 1, 3, 3, dtype=torch.bfloat16, device="cuda")
    output = depthwise_conv2d(input, weight, padding=1)
    assert output[-1, -1, -2:, -2:].eq(3).all() and output.sum(dtype=torch.float64).item() == 12

"""On a GPU: streams, devices, graphs, compilers and errors."""

import pytest
import torch
from torch.nn import functional as F

import torch_dwconv
from tests.calls import Call
from torch_dwconv import convert, depthwise_conv2d
from torch_dwconv.operators.plain import is_plain

CALL = Call(4, 32, 1, (28, 28), (3, 3), padding=((1, 1), (1, 1)))
GRADIENTS = Call(2, 3, 2, (7, 6), (3, 2), (2, 1), ((0, 1), (2, 1)), (1, 2))


def tensors(call=CALL, dtype=torch.float32, device="cuda"):
    return [tensor.to(device).requires_grad_() for tensor in call.tensors(dtype)]


def step(input, weight, bias):
    output = depthwise_conv2d(input, weight, bias, **CALL.options)
    return output, *torch.autograd.grad(output.square().sum(), (input, weight, bias))


def test_cuda_tensors_take_the_shortcut():
    input, weight, bias = tensors()
    assert is_plain(input, weight, bias)
    with torch.inference_mode():
        assert is_plain(input.clone(), weight)


def test_the_self_test_covers_the_gpu():
    diagnosis = torch_dwconv.diagnose()
    assert diagnosis.ok, str(diagnosis)
    assert "cuda:0" in {test.device for test in diagnosis.tests}


def test_the_current_stream_is_used():
    """The input is written late on a stream of its own: a call on another stream would read it too early."""
    input, weight, bias = tensors()
    expected = depthwise_conv2d(input + 1, weight, bias, **CALL.options)
    late = input.detach().clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        late += 1
        output = depthwise_conv2d(late, weight, bias, **CALL.options)
    stream.synchronize()
    assert torch.equal(output, expected)


def test_nothing_waits_for_the_device():
    arguments = tensors()
    step(*arguments)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_training_step_is_captured_in_a_graph():
    arguments = tensors()
    expected = step(*arguments)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(*arguments)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(*arguments)
    with torch.no_grad():
        arguments[0].mul_(2)
    graph.replay()
    doubled = step(*arguments)
    assert all(map(torch.equal, captured, doubled)) and not torch.equal(captured[0], expected[0])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_device_is_the_tensors_and_not_the_current_one():
    with torch.cuda.device(0):
        output, *_ = step(*tensors(device="cuda:1"))
        assert output.device.index == 1 and torch.cuda.current_device() == 0


def test_autocast():
    input, weight, bias = tensors()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        output = depthwise_conv2d(input, weight, bias, **CALL.options)
        expected = F.conv2d(input, weight, bias, 1, 1, 1, CALL.channels)
    assert output.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(output, expected, rtol=2e-2, atol=2e-2)
    output.float().sum().backward()
    assert input.grad.dtype == torch.float32


def test_gradients_of_second_order():
    arguments = tensors(GRADIENTS, torch.float64)

    def function(*operands):
        return depthwise_conv2d(*operands, **GRADIENTS.options)

    assert torch.autograd.gradcheck(function, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, arguments)


def test_compiled(fresh_compiler):
    model = convert(torch.nn.Sequential(torch.nn.Conv2d(16, 16, 3, padding=1, groups=16), torch.nn.ReLU())).cuda()
    input = torch.randn(2, 16, 14, 14, device="cuda", requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(input), model(input))
    compiled(input).sum().backward()
    assert input.grad.isfinite().all()


def test_operands_on_two_devices_are_refused():
    input, weight, _ = tensors()
    with pytest.raises(RuntimeError, match="weight must be on the input's device cuda:0, got cpu"):
        depthwise_conv2d(input, weight.cpu())
    with pytest.raises(RuntimeError, match="must be on the CUDA device of the other operands"):
        torch.ops.torch_dwconv.forward(input, weight.cpu(), None, 28, 28, 1, 1, 1, 1, 1, 1, False)


def test_out_of_memory_is_pytorchs_own_error():
    # 4 MiB of weights and a row of input make an output of more than the device has.
    rows = torch.cuda.mem_get_info()[1] // 4 // (1 << 20) + 1
    input = torch.zeros(1, 1, 1, 1, device="cuda").expand(1, 1, rows, 1 << 20)
    weight = torch.ones(2, 1, 1, 1, device="cuda")
    with pytest.raises(torch.OutOfMemoryError):
        depthwise_conv2d(input, weight)
    assert torch.equal(depthwise_conv2d(torch.ones(1, 1, 2, 2, device="cuda"), weight), torch.ones(1, 2, 2, 2).cuda())


def test_layouts_are_kept():
    for memory_format in (torch.contiguous_format, torch.channels_last):
        input, weight, bias = tensors()
        input = input.detach().to(memory_format=memory_format).requires_grad_()
        output, grad_input, *_ = step(input, weight, bias)
        assert output.is_contiguous(memory_format=memory_format)
        assert grad_input.is_contiguous(memory_format=memory_format)

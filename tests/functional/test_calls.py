"""What a call can look like: ranks, forms of padding, autocast, inference mode, empty and huge tensors."""

import itertools
import re
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from tests.calls import DTYPES, FORMATS, Call, assert_close, reference
from torch_dwconv import depthwise_conv2d
from torch_dwconv.functional.rules import resolve_padding
from torch_dwconv.operators.plain import is_plain


def test_unbatched_input():
    call = Call(1, 3, 2, (7, 6), (3, 3), padding=((1, 1), (1, 1)))
    input, weight, bias = call.tensors(torch.float64)
    output = depthwise_conv2d(input[0], weight, bias, **call.options)
    assert_close(output, reference(input, weight, bias, **call.options)[0])


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        ((1,), ((1, 1), (1, 1))),
        (((0, 1), (2, 3)), ((0, 1), (2, 3))),
        ([[0, 1], [2, 3]], ((0, 1), (2, 3))),
        (torch.Size((1, 2)), ((1, 1), (2, 2))),
        ("valid", ((0, 0), (0, 0))),
    ],
    ids=str,
)
def test_forms_of_padding(padding, sides):
    input, weight, bias = Call(2, 3, 1, (7, 6), (3, 4)).tensors(torch.float64)
    assert_close(depthwise_conv2d(input, weight, bias, padding=padding), reference(input, weight, bias, padding=sides))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("kernel", "dilation"), list(itertools.product([(3, 3), (4, 2), (1, 5)], [1, 2])))
def test_same_at_stride_one_is_conv2ds(kernel, dilation):
    input, weight, bias = Call(2, 3, 1, (9, 8), kernel).tensors(torch.float64)
    output = depthwise_conv2d(input, weight, bias, padding="same", dilation=dilation)
    assert_close(output, F.conv2d(input, weight, bias, padding="same", dilation=dilation, groups=3))


@pytest.mark.parametrize("size", range(1, 12))
def test_same_at_larger_strides_is_tensorflows(size):
    """Against TensorFlow's own formula, https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2."""
    for kernel, stride, dilation in itertools.product((1, 2, 3, 5), (2, 3), (1, 2)):
        reach = (kernel - 1) * dilation + 1
        total = max(reach - (stride if size % stride == 0 else size % stride), 0)
        top, bottom, left, right = resolve_padding("same", (size, size), (kernel, kernel), stride, dilation)
        assert (top, bottom) == (left, right) == (total // 2, total - total // 2)
        input, weight, _ = Call(1, 2, 1, (size, size), (kernel, kernel)).tensors(torch.float64)
        output = depthwise_conv2d(input, weight, None, stride, "same", dilation)
        assert output.shape[2:] == (-(-size // stride),) * 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("memory_format", FORMATS)
def test_empty_batch(dtype, memory_format):
    input, weight, bias = (t.requires_grad_() for t in Call(0, 3, 2, (7, 6), (3, 3)).tensors(dtype))
    output = depthwise_conv2d(input.to(memory_format=memory_format), weight, bias)
    assert output.shape == (0, 6, 5, 4)
    gradients = torch.autograd.grad(output, (input, weight, bias), torch.ones_like(output))
    assert gradients[0].shape == input.shape
    assert not any(gradient.any() for gradient in gradients[1:])
    assert [g.shape for g in gradients] == [t.shape for t in (input, weight, bias)]


@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "dtypes",
    [(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.float16, torch.float32)],
    ids=str,
)
def test_autocast(dtypes, autocast_dtype):
    input, weight, bias = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float64)
    tensors = (input.to(dtypes[0]).requires_grad_(), weight.to(dtypes[1]).requires_grad_(), bias.to(dtypes[1]))
    with torch.autocast("cpu", autocast_dtype):
        output = depthwise_conv2d(*tensors)
    assert_close(output, F.conv2d(*(t.to(autocast_dtype).double() for t in tensors), groups=3))
    assert output.dtype == autocast_dtype
    assert [g.dtype for g in torch.autograd.grad(output.sum(), tensors[:2])] == list(dtypes)


def test_autocast_leaves_float64():
    tensors = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert depthwise_conv2d(*tensors).dtype == torch.float64
        with pytest.raises(RuntimeError, match="weight must have the input's dtype"):
            depthwise_conv2d(tensors[0], tensors[1].float())


def test_autocast_of_another_device_changes_nothing():
    tensors = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float32)
    with torch.autocast("cuda", torch.float16, enabled=torch.cuda.is_available()):
        assert depthwise_conv2d(*tensors).dtype == torch.float32


def test_inference_mode():
    input, weight, bias = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float64)
    weight.requires_grad_()
    with torch.inference_mode():
        output = depthwise_conv2d(input.clone(), weight, bias)
        again = depthwise_conv2d(output, weight)
    assert output.is_inference() and again.is_inference() and not output.requires_grad
    assert_close(output, F.conv2d(input, weight, bias, groups=3).detach())


def test_lazily_negated_and_conjugated_operands():
    base = torch.randn(1, 3, 7, 6, dtype=torch.complex128)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.complex128)
    negated, negated_weight = base.conj().imag, weight.conj().imag
    assert negated.is_neg() and negated_weight.is_neg()
    assert_close(depthwise_conv2d(negated, negated_weight), F.conv2d(negated, negated_weight, groups=3))


@pytest.mark.parametrize("failing", ["result", "operand"])
def test_out_of_memory_is_pytorchs_own_error(failing):
    """Sizes that no machine has memory for: 4 TiB and more."""
    side = 2**20
    if failing == "result":
        input, padding = torch.zeros(1, 1, 1, 1), side
    else:  # the output is small, but the kernels need the expanded input dense
        input, padding = torch.zeros(1, 1, 1, 1).expand(1, 1, side, side), 0
    with pytest.raises(RuntimeError, match=r"not enough memory|can't allocate memory"):
        depthwise_conv2d(input, torch.ones(1, 1, 1, 1), stride=1 if failing == "result" else side, padding=padding)


def test_out_of_memory_for_a_workspace():
    """In channels_last the weights are packed, one channel to a whole vector: many times the memory of the operands."""
    program = """
import resource, torch
from torch_dwconv.operators.schemas import FORWARD
taps = 2**24
operands = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, taps), None
resource.setrlimit(resource.RLIMIT_AS, (int(open("/proc/self/statm").read().split()[0]) * 4096 + 2**27,) * 2)
try:
    FORWARD(*operands, 1, 1, 1, 1, 0, taps - 1, 1, 1, True)
except RuntimeError as error:
    print(error)
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert re.search(r"not enough memory|can't allocate memory", output), output


def test_traced_by_fx_as_one_node():
    def model(input, weight, bias):
        return depthwise_conv2d(input, weight, bias, 2, padding="same", activation="relu6") + 1

    traced = torch.fx.symbolic_trace(model)
    assert depthwise_conv2d in {node.target for node in traced.graph.nodes}
    tensors = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float32)
    assert torch.equal(traced(*tensors), model(*tensors))


def test_profiler_shows_the_operator():
    tensors = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile, torch.no_grad():
        depthwise_conv2d(*tensors)
    assert "torch_dwconv::forward" in {event.name for event in profile.events()}


def test_plain_calls_take_the_shortcut():
    """The dispatch keys by which autograd.is_plain knows plain tensors are those of this PyTorch."""
    input, weight, bias = Call(2, 3, 1, (7, 6), (3, 3)).tensors(torch.float32)
    assert is_plain(input, torch.nn.Parameter(weight), bias) and is_plain(input, weight)
    with torch.inference_mode():
        assert is_plain(input.clone(), weight)
    with torch.autocast("cpu"):
        assert is_plain(input, weight)

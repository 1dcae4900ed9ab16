"""CUDA tensors without a GPU: which library is loaded, who computes and why, and what is traced. Tensors are fake."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.calls import Call
from tests.functional.test_fallback import Recorder
from torch_dwconv import (
    DepthwiseConv2d,
    depthwise_conv2d,
    explain,
    introspect,
    kernels,
)
from torch_dwconv.functional.convolution import _plan
from torch_dwconv.grad import depthwise_conv2d_input, depthwise_conv2d_weight
from torch_dwconv.operators import eager, native
from torch_dwconv.operators import plain as plain_eager
from torch_dwconv.operators.schemas import DTYPES

CALL = Call(2, 6, 2, (9, 8), (3, 5), (2, 1), ((1, 2), (0, 2)), (1, 2))
OPERATORS = [f"torch_dwconv::{name}" for name in ("forward", "grad_input", "grad_weight")]


def pretend(monkeypatch, cuda="13.0", hip=None):
    """A PyTorch of that CUDA, whose libraries are opened by naming them."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip, raising=False)
    monkeypatch.setattr(native, "_open", lambda path, prototypes: path.name)


@pytest.fixture
def libraries(tmp_path):
    for major in (12, 13):
        (tmp_path / f"libtorch_dwconv_cuda{major}.so").touch()
    return tmp_path


@pytest.mark.parametrize("cuda, major", [("12.8", 12), ("13.0", 13), ("13.4", 13)])
def test_the_library_of_pytorchs_major_version_is_loaded(monkeypatch, libraries, cuda, major):
    pretend(monkeypatch, cuda)
    assert native.load_cuda(libraries) == f"libtorch_dwconv_cuda{major}.so"


def test_a_library_of_another_major_version_is_not_loaded(monkeypatch, libraries):
    pretend(monkeypatch, "14.1")
    assert native.load_cuda(libraries) == "torch_dwconv is built for CUDA 12 and 13, and PyTorch for 14.1"


def test_no_library(monkeypatch, tmp_path):
    pretend(monkeypatch)
    assert native.load_cuda(tmp_path) == "torch_dwconv is built without its CUDA library"


def test_the_library_of_a_distribution_of_its_own(monkeypatch, libraries, tmp_path_factory):
    """The package's own folder comes first; a sentence about the distribution says more than one about the folder."""
    pretend(monkeypatch)
    monkeypatch.setattr(native, "_open", lambda path, prototypes: path)
    other = tmp_path_factory.mktemp("companion")
    (other / "libtorch_dwconv_cuda13.so").touch()
    monkeypatch.setattr(native.distribution, "cuda_companion", lambda major: other if major == "13" else "does not fit")
    assert native.load_cuda(libraries).parent == libraries
    (libraries / "libtorch_dwconv_cuda13.so").unlink()
    assert native.load_cuda(libraries).parent == other
    monkeypatch.setattr(torch.version, "cuda", "14.1")
    assert native.load_cuda(libraries) == "does not fit"


def test_pytorch_without_cuda_or_for_rocm(monkeypatch, libraries):
    pretend(monkeypatch, None)
    assert native.load_cuda(libraries) == "PyTorch is built without CUDA"
    pretend(monkeypatch, None, "6.4")
    assert native.load_cuda(libraries) == "PyTorch is built for ROCm, and the kernels are for CUDA"


def test_a_broken_library_does_not_break_the_import(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    (tmp_path / "libtorch_dwconv_cuda13.so").write_bytes(b"not ELF")
    assert native.load_cuda(tmp_path).startswith("the CUDA library cannot be loaded (")


class Library:
    """A CUDA library that says of the device what it is told."""

    def __init__(self, refusal: bytes | None):
        self.refusal = refusal

    def dwconv_device_refusal(self):
        return self.refusal


@pytest.fixture
def device_refuses(monkeypatch):
    """Sets what the library says of the device; None: its kernels run there."""

    def refuse(refusal):
        native._cuda_refusal.cache_clear()
        monkeypatch.setattr(native, "cuda_library", Library(refusal))
        monkeypatch.setattr(torch.cuda, "device", lambda index: contextlib.nullcontext())

    yield refuse
    native._cuda_refusal.cache_clear()


def fake(call=CALL, dtype=torch.float32, memory_format=torch.contiguous_format):
    """Input, weight and bias in a FakeTensorMode, where this PyTorch need not have CUDA."""

    def empty(*size, **options):
        return torch.empty(size, dtype=dtype, device="cuda", **options)

    out_channels = call.channels * call.multiplier
    input = empty(call.batch, call.channels, *call.size, memory_format=memory_format)
    return input, empty(out_channels, 1, *call.kernel), empty(out_channels)


@pytest.fixture
def fake_mode():
    with FakeTensorMode() as mode:
        yield mode


@pytest.mark.parametrize("refusal", ["its compute capability is below 7.5", "no kernel image is available", "driver"])
def test_a_device_that_refuses_is_for_conv2d(device_refuses, fake_mode, refusal):
    device_refuses(refusal.encode())
    input, weight, bias = fake()
    explanation = explain(input, weight, bias, **CALL.options)
    assert explanation.choices == {} and explanation.fallback == f"input is on cuda:0: {refusal}"
    with Recorder() as recorder:
        output = depthwise_conv2d(input, weight, bias, **CALL.options)
    assert output.device.type == "cuda"
    assert "aten::convolution" in recorder.names and not set(OPERATORS) & set(recorder.names)


def test_no_device(monkeypatch, device_refuses, fake_mode):
    def no_driver(index):
        raise RuntimeError("Found no NVIDIA driver on your system.\nPlease check")

    device_refuses(None)
    monkeypatch.setattr(torch.cuda, "device", no_driver)
    assert explain(*fake()).fallback == "input is on cuda:0: Found no NVIDIA driver on your system."


def test_no_library_is_the_reason_too(monkeypatch, fake_mode):
    native._cuda_refusal.cache_clear()
    monkeypatch.setattr(native, "cuda_library", "torch_dwconv is built without its CUDA library")
    assert explain(*fake()).fallback == "input is on cuda:0: torch_dwconv is built without its CUDA library"
    native._cuda_refusal.cache_clear()


def test_a_device_is_asked_once(device_refuses):
    device_refuses(b"once")
    assert native.cuda_refusal(3) == "once"
    native.cuda_library.refusal = b"twice"
    assert native.cuda_refusal(3) == "once" and native.cuda_refusal(4) == "twice"


def plan_of(input, weight, bias):
    """What autograd keeps of CALL on plain tensors like these."""
    shapes = input.shape, input.stride(), weight.shape, weight.stride(), bias.shape
    return _plan(input.dtype, input.get_device(), *shapes, *CALL.options.values())


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_and_backward_reach_our_operators(monkeypatch, device_refuses, fake_mode, dtype, memory_format, plain):
    device_refuses(None)
    input, weight, bias = fake(CALL, dtype, memory_format)
    # The engine of autograd, which would need a device, is the one thing left out.
    plan = plan_of(input, weight, bias)
    context = SimpleNamespace(saved_tensors=(input, weight), needs_input_grad=(True,) * 3, plan=plan)
    with Recorder() as recorder:
        output = depthwise_conv2d(input, weight, bias, **CALL.options)
        if plain:  # which fake tensors are not
            monkeypatch.setattr(eager, "is_plain", lambda *tensors: True)
        with torch.no_grad():
            gradients = eager.gradients(context, torch.empty_like(output))
    called = [*OPERATORS[:1], "torch_dwconv::backward"] if plain else OPERATORS
    assert [name for name in recorder.names if not name.startswith(("aten::empty", "prim::"))] == called
    assert output.is_contiguous(memory_format=memory_format) and output.device.type == "cuda"
    assert [g.shape for g in gradients] == [input.shape, weight.shape, bias.shape]
    assert gradients[0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("needed", "operator"),
    [((True, False, False), "grad_input"), ((False, True, False), "grad_weight"), ((True, True, False), "backward")],
)
def test_only_where_both_are_needed_one_operator_computes_both(
    monkeypatch, device_refuses, fake_mode, needed, operator
):
    device_refuses(None)
    input, weight, bias = fake(CALL, torch.float32, torch.contiguous_format)
    plan = plan_of(input, weight, bias)
    context = SimpleNamespace(saved_tensors=(input, weight), needs_input_grad=(True,) * 3, plan=plan)
    output = depthwise_conv2d(input, weight, bias, **CALL.options)
    monkeypatch.setattr(eager, "is_plain", lambda *tensors: True)
    monkeypatch.setattr(eager, "needed", lambda *_: needed)
    with Recorder() as recorder, torch.no_grad():
        gradients = eager.gradients(context, output)
    assert [name for name in recorder.names if name.startswith("torch_dwconv")] == [f"torch_dwconv::{operator}"]
    assert tuple(gradient is not None for gradient in gradients) == needed


def test_the_gradients_as_functions(device_refuses, fake_mode):
    device_refuses(None)
    input, weight, _ = fake()
    output = depthwise_conv2d(input, weight, **CALL.options)
    with Recorder() as recorder:
        depthwise_conv2d_input(input.shape, weight, output, **CALL.options)
        depthwise_conv2d_weight(input, weight.shape, output, **CALL.options)
    assert recorder.names == OPERATORS[1:]


@pytest.mark.parametrize("refusal", [None, b"too old"])
def test_autocast(device_refuses, fake_mode, refusal):
    device_refuses(refusal)
    input, weight, bias = fake()
    before = torch.is_autocast_enabled("cuda")
    torch.set_autocast_enabled("cuda", True)
    try:
        assert depthwise_conv2d(input.half(), weight, bias, **CALL.options).dtype == torch.float16
        assert depthwise_conv2d(input, weight, bias, **CALL.options).dtype == torch.get_autocast_dtype("cuda")
    finally:
        torch.set_autocast_enabled("cuda", before)


@pytest.mark.skipif(torch.version.cuda is None, reason="this PyTorch makes no parameters, not even fake ones, on CUDA")
@pytest.mark.parametrize(
    "refusal, target", [(None, "torch_dwconv.forward.default"), (b"too old", "aten.conv2d.default")]
)
def test_export_traces_what_the_device_takes(device_refuses, fresh_compiler, refusal, target):
    device_refuses(refusal)
    with FakeTensorMode():
        layer = DepthwiseConv2d(8, 8, 3, padding=1, device="cuda")
        exported = torch.export.export(layer, (torch.empty(2, 8, 14, 14, device="cuda"),), strict=True)
    assert target in [str(node.target) for node in exported.graph.nodes]


def test_plain_cuda_tensors_are_known_by_their_dispatch_keys():
    keys = torch._C._dispatch_keys(torch.empty(0))
    for cpu, cuda in zip(plain_eager._TENSOR_KEYS[:2], plain_eager._TENSOR_KEYS[2:], strict=True):
        assert str(cpu).replace("CPU", "CUDA") == str(cuda)
    assert keys == plain_eager._TENSOR_KEYS[0]


needs_cuda_library = pytest.mark.skipif(
    isinstance(native.cuda_library, str), reason=f"no CUDA library: {native.cuda_library}"
)


@needs_cuda_library
def test_kernels_and_explain_show_the_cuda_table(monkeypatch, fake_mode):
    table = kernels("cuda")
    assert kernels() == [*kernels("cpu"), *table]
    assert {v.isa for v in table} == {"cuda"} and all(v.name.endswith("_cuda") for v in table)
    of_cpu = {v[1:4] for v in kernels("cpu") if v.operation in ("forward", "grad_input", "grad_weight")}
    assert {v[1:4] for v in table if v.operation != "backward"} == of_cpu
    monkeypatch.setattr(native, "_cuda_refusal", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    call = Call(2, 32, 1, (56, 56), (3, 3), padding=((1, 1), (1, 1)))
    input, weight, bias = fake(call)
    explanation = explain(input, weight, bias, **call.options)
    assert explanation.both_gradients == "backward_nchw_f32_stream_k3s1_cuda"
    assert str(explanation).endswith(
        "backward_nchw_f32_stream_k3s1_cuda instead of both gradients where both are needed"
    )
    choices = explanation.choices
    assert [choices[operation].kernel for operation in introspect.OPERATIONS] == [
        f"{operation}_nchw_f32_stream_k3s1_cuda" for operation in introspect.OPERATIONS
    ]
    explanation = explain(input, weight, bias, stride=3)
    assert explanation.both_gradients is None
    choices = explanation.choices
    assert choices["forward"].kernel == "forward_nchw_f32_window_cuda"
    assert ("forward_nchw_f32_stream_k3s1_cuda", "the stride is another") in choices["forward"].refused
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(AssertionError, match="no kernel"):
        explain(input, weight, bias, **call.options)


@needs_cuda_library
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU: tests/gpu")
def test_the_loaded_library_says_that_there_is_no_device():
    assert native.cuda_library.dwconv_device_refusal()
    assert "no device" in introspect.diagnose().facts["CUDA"]


@needs_cuda_library
def test_operators_are_registered_for_cuda():
    for name in (*OPERATORS, "torch_dwconv::backward"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, "CUDA")


def test_kernels_of_another_device():
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or None, got 'mps'"):
        kernels("mps")
    assert {v.isa for v in kernels("cpu")} <= set(native.ISA_LEVELS)

"""kernels, explain and diagnose: true, complete and readable."""

import ctypes
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from torch_dwconv import depthwise_conv2d, diagnose, explain, introspect, kernels
from torch_dwconv.operators import native
from torch_dwconv.operators.formats import suggests_channels_last
from torch_dwconv.operators.schemas import ACTIVATIONS

OPERATIONS = ["forward", "grad_input", "grad_weight"]
DTYPES = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}


def layer(dtype=torch.float32, channels_last=False, size=(2, 8, 10, 10), kernel_size=(3, 3)):
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    input = torch.randn(size, dtype=dtype).to(memory_format=memory_format)
    return input, torch.randn(size[1], 1, *kernel_size, dtype=dtype)


def test_kernels_cover_every_operation_dtype_and_layout():
    found = kernels("cpu")
    assert len({kernel.name for kernel in found}) == len(found)
    for kernel in found:
        assert kernel.name.startswith(f"{kernel.operation}_{kernel.layout}_{kernel.dtype}_")
        assert kernel.isa in native.ISA_LEVELS
    of_batch_norm = ("batch_norm", "batch_norm_backward", "batch_norm_eval", "batch_norm_eval_backward")
    in_both_layouts = (*OPERATIONS, *of_batch_norm, "sequence", "sequence_backward")
    combinations = set(itertools.product(in_both_layouts, DTYPES.values(), ("nchw", "nhwc")))
    combinations |= {("sequence_step", dtype, "nchw") for dtype in DTYPES.values()}
    of_training = ("pointwise", "pointwise_grad_input", "pointwise_grad_weight")
    combinations |= set(itertools.product(of_training, ("f32",), ("nchw", "nhwc")))
    # What stands in blocks beside them.
    of_blocks = ("dense", "layer_norm", "channel_scale", "channel_sum")
    combinations |= {(operation, dtype, "nhwc") for operation in of_blocks for dtype in DTYPES.values()}
    assert {kernel[1:4] for kernel in found} == combinations


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True])
def test_explain_names_the_first_kernel_that_does_not_refuse(dtype, channels_last):
    input, weight = layer(dtype, channels_last)
    explanation = explain(input, weight, padding=1)
    assert explanation.fallback is None and list(explanation.choices) == OPERATIONS
    for operation, choice in explanation.choices.items():
        group = [
            v.name for v in kernels("cpu") if v[1:4] == (operation, DTYPES[dtype], "nhwc" if channels_last else "nchw")
        ]
        assert [name for name, _ in choice.refused] + [choice.kernel] == group[: len(choice.refused) + 1]
        assert all(reason for _, reason in choice.refused)
        assert choice.kernel in str(explanation)


def test_explain_works_without_a_batch_dimension_and_with_all_arguments():
    input, weight = layer()
    bias = torch.zeros(8)
    batched = explain(input[:1], weight, bias, (2, 1), ((1, 0), (2, 1)), 2)
    assert explain(input[0], weight, bias, (2, 1), ((1, 0), (2, 1)), 2).choices == batched.choices
    assert "stride=(2, 1), padding=((1, 0), (2, 1)), dilation=2" in str(batched)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_cpu_kernel_computes_every_activation(activation):
    """test_activations.py of tests/kernels shows it; so the choice is the same with and without one."""
    input, weight = layer()
    alone, fused = explain(input, weight, padding=1), explain(input, weight, padding=1, activation=activation)
    assert fused.choices == alone.choices and alone.forward_alone is None
    assert fused.forward_alone == alone.choices["forward"].kernel
    assert "where a gradient is needed" not in str(fused)


def test_explain_asks_the_kernels_about_the_true_shape(monkeypatch):
    shapes, library = [], native.cpu_library

    class Library:
        def __getattr__(self, name):
            return getattr(library, name)

        def dwconv_kernel_refusal(self, index, shape):
            shapes.append(tuple(shape))
            last = "reference" in library.dwconv_kernel_field(index, 0).decode()
            return None if last else b"planted reason"

    monkeypatch.setattr(native, "cpu_library", Library())
    input, weight = layer(size=(2, 5, 17, 12), kernel_size=(2, 4))
    explanation = explain(input, weight.repeat(3, 1, 1, 1), None, (2, 1), ((1, 0), (2, 3)), (1, 2))
    # N C M H W KH KW OH OW stride dilation pad_top pad_left
    assert set(shapes) == {(2, 5, 3, 17, 12, 2, 4, 9, 11, 2, 1, 1, 2, 1, 2)}
    for operation, choice in explanation.choices.items():
        assert choice.kernel.endswith("reference")
        group = [kernel for kernel in kernels("cpu") if kernel[1:4] == (operation, "f32", "nchw")]
        assert len(choice.refused) == len(group) - 1
        assert all(reason == "planted reason" for _, reason in choice.refused)
        assert str(explanation).count("planted reason") == sum(len(c.refused) for c in explanation.choices.values())


@pytest.mark.parametrize(
    "input_format, weight_format, layouts",
    [
        (torch.contiguous_format, torch.contiguous_format, ["nchw", "nchw", "nchw"]),
        (torch.contiguous_format, torch.channels_last, ["nhwc", "nchw", "nchw"]),
        (torch.channels_last, torch.contiguous_format, ["nhwc", "nhwc", "nhwc"]),
    ],
)
def test_explain_follows_the_layout_rules(input_format, weight_format, layouts):
    input, weight = layer()
    choices = explain(input.to(memory_format=input_format), weight.to(memory_format=weight_format)).choices
    for operation, layout in zip(OPERATIONS, layouts, strict=True):
        assert choices[operation].kernel.startswith(f"{operation}_{layout}_f32")


@pytest.mark.parametrize(
    "input, weight, reason",
    [
        (torch.zeros(1, 2, 4, 4, dtype=torch.complex64), torch.zeros(2, 1, 3, 3, dtype=torch.complex64), "complex64"),
        (torch.zeros(1, 2, 4, 4, dtype=torch.int64), torch.zeros(2, 1, 3, 3, dtype=torch.int64), "int64"),
        (torch.zeros(1, 2, 4, 4, device="meta"), torch.zeros(2, 1, 3, 3, device="meta"), "meta"),
    ],
    ids=["complex", "int64", "meta"],
)
def test_explain_gives_the_reason_for_conv2d(input, weight, reason):
    explanation = explain(input, weight)
    assert explanation.choices == {} and reason in explanation.fallback
    assert f"F.conv2d runs: {explanation.fallback}" in str(explanation)


def test_explain_refuses_what_the_function_refuses():
    input, weight = layer()
    for arguments, message in [
        ((input, weight.double()), "dtype"),
        ((input, weight, torch.zeros(8).double()), "dtype"),
        ((input, weight[:7]), "weight"),
        ((input, weight, torch.zeros(7)), "bias"),
        ((input, weight, None, 0), "stride"),
        ((input, weight, None, 1, -1), "padding"),
    ]:
        for function in (explain, depthwise_conv2d):
            with pytest.raises(RuntimeError, match=message):
                function(*arguments)


def test_diagnose_passes_and_reports(capfd):
    random_state = torch.get_rng_state()
    diagnosis = diagnose()
    assert diagnosis.ok
    assert [test[:3] for test in diagnosis.tests] == [
        (operation, dtype, layout)
        for dtype in DTYPES.values()
        for layout in ("nchw", "nhwc")
        for operation in OPERATIONS
    ]
    text = str(diagnosis)
    for fact in (torch.__version__, native.cpu_library._name, f"threads      {torch.get_num_threads()}", "ISA"):
        assert fact in text
    isa = native.cpu_library.dwconv_isa().decode()
    works = f"torch_dwconv works: library loaded into PyTorch {torch.__version__}, {isa} kernels"
    assert text.splitlines()[0] == diagnosis.verdict == f"{works}, all 24 self-tests passed on cpu"
    assert "FAILED" not in text
    assert torch.equal(torch.get_rng_state(), random_state)
    assert capfd.readouterr() == ("", "")


def test_diagnose_works_in_any_mode():
    with torch.inference_mode(), torch.device("meta"), torch.autocast("cpu", dtype=torch.bfloat16):
        assert diagnose().ok


def test_diagnose_finds_a_wrong_kernel(monkeypatch):
    def off_by_a_pixel_in_channels_last(input, weight, bias, stride, padding, dilation):
        output = F.conv2d(F.pad(input, (*padding[1], *padding[0])), weight, bias, stride, 0, dilation, input.shape[1])
        return output.roll(1, -1) if suggests_channels_last(input) else output

    monkeypatch.setattr(introspect, "depthwise_conv2d", off_by_a_pixel_in_channels_last)
    diagnosis = diagnose()
    failed = "torch_dwconv does not work: 12 of 24 self-tests failed on cpu, the first of forward f32 nhwc"
    assert not diagnosis.ok and str(diagnosis).splitlines()[0] == failed
    f32 = [test for test in diagnosis.tests if test.dtype == "f32"]
    assert [test.ok for test in f32] == [test.layout == "nchw" for test in f32]
    assert all(test.exception is None for test in diagnosis.tests)


def test_diagnose_reports_a_kernel_that_raises(monkeypatch):
    def raises(*args):
        raise RuntimeError("no such instruction")

    monkeypatch.setattr(introspect, "depthwise_conv2d", raises)
    diagnosis = diagnose()
    assert not any(test.ok for test in diagnosis.tests)
    assert "FAILED: RuntimeError: no such instruction" in str(diagnosis)


def test_command_prints_the_diagnosis():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "torch_dwconv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("torch_dwconv works: library loaded into PyTorch ")


@pytest.mark.parametrize("command", [["-m", "torch_dwconv"], ["-mtorch_dwconv"]])
def test_command_says_in_one_line_why_nothing_was_loaded(command):
    environment = {**os.environ, "TORCH_DWCONV_ISA": "avx1024"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("torch_dwconv does not work: TORCH_DWCONV_ISA must be one of ")
    assert len(done.stderr.splitlines()) == 1


def test_other_programs_get_the_exception():
    command = [sys.executable, "-c", "import torch_dwconv", "-m", "torch_dwconv"]
    done = subprocess.run(command, env={**os.environ, "TORCH_DWCONV_ISA": "avx1024"}, capture_output=True, text=True)
    assert "ImportError: TORCH_DWCONV_ISA must be one of " in done.stderr


def test_shape_fields_are_those_of_the_library():
    shape = (ctypes.c_int64 * native.SHAPE_FIELDS)(*[1] * native.SHAPE_FIELDS)
    last = len(kernels("cpu")) - 1
    assert native.cpu_library.dwconv_kernel_refusal(last, shape) is None  # the reference kernel refuses nothing
    assert native.cpu_library.dwconv_kernel_refusal(last + 1, shape) == b"there is no such kernel"

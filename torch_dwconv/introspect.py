"""What runs, and whether it is right: `kernels`, `explain` and `diagnose`.

``python -m torch_dwconv`` prints `diagnose()` for a bug report.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .functional import depthwise_conv2d, rules
from .functional.dispatch import native_reason
from .functional.rules import IntPair, Padding
from .operators import native
from .operators.formats import suggests_channels_last
from .operators.schemas import ACTIVATION_CODES
from .version import __version__

OPERATIONS = ("forward", "grad_input", "grad_weight")
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# By dtype: its name in the registry, and what the self-test allows of ||result - exact|| / ||exact||. That is the error
# of accumulation for f32 and f64, and one rounding of the result for the 16-bit dtypes, which accumulate in float32.
DTYPES = {
    torch.float32: ("f32", 2e-6),
    torch.float64: ("f64", 1e-14),
    torch.bfloat16: ("bf16", torch.finfo(torch.bfloat16).eps / 2),
    torch.float16: ("f16", torch.finfo(torch.float16).eps / 2),
}


class Kernel(NamedTuple):
    """A registered kernel: name, operation, dtype ("f32"...), layout ("nchw" or "nhwc") and instruction set ("avx2"...,
    or "cuda").

    Operations beside forward and its two gradients: "backward" of some for CUDA, both gradients; "dense", "layer_norm",
    "channel_scale" and "channel_sum" of blocks; "batch_norm", "batch_norm_eval" and their "..._backward";
    "pointwise" of training and its two gradients; "sequence", "sequence_backward" and "sequence_step".
    """

    name: str
    operation: str
    dtype: str
    layout: str
    isa: str


def kernels(device: str | None = None) -> list[Kernel]:
    """Every kernel that is installed and that this CPU runs, best first; of those for one operation, dtype, layout the
    first runs that supports the shape.

    Args:
        device: "cpu" or "cuda" for the kernels of one of them; by default those for the CPU, then those for CUDA, if
            the CUDA library is there. Whether there is a GPU makes no difference here.

    Raises:
        ValueError: another `device`.
    """
    if device is None:
        return [*kernels("cpu"), *kernels("cuda")]
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu', 'cuda' or None, got {device!r}")
    library = native.cpu_library if device == "cpu" else native.cuda_library
    if isinstance(library, str):
        return []
    return [
        Kernel(*(library.dwconv_kernel_field(index, field).decode() for field in range(len(Kernel._fields))))
        for index in range(library.dwconv_kernel_count())
    ]


@dataclass(frozen=True)
class Choice:
    """The kernel that computes one operation: its name, and the better ones that refused, as (name, reason)."""

    kernel: str
    refused: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; ``str()`` of it is a table.

    Attributes:
        problem (str): the sizes, dtype and geometry of the call.
        choices (dict[str, Choice]): by operation ("forward", "grad_input", "grad_weight"); empty if F.conv2d runs.
        fallback (str or None): why F.conv2d runs instead, None if it does not.
        activation (str or None): what forward does to its result as well, unless a gradient is needed: then PyTorch's
            function follows it (so it does in eager float64, but for relu, relu6 and hardswish). `choices` names the
            kernel that does both.
        forward_alone (str or None): the kernel of forward where PyTorch's function follows it; None without an
            activation. On CUDA it may be another, since some kernels compute few activations.
        both_gradients (str or None): the kernel that computes grad_input and grad_weight in one pass, which runs
            instead of the two in eager code where both are needed; None if there is none.
    """

    problem: str
    choices: dict[str, Choice]
    fallback: str | None = None
    activation: str | None = None
    both_gradients: str | None = None
    forward_alone: str | None = None

    def __str__(self) -> str:
        lines = [self.problem]
        if self.fallback is not None:
            lines.append(f"F.conv2d runs: {self.fallback}")
        for operation, choice in self.choices.items():
            fused = operation == "forward" and self.activation
            addition = f", with {self.activation} unless a gradient is needed" if fused else ""
            lines.append(f"{operation:<13}{choice.kernel}{addition}")
            if fused and self.forward_alone != choice.kernel:
                lines.append(f"{'':<13}{self.forward_alone} where a gradient is needed")
            lines += [f"{'':<13}  not {name}: {reason}" for name, reason in choice.refused]
        if self.both_gradients:
            lines.append(f"{'':<13}{self.both_gradients} instead of both gradients where both are needed")
        return "\n".join(lines)


def explain(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: IntPair = 1,
    padding: Padding = 0,
    dilation: IntPair = 1,
    *,
    activation: str | None = None,
) -> Explanation:
    """Says which kernel computes each operation of ``depthwise_conv2d(input, weight, ...)``, why not better ones.

    Nothing is computed. The gradients are those of a call whose output gradient has the output's memory format.

    Args, raises: as `depthwise_conv2d`.

    >>> explanation = explain(torch.randn(1, 32, 56, 56), torch.randn(32, 1, 3, 3), padding=1)
    >>> explanation.choices["forward"].kernel  # doctest: +ELLIPSIS
    'forward_nchw_f32_...'
    """
    problem = (
        f"input {tuple(input.shape)}, weight {tuple(weight.shape)}, {input.dtype}, "
        f"stride={stride}, padding={padding!r}, dilation={dilation}"
        + (f", activation={activation!r}" if activation else "")
    )
    rules.check_activation(activation)
    if reason := native_reason(input, weight, bias):
        return Explanation(problem, {}, reason, activation)
    if input.dim() == 3:
        input = input.unsqueeze(0)
    rules.check_tensors(input, weight=weight, bias=bias)
    bias_shape = None if bias is None else bias.shape
    geometry = rules.resolve_geometry(input.shape, weight.shape, bias_shape, stride, padding, dilation)
    shape = _shape_numbers(input, weight, geometry)
    layouts = _layouts(input, weight)
    dtype = DTYPES[input.dtype][0]
    choices = {
        operation: _choose(operation, dtype, layouts[operation], shape, input.device) for operation in OPERATIONS
    }
    forward_alone = None
    if activation is not None:
        forward_alone = choices["forward"].kernel
        choices["forward"] = _choose("forward", dtype, layouts["forward"], shape, input.device, activation)
    both_gradients = None
    if layouts["grad_input"] == layouts["grad_weight"]:
        both_gradients, _ = _find("backward", dtype, layouts["grad_input"], shape, input.device)
    return Explanation(problem, choices, None, activation, both_gradients, forward_alone)


def _shape_numbers(input: Tensor, weight: Tensor, geometry: tuple) -> ctypes.Array:
    """The fields of struct Shape (csrc/shape.h)."""
    out_h, out_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w = geometry
    batch, channels, height, width = input.shape
    multiplier, kernel_size = weight.shape[0] // channels, weight.shape[2:]
    sizes = (batch, channels, multiplier, height, width, *kernel_size, out_h, out_w)
    return (ctypes.c_int64 * native.SHAPE_FIELDS)(*sizes, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left)


def _layouts(input: Tensor, weight: Tensor) -> dict[str, str]:
    """The layout that each operation works in: its result's, for grad_weight the one its input is stored in."""
    names = {False: "nchw", True: "nhwc"}
    _, channels, height, width = input.shape
    _, stride_c, _, stride_w = input.stride()
    stored_nhwc = (
        stride_c < stride_w and channels > 1 and (height > 1 or width > 1)
    )  # layout_of in csrc/binding/ops.cpp
    return {
        "forward": names[suggests_channels_last(input) or suggests_channels_last(weight)],
        "grad_input": names[suggests_channels_last(input)],
        "grad_weight": names[stored_nhwc],
    }


def _choose(
    operation: str, dtype: str, layout: str, shape: ctypes.Array, device: torch.device, activation: str | None = None
) -> Choice:
    name, refused = _find(operation, dtype, layout, shape, device, activation)
    if name is None:
        raise AssertionError(f"no kernel for {operation} {dtype} {layout}: the reference kernel refuses nothing")
    return Choice(name, refused)


def _find(
    operation: str, dtype: str, layout: str, shape: ctypes.Array, device: torch.device, activation: str | None = None
) -> tuple[str | None, tuple[tuple[str, str], ...]]:
    """The kernel that runs, None if all refuse, and those before it with their reasons."""
    refused: list[tuple[str, str]] = []
    library, other_numbers = native.cpu_library, []  # every CPU kernel computes every activation
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        assert not isinstance(native.cuda_library, str)
        library, other_numbers = native.cuda_library, [ACTIVATION_CODES[activation], 10 * major + minor]
    for index, kernel in enumerate(kernels(device.type)):
        if (kernel.operation, kernel.dtype, kernel.layout) != (operation, dtype, layout):
            continue
        reason = library.dwconv_kernel_refusal(index, shape, *other_numbers)
        if reason is None:
            return kernel.name, tuple(refused)
        refused.append((kernel.name, reason.decode()))
    return None, tuple(refused)


class SelfTest(NamedTuple):
    """One row of the self-test: the worst ||result - exact|| / ||exact||, or the exception, and the error allowed."""

    operation: str
    dtype: str
    layout: str
    error: float
    bound: float
    exception: str | None = None
    device: str = "cpu"

    @property
    def ok(self) -> bool:
        return self.exception is None and self.error <= self.bound


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; ``str()`` of it is the report, whose first line is the verdict.

    Attributes:
        facts (dict[str, str]): versions, paths, instruction sets and threads.
        kernels (list[Kernel]): the kernels that are installed.
        tests (list[SelfTest]): one an operation, dtype, layout and device: the CPU, and GPUs that our kernels run on.
        ok (bool): every self-test passed.
        verdict (str): whether all is well, in one line.
    """

    facts: dict[str, str]
    kernels: list[Kernel]
    tests: list[SelfTest]

    @property
    def ok(self) -> bool:
        return all(test.ok for test in self.tests)

    @property
    def verdict(self) -> str:
        """Whether all is well, in one line."""
        failed = [" ".join(test[:3]) for test in self.tests if not test.ok]
        where = ", ".join(dict.fromkeys(test.device for test in self.tests))
        if failed:
            return (
                f"torch_dwconv does not work: {len(failed)} of {len(self.tests)} self-tests failed on {where}, "
                f"the first of {failed[0]}"
            )
        isa, pytorch = self.facts["ISA"].split()[0], self.facts["PyTorch"]
        return (
            f"torch_dwconv works: library loaded into PyTorch {pytorch}, {isa} kernels, "
            f"all {len(self.tests)} self-tests passed on {where}"
        )

    def __str__(self) -> str:
        lines = [self.verdict, "", *(f"{name:<13}{value}" for name, value in self.facts.items())]
        lines += ["", f"{'operation':<13}{'dtype':<7}{'layout':<8}{'kernels':<9}self-test against F.conv2d in float64"]
        for test in self.tests:
            on_cuda = test.device != "cpu"
            count = sum(v[1:4] == test[:3] and (v.isa == "cuda") == on_cuda for v in self.kernels)
            result = test.exception or f"relative error {test.error:.1e}, at most {test.bound:.1e}"
            result += f" on {test.device}" if on_cuda else ""
            verdict = "ok" if test.ok else "FAILED"
            lines.append(f"{test.operation:<13}{test.dtype:<7}{test.layout:<8}{count:<9}{verdict}: {result}")
        return "\n".join(lines)


def diagnose() -> Diagnosis:
    """Checks this installation: versions, what is built, and each operation, dtype and layout against F.conv2d in
    float64.

    Takes a fraction of a second and changes neither the random state nor any setting. A self-test that fails or raises
    makes ``.ok`` false.

    >>> diagnose().ok
    True
    """
    library = native.cpu_library
    cap = os.environ.get("TORCH_DWCONV_ISA")
    facts = {
        "torch_dwconv": __version__,
        "PyTorch": torch.__version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "library": library._name,
        "ISA": f"{library.dwconv_isa().decode()} (this CPU: {library.dwconv_cpu_isa().decode()}; "
        + (f"TORCH_DWCONV_ISA={cap})" if cap else "TORCH_DWCONV_ISA not set)"),
        "threads": str(torch.get_num_threads()),
        "CUDA": _cuda_facts(),
    }
    usable = [index for index in range(torch.cuda.device_count()) if native.cuda_refusal(index) is None]
    tests = [test for device in ("cpu", *(f"cuda:{index}" for index in usable)) for test in _self_tests(device)]
    return Diagnosis(facts, kernels(), tests)


def _cuda_facts() -> str:
    library = native.cuda_library
    if isinstance(library, str):
        return f"F.conv2d runs there: {library}"
    devices = [
        f"cuda:{index} ({torch.cuda.get_device_name(index)}): {native.cuda_refusal(index) or 'our kernels run'}"
        for index in range(torch.cuda.device_count())
    ]
    return f"{library._name}; " + (", ".join(devices) or "no device")


# (input, weight, output, stride, padding, dilation): the commonest layer, and one with nothing even or equal in it.
_SELF_TEST_PROBLEMS = (
    ((2, 16, 14, 14), (16, 1, 3, 3), (2, 16, 14, 14), 1, ((1, 1), (1, 1)), 1),
    ((3, 5, 17, 12), (10, 1, 2, 5), (3, 10, 9, 9), (2, 1), ((1, 0), (2, 3)), (1, 2)),
)


def _self_tests(device: str) -> list[SelfTest]:
    tests = []
    # The caller may be in any of these modes, and may have another default device.
    modes = (torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"))
    with contextlib.ExitStack() as stack:
        for mode in (*modes, torch.autocast(torch.device(device).type, enabled=False)):
            stack.enter_context(mode)
        for dtype, (name, bound) in DTYPES.items():
            oracles = [_oracle(problem, dtype) for problem in _SELF_TEST_PROBLEMS]
            for layout, memory_format in LAYOUTS.items():
                try:
                    worst = [_relative_errors(oracle, memory_format, device) for oracle in oracles]
                    exception = None
                except Exception as raised:  # whatever it is, the report must say it
                    worst, exception = [dict.fromkeys(OPERATIONS, float("nan"))], f"{type(raised).__name__}: {raised}"
                for operation in OPERATIONS:
                    error = max(errors[operation] for errors in worst)
                    tests.append(SelfTest(operation, name, layout, error, bound, exception, device))
    return tests


def _output_and_gradients(function: Callable, tensors: list[Tensor], grad_output: Tensor, *geometry) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    output = function(*leaves, *geometry)
    return [output.detach(), *torch.autograd.grad(output, leaves, grad_output.to(output))]


def _oracle(problem: tuple, dtype: torch.dtype) -> tuple:
    """Random input, weight, bias and output gradient of `dtype`, the geometry, and what F.conv2d makes of them."""
    input_size, weight_size, output_size, stride, padding, dilation = problem
    generator = torch.Generator().manual_seed(0)
    sizes = (input_size, weight_size, weight_size[:1], output_size)
    *tensors, grad_output = (torch.randn(size, generator=generator).to(dtype) for size in sizes)

    def exact(input, weight, bias):
        (top, bottom), (left, right) = padding
        padded = F.pad(input, (left, right, top, bottom))
        return F.conv2d(padded, weight, bias, stride, 0, dilation, groups=input_size[1])

    expected = _output_and_gradients(exact, [tensor.double() for tensor in tensors], grad_output)
    return tensors, grad_output, (stride, padding, dilation), expected


def _relative_errors(oracle: tuple, memory_format: torch.memory_format, device: str) -> dict[str, float]:
    """||ours - exact|| / ||exact|| of each operation, the bias's gradient counted with the weight's."""
    tensors, grad_output, geometry, expected = oracle
    input, weight, bias = (tensor.to(device) for tensor in tensors)
    tensors = [input.contiguous(memory_format=memory_format), weight, bias]
    results = _output_and_gradients(depthwise_conv2d, tensors, grad_output, *geometry)
    errors = [
        ((result.cpu().double() - exact).norm() / exact.norm()).item()
        for result, exact in zip(results, expected, strict=True)
    ]
    return {"forward": errors[0], "grad_input": errors[1], "grad_weight": max(errors[2:])}

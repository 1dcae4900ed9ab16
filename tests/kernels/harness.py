"""The checker (``checker/``) in this process: it runs any kernel of the library, and F.conv2d says what is right.

The extension (pybind11, built by ninja, kept in ``build/kernel_tests`` under a hash of what it is made of) sees only
addresses. They come from the exported C functions of the library that the package has loaded, so what is tested is
what users run.
"""

import ctypes
import fnmatch
import functools
import hashlib
import importlib.util
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pybind11
import torch

from tests.kernels.shapes import SEED, Shape
from tests.locked import one_process_at_a_time
from torch_dwconv.operators.native import cpu_library as library

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("kernel.h", "shape.h", "cpu/simd/activation.h")  # all that the extension knows of the library's sources
DTYPES = {"f32": torch.float32, "f64": torch.float64, "bf16": torch.bfloat16, "f16": torch.float16}
OPERANDS = {
    "forward": ("input", "weight", "bias"),
    "grad_input": ("grad_output", "weight"),
    "grad_weight": ("input", "grad_output"),
    "backward": ("input", "weight", "grad_output"),
    "dense": ("input", "weight", "bias", "residual"),
    "layer_norm": ("input",),
    "channel_scale": ("input", "scale"),
    "channel_sum": ("input",),
    "batch_norm": ("input", "weight", "bias"),
    "batch_norm_backward": ("input", "weight", "bias", "mean", "variance", "grad_output"),
    "batch_norm_eval": ("input", "weight", "bias", "mean", "variance"),
    "batch_norm_eval_backward": ("input", "weight", "bias", "mean", "variance", "grad_output"),
    "pointwise": ("input", "weight", "bias"),
    "pointwise_grad_input": ("weight", "grad_output"),
    "pointwise_grad_weight": ("input", "grad_output"),
    "sequence": ("input", "weight", "bias", "states", "reach"),
    "sequence_backward": ("input", "weight", "bias", "states", "reach", "grad_output"),
    "sequence_step": ("input", "weight", "bias", "cache", "rows", "begins"),
}
# What a shape is for: the operations of a kind share sizes and operands (calls/operands.h).
KINDS = {
    "depthwise": ("forward", "grad_input", "grad_weight", "backward"),
    "dense": ("dense",),
    "channelwise": ("layer_norm", "channel_scale", "channel_sum"),
    "batch_norm": ("batch_norm", "batch_norm_backward", "batch_norm_eval", "batch_norm_eval_backward"),
    "pointwise": ("pointwise", "pointwise_grad_input", "pointwise_grad_weight"),
    "sequence": ("sequence", "sequence_backward", "sequence_step"),
}
# enum Activation: those of depthwise_conv2d, and the gates that only blocks have.
ACTIVATIONS = ("none", "relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh")
WITH_GATES = (*ACTIVATIONS, "hardsigmoid", "sigmoid")
# What is checked of a kernel on a shape (checker/checks.h says of each what must hold), and where buffers lie.
CHECKS = ("exact", "scaled", "special", "bounded", "activations", "partitions")
PLACEMENTS = ("back", "front", "inside")

# --- building and loading -------------------------------------------------------------------------------------------

HERE = Path(__file__).parent
# The checker without its program.
SOURCES = [
    path
    for path in (*sorted(HERE.glob("calls/*.cpp")), *sorted(HERE.glob("checker/*.cpp")))
    if path.stem not in ("main", "bench")
]
NINJA_FILE = """\
cxx = c++ -std=c++17 -O2 -fPIC -fvisibility=hidden -ffp-contract=off -Wall -Wextra -Werror {includes}
rule compile
  command = $cxx -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = c++ -shared $in -pthread -o $out
{compile}
build kernel_extension.so: link {objects}
"""


def _build_extension() -> Path:
    """Path of the built extension. A build under the same hash is reused."""
    python_include = sysconfig.get_path("include")
    if not Path(python_include, "Python.h").exists():
        raise RuntimeError(f"kernel tests need Python's headers in {python_include} (Debian: apt install python3-dev)")
    ninja_file = NINJA_FILE.format(
        includes=f"-I{ROOT / 'csrc'} -isystem {pybind11.get_include()} -isystem {python_include}",
        compile="\n".join(f"build {source.stem}.o: compile {source}" for source in SOURCES),
        objects=" ".join(f"{source.stem}.o" for source in SOURCES),
    )
    read = [*SOURCES, *sorted(HERE.glob("**/*.h")), *(ROOT / "csrc" / header for header in CONTRACT)]
    digest = hashlib.sha256("\0".join([ninja_file, sys.version, *(path.read_text() for path in read)]).encode())
    target = ROOT / "build" / "kernel_tests" / digest.hexdigest()[:16] / "kernel_extension.so"
    with one_process_at_a_time("kernel_tests"):
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as work:
                Path(work, "build.ninja").write_text(ninja_file)
                command = [sys.executable, "-m", "ninja", "-C", work]
                built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                if built.returncode:
                    raise RuntimeError(f"building the kernel test extension failed:\n{built.stdout}")
                Path(work, target.name).replace(target)
    return target


@functools.cache
def extension():
    """The module ``kernel_extension``, built if need be."""
    spec = importlib.util.spec_from_file_location("kernel_extension", _build_extension())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- kernels -------------------------------------------------------------------------------------------------------


class Kernel(NamedTuple):
    """A kernel as the registry describes it; ``address`` is that of its ``struct Kernel``."""

    name: str
    operation: str
    dtype: str
    layout: str
    isa: str
    address: int

    def refusal(self, shape: Shape) -> str | None:
        """Why the kernel does not take the shape; None if it does."""
        return extension().refusal(self.address, shape)


def refusal(index: int, shape: Shape) -> str | None:
    """What the library's own ``dwconv_kernel_refusal`` says, as ``explain`` hears it."""
    reason = library.dwconv_kernel_refusal(index, (ctypes.c_int64 * len(shape))(*shape))
    return reason.decode() if reason is not None else None


@functools.cache
def all_kernels() -> tuple[Kernel, ...]:
    """Every kernel that may run in this process, in the registry's order."""
    return tuple(
        Kernel(*(library.dwconv_kernel_field(i, field).decode() for field in range(5)), library.dwconv_kernel(i))
        for i in range(library.dwconv_kernel_count())
    )


def kernels(shape: Shape, kind: str = "depthwise") -> list[Kernel]:
    """The kernels of a kind's operations that take the shape.

    Of those whose name matches TORCH_DWCONV_TEST_KERNELS (default ``*``).
    """
    pattern = os.environ.get("TORCH_DWCONV_TEST_KERNELS", "*")
    chosen = [kernel for kernel in all_kernels() if fnmatch.fnmatch(kernel.name, pattern)]
    if not chosen:
        raise ValueError(f"TORCH_DWCONV_TEST_KERNELS={pattern} matches no kernel")
    return [kernel for kernel in chosen if kernel.operation in KINDS[kind] and kernel.refusal(shape) is None]


def planted() -> dict[str, Kernel]:
    """The deliberately wrong kernels of ``planted.cpp`` by the name of their fault, and of ``planted_blocks.cpp``,
    ``planted_training.cpp`` and ``planted_sequence.cpp`` by operation and fault; those called none are right."""

    def described(name: str, address: int) -> Kernel:
        others = [each for kind in ("dense", "channelwise", "sequence") for each in KINDS[kind]]
        operation = max((each for each in others if name.startswith(each + "_")), key=len, default="forward")
        layout = "nhwc" if operation in (*KINDS["dense"], *KINDS["channelwise"]) else "nchw"
        return Kernel(name, operation, "f32", layout, "baseline", address)

    return {name: described(name, address) for name, address in extension().planted().items()}


# --- checking -------------------------------------------------------------------------------------------------------


def failures(
    kernels: Iterable[Kernel],
    shape: Shape,
    checks: Sequence[str] = CHECKS,
    *,
    seed: int = 0,
    placements: Sequence[str] = (),
    with_bias: bool | None = None,
    with_residual: bool | None = None,
    activation: str | None = None,
    data: str | None = None,
) -> list[str]:
    """What is wrong with kernels that take the shape, as lines of text, by the checks of ``checker/checks.h``.

    All that is random follows from ``seed``: numbers, where buffers lie, whether there are a bias and a residual, the
    activation. The options fix these; ``data`` is what checks on numbers with all their digits take
    (``checker/problem.h``).
    """
    from tests.kernels.oracle import checkers_answers

    names = extension()
    return names.check(
        [kernel.address for kernel in kernels],
        shape,
        seed,
        [getattr(names.Check, check) for check in checks],
        checkers_answers,
        [getattr(names.Placement, placement) for placement in placements],
        with_bias,
        with_residual,
        None if activation is None else WITH_GATES.index(activation),
        None if data is None else getattr(names.Data, data),
    )


def assert_none(failures: Iterable[str], shape: Shape) -> None:
    """Fail with what is wrong, not all of it if it is much, and what is needed to get it again."""
    lines = list(failures)
    shown = "\n".join(lines[:20]) + (f"\n... and {len(lines) - 20} more" if len(lines) > 20 else "")
    assert not lines, f"{len(lines)} failures (TORCH_DWCONV_TEST_SEED={SEED}) on {shape}:\n{shown}"


def run(
    kernel: Kernel, shape: Shape, operands: dict[str, torch.Tensor], activation: str = "none"
) -> dict[str, torch.Tensor]:
    """One call on NCHW operands that the kernel's dtype holds, with a bias or a residual if one is given.

    Results are float64 and NCHW.

    As in every check, buffers are guarded and results start as NaN. Raises RuntimeError if the kernel touches memory
    that is not its own.
    """
    arrays = {name: values.double().numpy().ravel() for name, values in operands.items()}
    results = extension().run(kernel.address, shape, arrays, WITH_GATES.index(activation))
    sizes = shape.results(kernel.operation, "nchw", "bias" in operands)
    return {name: torch.from_numpy(values).view(sizes[name]) for name, values in results.items()}

"""Calls any kernel by name, on guarded buffers, over any partition of its work.

The extension beside this file (pybind11, built by ninja, kept in ``build/kernel_tests`` under a hash of what it is made
of) sees only addresses. They come from the exported C functions of the library that the package has loaded, so what is
tested is what users run.
"""

import ctypes
import fnmatch
import functools
import hashlib
import importlib.util
import itertools
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pybind11
import torch

from tests.kernels.shapes import Shape
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
}
ACTIVATIONS = ("none", "relu", "relu6", "hardswish", "silu", "gelu", "gelu_tanh")  # enum Activation
# What margins hold: around operands a NaN in every dtype, around results bytes that no kernel computes.
NAN_BYTE, CANARY_BYTE = 0xFF, 0xA5

Ranges = list[tuple[int, int]]
Partition = Callable[[int], Ranges]


class DamagedMargin(AssertionError):
    """A kernel wrote next to its result or workspace."""


# --- building and loading -------------------------------------------------------------------------------------------

NINJA_FILE = """\
cxx = c++ -std=c++17 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -Werror {includes}
rule compile
  command = $cxx -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
rule link
  command = c++ -shared $in -o $out
build extension.o: compile {here}/extension.cpp
build planted.o: compile {here}/planted.cpp
build number.o: compile {here}/checker/number.cpp
build textbook.o: compile {here}/checker/textbook.cpp
build kernel_extension.so: link extension.o planted.o number.o textbook.o
"""


def _build_extension() -> Path:
    """Path of the built extension. A build under the same hash is reused."""
    here = Path(__file__).parent
    python_include = sysconfig.get_path("include")
    if not Path(python_include, "Python.h").exists():
        raise RuntimeError(f"kernel tests need Python's headers in {python_include} (Debian: apt install python3-dev)")
    includes = f"-I{here} -I{ROOT / 'csrc'} -isystem {pybind11.get_include()} -isystem {python_include}"
    ninja_file = NINJA_FILE.format(includes=includes, here=here)
    sources = [*sorted(here.glob("**/*.cpp")), *sorted(here.glob("**/*.h")), *(ROOT / "csrc" / h for h in CONTRACT)]
    digest = hashlib.sha256("\0".join([ninja_file, sys.version, *(path.read_text() for path in sources)]).encode())
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


def kernels(shape: Shape) -> list[Kernel]:
    """The kernels that take the shape, of those whose name matches TORCH_DWCONV_TEST_KERNELS (default ``*``)."""
    pattern = os.environ.get("TORCH_DWCONV_TEST_KERNELS", "*")
    chosen = [kernel for kernel in all_kernels() if fnmatch.fnmatch(kernel.name, pattern)]
    if not chosen:
        raise ValueError(f"TORCH_DWCONV_TEST_KERNELS={pattern} matches no kernel")
    return [kernel for kernel in chosen if kernel.refusal(shape) is None]


def planted() -> dict[str, Kernel]:
    """The deliberately wrong kernels of ``planted.cpp`` (and ``none``, which is right), by the name of their fault."""
    addresses = extension().planted()
    return {name: Kernel(name, "forward", "f32", "nchw", "baseline", address) for name, address in addresses.items()}


# --- partitions: in which pieces and order the items of a stage run ---------------------------------------------------


def whole(items: int) -> Ranges:
    """One call for everything, none if there is nothing: what one thread does."""
    return [(0, items)] if items else []


def one_by_one(items: int) -> Ranges:
    return [(i, i + 1) for i in range(items)]


def reversed_items(items: int) -> Ranges:
    return one_by_one(items)[::-1]


def random_chunks(seed: int) -> Partition:
    """Chunks of random length in random order."""

    def partition(items: int) -> Ranges:
        rng = random.Random(seed)
        cuts = sorted({0, items, *rng.choices(range(items + 1), k=min(items, 7))})
        ranges = list(itertools.pairwise(cuts))
        rng.shuffle(ranges)
        return ranges

    return partition


# --- running --------------------------------------------------------------------------------------------------------


def _guarded(sizes: tuple[int, ...], dtype: torch.dtype, placement: str, margin: int):
    """A guarded buffer full of NaN, and the tensor that looks into it."""
    numel, side = torch.Size(sizes).numel(), getattr(extension().Placement, placement)
    buffer = extension().Guarded(numel * dtype.itemsize, dtype.itemsize, side, margin)
    return buffer, torch.frombuffer(buffer, dtype=dtype).view(sizes) if numel else torch.empty(sizes, dtype=dtype)


def run(
    kernel: Kernel,
    shape: Shape,
    operands: dict[str, torch.Tensor],
    *,
    placement: str = "back",
    partition: Partition = whole,
    with_bias: bool = True,
    activation: str = "none",
) -> dict[str, torch.Tensor]:
    """Run a kernel on operands that are dense in its layout and of its dtype.

    ``operands`` maps Buffers' names (input, weight, bias, grad_output) to tensors; those that the kernel's map does
    not read are not passed on. Operands are read-only and, like the results, lie between unreadable pages; results and
    workspace start as NaN. With ``with_bias`` forward reads the bias, grad_weight and backward write its gradient.

    Returns result, and grad_weight and grad_bias where they are written besides, in the kernel's layout. Raises
    KernelFault if the kernel touches memory that is not its own or writes to an operand, DamagedMargin if it writes
    close to what it may write.
    """
    dtype = DTYPES[kernel.dtype]
    given = {name: operands[name] for name in OPERANDS[kernel.operation] if with_bias or name != "bias"}
    buffers = {}
    for name, tensor in given.items():
        buffers[name], view = _guarded(tuple(tensor.shape), dtype, placement, NAN_BYTE)
        view.copy_(tensor)
        buffers[name].seal()
    outputs, views = {}, {}
    for name, size in shape.results(kernel.operation, kernel.layout, with_bias).items():
        outputs[name], views[name] = _guarded(size, dtype, placement, CANARY_BYTE)
    workspace_bytes = extension().workspace_bytes(kernel.address, shape)
    if workspace_bytes:
        # The front of a page is aligned to 64 bytes whatever the size; so is its end if the size is a multiple.
        side = "back" if placement == "back" and workspace_bytes % 64 == 0 else "front"
        outputs["workspace"], _ = _guarded((workspace_bytes,), torch.uint8, side, CANARY_BYTE)
    stages = [partition(items) for items in extension().items(kernel.address, shape)]
    extension().run(kernel.address, shape, buffers | outputs, stages, ACTIVATIONS.index(activation))
    for name, buffer in outputs.items():
        if (damage := buffer.damage()) is not None:
            raise DamagedMargin(f"{kernel.name} wrote to byte {damage} of its {name}, {shape}")
    return views

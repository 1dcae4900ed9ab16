"""The emulated CUDA kernels as kernels of tests/kernels: the same nets catch what is wrong with them."""

import functools
import os
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

import torch

from tests.cuda.build import build, extension
from tests.kernels.harness import Kernel
from tests.kernels.shapes import SEED, Shape
from torch_dwconv.operators import native

ORDERS = ("ascending", "descending", "random")


class CudaKernel(NamedTuple):
    """A line of the CUDA registry; ``kernel`` runs it on the emulator."""

    kernel: Kernel
    compute_capability: int


@functools.cache
def all_kernels() -> tuple[CudaKernel, ...]:
    """The CUDA registry, in its order."""
    return tuple(
        CudaKernel(Kernel(name, operation, dtype, layout, "emulated", address), capability)
        for name, operation, dtype, layout, capability, address in extension().kernels()
    )


def kernels(shape: Shape) -> list[Kernel]:
    """Those that take the shape, whatever device they need."""
    return [kernel.kernel for kernel in all_kernels() if kernel.kernel.refusal(shape) is None]


class EmulatedLibrary:
    """The CUDA library's registry as Python's ctypes sees it."""

    def dwconv_kernel_count(self):
        return len(all_kernels())

    def dwconv_kernel_field(self, index, field):
        return (*all_kernels()[index].kernel[:4], "cuda")[field].encode()

    def dwconv_kernel_refusal(self, index, numbers, activation, capability):
        asked = (index, list(numbers), activation, capability)
        reason = extension().refusal(*asked) or extension().passed_over(*asked)
        return None if reason is None else reason.encode()


def stand_in_for_a_gpu(monkeypatch, capability: tuple[int, int] = (9, 0)) -> None:
    """Has `explain` and `kernels` answer as on a device that is not there; nothing can be computed on it."""
    monkeypatch.setattr(native, "cuda_library", EmulatedLibrary())
    monkeypatch.setattr(native, "_cuda_refusal", lambda index: None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)


def set_order(order: str) -> None:
    """In which order the threads of a block, and the blocks, take their turns from here on."""
    extension().set_order(ORDERS.index(order), SEED)


def checker(build_name: str, order: str, *arguments: str, shapes: Iterable[Shape] = ()) -> subprocess.CompletedProcess:
    """Run ``checker`` of a sanitizer's build on shapes, or on a planted bug."""
    lines = "\n".join(" ".join(map(str, shape)) for shape in shapes)
    environment = dict(os.environ, ASAN_OPTIONS="detect_leaks=0", TSAN_OPTIONS="halt_on_error=1 exitcode=66")
    command = [str(build(build_name)), order, *arguments]
    return subprocess.run(
        command, input=lines, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )

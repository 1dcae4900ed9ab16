"""The emulated CUDA kernels as variants of tests/kernels: the same nets catch what is wrong with them."""

import functools
import os
import subprocess
from collections.abc import Iterable
from typing import NamedTuple

from tests.cuda.build import build, extension
from tests.kernels.harness import Variant
from tests.kernels.shapes import SEED, Shape

ORDERS = ("ascending", "descending", "random")


class CudaVariant(NamedTuple):
    """A line of the CUDA registry; ``variant`` runs it on the emulator."""

    variant: Variant
    compute_capability: int


@functools.cache
def all_variants() -> tuple[CudaVariant, ...]:
    """The CUDA registry, in its order."""
    return tuple(
        CudaVariant(Variant(name, map_name, dtype, layout, "emulated", address), capability)
        for name, map_name, dtype, layout, capability, address in extension().kernels()
    )


def variants(shape: Shape) -> list[Variant]:
    """Those that take the shape, whatever device they need."""
    return [kernel.variant for kernel in all_variants() if kernel.variant.refusal(shape) is None]


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

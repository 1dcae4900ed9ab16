"""Compiles csrc/cpu for some instruction sets and dtypes alone: seconds where the whole takes minutes.

Sanitizers, the fuzzer and mutants look at such parts: gcc takes more than three minutes and 2 GB for a family with
AddressSanitizer and UBSan.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path

from torch_dwconv.operators import native

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = tuple(sorted(path.parent.name for path in (ROOT / "csrc/cpu").glob("*/kernels.cpp")))
DTYPES = {"f32": "float", "f64": "double", "bf16": "bf16", "f16": "f16"}
# A family for each instruction set and dtype is a kernel list of its own; these are compiled whole.
SHARED = ("registry", "reference")


def isas() -> list[str]:
    """Those of x86-64 that this process may use, ascending."""
    levels = [level for level in native.ISA_LEVELS if level != "neon"]
    return levels[: levels.index(native.cpu_library.dwconv_isa().decode()) + 1]


def sources() -> list[Path]:
    """All of csrc/cpu that is compiled."""
    return [
        *(ROOT / f"csrc/cpu/{family}/kernels.cpp" for family in FAMILIES),
        *(ROOT / f"csrc/cpu/{name}.cpp" for name in SHARED),
    ]


def flags(isas: Iterable[str], dtypes: Iterable[str]) -> list[str]:
    """Arguments of the compiler that leave the other kernels out (csrc/cpu/simd/for_each_target.h, kernel_list.h)."""
    kernels = ", ".join(f"kernel(__VA_ARGS__, {dtype}, {DTYPES[dtype]})" for dtype in dtypes)
    return ["-DDWCONV_ONLY_ISA", *(f"-DDWCONV_ONLY_{isa}" for isa in isas), f"-DDWCONV_DTYPES(kernel, ...)={kernels}"]


def shell_flags(isas: Iterable[str], dtypes: Iterable[str]) -> str:
    """The same as words of a shell."""
    return shlex.join(flags(isas, dtypes))

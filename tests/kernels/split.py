"""Compiles one family of csrc/cpu for one instruction set and some dtypes: seconds where the whole file takes minutes.

Mutants need one such part at a time. Under sanitizers the parts fit into memory and time, which the whole does not: gcc
takes more than three minutes and 2 GB for a family with AddressSanitizer and UBSan.
"""

import re
import shutil
from pathlib import Path

from torch_dwconv.operators import native

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = ("nchw_gather", "nhwc_gather", "nchw_grad_weight", "nhwc_grad_weight")
DTYPES = {"f32": "float", "f64": "double", "bf16": "bf16", "f16": "f16"}
VECTOR_BYTES = {"baseline": 16, "avx2": 32, "avx512": 64}


def isas() -> list[str]:
    """Those of VECTOR_BYTES that this process may use, ascending."""
    levels = native.ISA_LEVELS[: native.ISA_LEVELS.index(native.cpu_library.dwconv_isa().decode()) + 1]
    return [isa for isa in VECTOR_BYTES if isa in levels]


def copied_tree(place: Path) -> Path:
    """A copy of csrc in an empty folder; the path of the copy."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", place / "csrc")
    return place / "csrc"


def replaced(path: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, lambda _: replacement, path.read_text(), flags=re.DOTALL)
    assert count == 1, f"{path} is no longer as {__name__} expects it: no {pattern}"
    path.write_text(text)


def keep_dtypes(tree: Path, dtypes) -> None:
    """In a copied tree, DWCONV_VARIANT adds kernels for these dtypes only. Lines for a single dtype stay."""
    kernels = ", ".join(f"DWCONV_KERNEL(operation, layout, kind, {dtype}, {DTYPES[dtype]}, body)" for dtype in dtypes)
    replaced(
        tree / "cpu/variants.h",
        r"#define DWCONV_VARIANT\(.*",
        f"#define DWCONV_VARIANT(operation, layout, kind, body) {kernels}\n",
    )


def target_pragma(isa: str) -> str:
    """The argument of DWCONV_TARGET_BEGIN in for_each_target.h."""
    text = (ROOT / "csrc/cpu/for_each_target.h").read_text()
    return re.search(rf'DWCONV_ISA {isa}\b.*?DWCONV_TARGET_BEGIN\("(.*?)"\)', text, re.DOTALL)[1]


def part_source(family: str, isa: str) -> str:
    """Defines `KernelList FAMILY_ISA()`: the family's kernels for one instruction set."""
    begin, end = ("", "")
    if isa != "baseline":
        begin, end = f'DWCONV_TARGET_BEGIN("{target_pragma(isa)}")', "DWCONV_TARGET_END"
    return f"""#include "target.h"
#define DWCONV_ISA {isa}
#define DWCONV_VEC_BYTES {VECTOR_BYTES[isa]}
namespace dwconv {{
namespace {{
{begin}
namespace {isa} {{
#include "vec.h"
#include "{family}_variants.h"
}}
{end}
}}
KernelList {family}_{isa}() {{ return {{std::begin({isa}::kernels), std::end({isa}::kernels)}}; }}
}}
"""


def families_source(parts) -> str:
    """The functions of registry.h that hand out a family's kernels, from parts (family, isa)."""
    lines = ['#include "registry.h"', "namespace dwconv {"]
    lines += [f"KernelList {family}_{isa}();" for family, isa in parts]
    for family in FAMILIES:
        lines.append(f"KernelList {family}_kernels(Isa isa) {{")
        lines += [f"  if (isa == Isa::{i}) return {f}_{i}();" for f, i in parts if f == family]
        lines += ["  (void)isa;", "  return {nullptr, nullptr};", "}"]
    return "\n".join([*lines, "}", ""])

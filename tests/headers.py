"""``python -m tests.headers``: every header of csrc but those for CUDA opens alone, for every target.

A header includes what it uses, and no order of includes matters. Those that are compiled for a target
(csrc/cpu/simd/target.h) are tried for each instruction set of x86-64. tests/cuda/test_headers.py does the same for
csrc/cuda.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.tidy import headers

ROOT = Path(__file__).resolve().parents[1]
WARNINGS = "-Wall -Wextra -Werror -Wno-psabi -Wno-unused-function -Wno-unused-variable -Wno-unused-const-variable"
TARGETS = {
    "baseline": (16, ""),
    "avx2": (32, "-mavx2 -mfma -mf16c -mbmi -mbmi2"),
    "avx512": (64, "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mf16c -mbmi -mbmi2"),
}


def commands() -> list[list[str]]:
    """A compiler call for each header and target; a header that no target touches once."""
    torch = headers()["TORCH"]
    found = []
    for path in sorted((ROOT / "csrc").rglob("*.h")):
        if "cuda" in path.relative_to(ROOT).parts:
            continue
        per_target = "== defined(DWCONV_TARGET_TOGGLE)" in path.read_text() and path.name != "target.h"
        for isa, (width, flags) in TARGETS.items() if per_target else {"": (0, "")}.items():
            words = [os.environ.get("CXX", "c++"), "-std=c++17", "-fsyntax-only", *WARNINGS.split()]
            if isa:
                words += [f"-DDWCONV_ISA={isa}", f"-DDWCONV_VEC_BYTES={width}", *flags.split()]
                words += ["-DDWCONV_ENTER_ISA=", "-DDWCONV_LEAVE_ISA="]
            if "binding" in path.parts:
                words += torch.split()
            found.append([*words, "-include", str(path), "-x", "c++"])
    return found


def run(command: list[str]) -> str:
    """What the compiler said, if it was not content."""
    done = subprocess.run([*command, "/dev/null"], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def main() -> int:
    calls = commands()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [text for text in pool.map(run, calls) if text]
    print("".join(found), end="")
    print(f"headers: {len(calls)} compiled by themselves, {len(found)} with errors")
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())

"""The checker and the kernels as clang compiles them, with the flags of the library: ``make check-clang``.

Kernels are compiled in parts (parts.py), an instruction set and a dtype each: one part takes a minute or two.
"""

import argparse
import datetime
import os
import shlex
import subprocess
import sys
from itertools import product

from tests.kernels import parts
from tests.kernels.cases import lines
from tests.kernels.test_sanitizers import drawn, edges


def failed(compiler: str, isa: str, dtype: str) -> bool:
    """Builds a part, and runs it on the edges and on random shapes of small work."""
    build = parts.ROOT / "build/checker" / "-".join((compiler, isa, dtype))
    flags = ["-Wno-pragma-clang-attribute", *parts.flags([isa], [dtype])]
    folder, cores = parts.ROOT / "tests/kernels/checker", os.cpu_count()
    make = ["make", "--no-print-directory", "--silent", "-C", folder, f"-j{cores}"]
    subprocess.run([*make, f"CXX={compiler}", f"BUILD={build}", f"KERNEL_FLAGS={shlex.join(flags)}"], check=True)
    print(f"{compiler}, {isa}, {dtype}: ", end="", flush=True)
    cases = "".join(lines(edges(8000) + drawn(150, 8000)))
    command = [build / "program", "--cases", "/dev/stdin"]
    return subprocess.run(command, input=cases, text=True, env=os.environ | {"TORCH_DWCONV_ISA": isa}).returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kernels.clang", description="The kernels built by clang.")
    parser.add_argument("compiler", help="such as clang++-19")
    parser.add_argument("--all", action="store_true", help="every instruction set and dtype, not today's")
    options = parser.parse_args()
    every = list(product(parts.isas(), parts.DTYPES))
    # Two days each, since the Makefile takes one compiler one day and the other the next.
    today = every[datetime.date.today().toordinal() // 2 % len(every)]
    wrong = [part for part in (every if options.all else [today]) if failed(options.compiler, *part)]
    for part in wrong:
        print("FAILED:", options.compiler, *part)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

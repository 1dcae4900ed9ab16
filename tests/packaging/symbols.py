"""Which system, PyTorch and Python a shared library needs, read off the symbols that it imports."""

import os
import re
import subprocess
from pathlib import Path

# The newest versions on a manylinux_2_28 system: AlmaLinux 8 with glibc 2.28 and GCC 8's run-time libraries.
# https://github.com/pypa/auditwheel/blob/main/src/auditwheel/policy/manylinux-policy.json
MANYLINUX_2_28 = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (8, 0, 0)}
# C++ names of torch, which change from release to release; the stable ABI is plain C.
UNSTABLE = ("_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch", "_ZNK5torch")


def imported(library: Path) -> list[str]:
    """The names that `library` takes from others, some with the version that they must have: exp@GLIBC_2.29.

    NM= in the environment is the tool for libraries of another machine.
    """
    command = [os.environ.get("NM") or "nm", "-D", "--undefined-only", "--with-symbol-versions", str(library)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split()[-1] for line in listing.splitlines()]


def binding(library: Path) -> list[str]:
    """The names of those that bind `library` to one Python or to one release of PyTorch."""
    names = [name.split("@")[0] for name in imported(library)]
    return [name for name in names if name.startswith(UNSTABLE) or name.lstrip("_").startswith("Py")]


def floor(library: Path) -> dict[str, tuple[int, ...]]:
    """The newest version of each system library's symbols that `library` imports, as {"GLIBC": (2, 14), ...}."""
    newest: dict[str, tuple[int, ...]] = {}
    for name, text in re.findall(r"@@?(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)", "\n".join(imported(library))):
        newest[name] = max(newest.get(name, (0,)), tuple(map(int, text.split("."))))
    return newest


def too_new(library: Path) -> dict[str, tuple[int, ...]]:
    """What `library` needs that a manylinux_2_28 system does not have."""
    return {name: version for name, version in floor(library).items() if version > MANYLINUX_2_28[name]}

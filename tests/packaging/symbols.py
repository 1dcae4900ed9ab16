"""Which system a shared library needs, read off the versions of the symbols that it imports."""

import re
import subprocess
from pathlib import Path

# The newest versions on a manylinux_2_28 system: AlmaLinux 8 with glibc 2.28 and GCC 8's run-time libraries.
# https://github.com/pypa/auditwheel/blob/main/src/auditwheel/policy/manylinux-policy.json
MANYLINUX_2_28 = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (8, 0, 0)}


def floor(library: Path) -> dict[str, tuple[int, ...]]:
    """The newest version of each system library's symbols that `library` imports, as {"GLIBC": (2, 14), ...}."""
    listing = subprocess.run(
        ["nm", "-D", "--undefined-only", "--with-symbol-versions", str(library)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    newest: dict[str, tuple[int, ...]] = {}
    for name, text in re.findall(r"@@?(GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)", listing):
        newest[name] = max(newest.get(name, (0,)), tuple(map(int, text.split("."))))
    return newest


def too_new(library: Path) -> dict[str, tuple[int, ...]]:
    """What `library` needs that a manylinux_2_28 system does not have."""
    return {name: version for name, version in floor(library).items() if version > MANYLINUX_2_28[name]}

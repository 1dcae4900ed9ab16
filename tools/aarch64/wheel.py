"""Builds the wheel for 64-bit Arm with a cross compiler, and checks which systems it runs on."""

import os
import shutil
import sys
from pathlib import Path

from tests.packaging import distributions

from . import system

PLATFORM = "manylinux_2_28_aarch64"


def build(output: Path) -> Path:
    """The wheel, in `output`. Its library is linked with the torch that `system.make` has downloaded."""
    environment = {
        **os.environ,
        "CXX": system.CXX,
        "TORCH_DWCONV_CUDA": "0",
        "TORCH_DWCONV_CROSS_TORCH": str(system.SITE / "torch"),
        # torch's libraries need others, which lie beside them or in the system: the linker need not look for them.
        "LDFLAGS": "-Wl,--unresolved-symbols=ignore-in-shared-libs",
    }
    base = system.FOLDER / "build"
    shutil.rmtree(base, ignore_errors=True)
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", base, "bdist_wheel"]
    system.run(*command, "--plat-name", PLATFORM, "--dist-dir", output, cwd=system.REPOSITORY, env=environment)
    (wheel,) = output.glob(f"*-{PLATFORM}.whl")
    distributions.check_contents(wheel)
    os.environ["NM"] = system.CXX.replace("g++", "nm")
    distributions.check_symbols(wheel, distributions.library_of(wheel))
    return wheel

"""A 64-bit Arm system without such a machine: Debian's Python in a folder, PyTorch beside it, run by qemu.

Nothing of it is installed here. mmdebstrap unpacks packages, pip downloads wheels, and both land under build/aarch64.
"""

import os
import shutil
import sys
import zipfile
from pathlib import Path

from tests.packaging.distributions import run

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "build" / "aarch64"
ROOT, SITE, PYTHON = FOLDER / "root", FOLDER / "site", FOLDER / "python"
CXX = os.environ.get("NEON_CXX", "aarch64-linux-gnu-g++")
EMULATOR = os.environ.get("NEON_RUN", "qemu-aarch64")
DEBIAN, PYTHON_VERSION = "bookworm", "3.11"
PACKAGES = ("python3", "libstdc++6", "libgomp1")
# The last torch whose wheel for this machine is a CPU build: 146 MB instead of 420 and CUDA's libraries.
TORCH = "torch==2.10.0"
# What torch imports, and what the tests import.
WHEELS = (
    *(TORCH, "typing_extensions", "sympy", "mpmath", "filelock", "fsspec", "jinja2", "markupsafe", "networkx", "numpy"),
    *("pytest>=9", "iniconfig", "packaging", "pluggy", "pygments", "expecttest", "hypothesis", "sortedcontainers"),
    "setuptools",
)
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64", "any")
TOOLS = {"mmdebstrap": "mmdebstrap", EMULATOR: "qemu-user", CXX: "g++-aarch64-linux-gnu"}


def need_tools() -> None:
    """Ends the program with one sentence where a tool is missing."""
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        packages = " ".join(TOOLS[tool] for tool in missing)
        sys.exit(f"{', '.join(missing)} not found; install: apt install {packages}")


def make() -> None:
    """Whatever of the system is not there yet. Takes a minute and 900 MB."""
    need_tools()
    FOLDER.mkdir(parents=True, exist_ok=True)
    once(ROOT, lambda folder: run(*_unpack(folder)))
    once(SITE, _download)
    # A shell script, so that a test which starts sys.executable again gets an emulated Python too.
    PYTHON.write_text(
        f'#!/bin/sh\nexec {EMULATOR} -L "{ROOT}" -E PYTHONPATH="{SITE}" "{ROOT}/usr/bin/python{PYTHON_VERSION}" "$@"\n'
    )
    PYTHON.chmod(0o755)
    (SITE / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(PYTHON)!r}\n")


def once(folder: Path, fill) -> None:
    """Fills a folder that does not exist yet; what ends half-way leaves nothing under its name."""
    if folder.exists():
        return
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    fill(part)
    part.rename(folder)


def _unpack(folder: Path) -> list:
    """Nothing of the packages is executed, and nothing needs root."""
    return [
        *("mmdebstrap", "--quiet", "--variant=extract", "--mode=fakechroot" if os.geteuid() else "--mode=root"),
        *("--arch=arm64", f"--include={','.join(PACKAGES)}", DEBIAN, folder),
    ]


def _download(folder: Path) -> None:
    wheels = folder.with_name("wheels")
    run(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"),
        *("--only-binary=:all:", "--python-version", PYTHON_VERSION, "--implementation", "cp"),
        *(word for platform in PLATFORMS for word in ("--platform", platform)),
        *("--dest", wheels, *WHEELS),
        env={name: value for name, value in os.environ.items() if name != "PIP_CONSTRAINT"},
    )
    for wheel in wheels.glob("*.whl"):
        unpack_wheel(wheel, folder)
    shutil.rmtree(wheels)


def unpack_wheel(wheel: Path, folder: Path) -> None:
    """As pip does for a wheel without scripts."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)

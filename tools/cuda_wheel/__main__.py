"""``python -m tools.cuda_wheel``: the CUDA library as a distribution of its own, installed beside the package and used.

The library comes from torch_dwconv/lib, where a build has left it, and the wheel of the package from `make package`.
The fresh environment sees the torch of the environment that runs this, which must be of the library's CUDA; a GPU is
not needed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.packaging import distributions
from tests.packaging.release import version_here

ROOT = Path(__file__).resolve().parents[2]
LOADED = """
import ctypes, sys
from torch_dwconv.operators import native
assert isinstance(native.cuda_library, ctypes.CDLL), native.cuda_library
assert native.cuda_library._name.startswith(sys.prefix), native.cuda_library._name
print("loaded:", native.cuda_library._name)
"""


def library_here() -> Path:
    """The CUDA library in the tree; ends the program where there is none, or several."""
    found = sorted((ROOT / "torch_dwconv/lib").glob("libtorch_dwconv_cuda*.so"))
    if len(found) != 1:
        sys.exit(f"torch_dwconv/lib must hold one CUDA library, got {len(found)}: make check-cuda")
    return found[0]


def build(library: Path, output: Path, machine: str) -> Path:
    """The wheel of a library, for systems from manylinux_2_28 on."""
    stage = ROOT / "build" / "cuda-wheel"
    shutil.rmtree(stage, ignore_errors=True)
    package = stage / library.stem.removeprefix("lib")
    package.mkdir(parents=True)
    shutil.copy(library, package)
    (package / "__init__.py").write_text('"""Holds the CUDA library, which torch_dwconv finds and loads."""\n')
    shutil.copy(ROOT / "tools/cuda_wheel/distribution_setup.py", stage / "setup.py")
    (stage / "version").write_text(version_here())
    distributions.check_symbols(library, library)
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--plat-name", f"manylinux_2_28_{machine}"]
    distributions.run(*command, "--dist-dir", output, cwd=stage)
    (wheel,) = output.glob("*.whl")
    return wheel


def use(package: Path, companion: Path, environment: Path) -> None:
    """Installs both, and has the package load the library; then pretends that the package is of another version."""
    distributions.install(package, environment)
    distributions.install(companion, environment)
    python = environment / "bin" / "python"
    distributions.run(python, "-c", LOADED, cwd=environment)
    (version,) = environment.glob("lib/python*/site-packages/torch_dwconv/version.py")
    version.write_text('__version__ = "9.9.9"\n')
    said = subprocess.check_output([python, "-m", "torch_dwconv"], cwd=environment, text=True)
    wanted = (
        f"does not fit torch_dwconv 9.9.9; run: pip install {companion.name.split('-')[0].replace('_', '-')}==9.9.9"
    )
    if wanted not in said:
        sys.exit(f"a library of another version must be refused with '{wanted}', got:\n{said}")
    print("refused beside another version")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.cuda_wheel", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("output", type=Path, help="an empty or missing folder")
    parser.add_argument("--package", type=Path, metavar="DIR", default=ROOT / "dist", help="what make package has made")
    options = parser.parse_args()
    output = options.output.resolve()
    if output.exists() and any(output.iterdir()):
        parser.error(f"output must be empty, got {output}")
    packages = sorted(options.package.glob("torch_depthwise-*.whl"))
    if len(packages) != 1:
        parser.error(f"{options.package} must hold one wheel of the package, got {len(packages)}: make package")
    wheel = build(library_here(), output, os.uname().machine)
    use(packages[0], wheel, output / "environment")
    print(f"{wheel.stat().st_size / 1e6:.1f} MB  {wheel.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

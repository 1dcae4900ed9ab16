"""Builds the sdist and the wheel, installs each into a fresh environment, and uses it there: ``make package``.

The fresh environments see the torch of the environment that runs this, by a path file, and nothing else of this
checkout: what pip puts there is what a user gets. The sdist compiles everything anew, without optimisation: whether
all is there does not depend on it, and the wheel of the same sources has it.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from . import symbols

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "torch_dwconv/lib/libtorch_dwconv_cpu.so"
SMOKE = """
import sys, torch, torch_dwconv
from importlib.metadata import version
assert torch_dwconv.__file__.startswith(sys.prefix), torch_dwconv.__file__
assert version("torch-depthwise") == torch_dwconv.__version__
model = torch_dwconv.convert(torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3, groups=8), torch.nn.Conv2d(8, 4, 1)))
model(torch.randn(2, 8, 9, 9)).sum().backward()
assert isinstance(model[0], torch_dwconv.DepthwiseConv2d) and model[0].weight.grad.isfinite().all()
assert torch_dwconv.diagnose().ok
import torch_dwconv.bench.layers
print(f"{torch_dwconv.__version__} on torch {torch.__version__}, Python {sys.version.split()[0]}: ok")
"""


def run(*command, **options) -> None:
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, **options)


def build(output: Path) -> tuple[Path, Path]:
    # The CPU library alone: the CUDA library is another distribution's (docs/packaging.md).
    os.environ["TORCH_DWCONV_CUDA"] = "0"
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "--outdir", output, ROOT)
    (sdist,) = output.glob("*.tar.gz")
    return sdist, tag(next(output.glob("*.whl")))


def library_of(wheel: Path) -> Path:
    """The library in a wheel, unpacked; a wheel that has another one too ends the program."""
    with zipfile.ZipFile(wheel) as archive:
        if others := [name for name in archive.namelist() if name.endswith(".so") and name != LIBRARY]:
            sys.exit(f"{wheel.name} has {', '.join(others)} too, left in the tree by another build: use a fresh clone")
        return Path(archive.extract(LIBRARY, wheel.parent / "unpacked"))


def check_symbols(named: Path, library: Path) -> None:
    """A library that asks for a newer system than manylinux_2_28, or for one PyTorch or Python, ends the program.

    Args:
        named: what messages call it, such as the wheel that holds it.
    """
    print("The library needs", symbols.floor(library))
    if missing := symbols.too_new(library):
        sys.exit(f"{named.name} does not run on manylinux_2_28 systems: it needs {missing}")
    if names := symbols.binding(library):
        sys.exit(f"{named.name} is for one PyTorch or Python: it needs {', '.join(names)}")


def tag(wheel: Path) -> Path:
    """The wheel, tagged manylinux_2_28 if its library asks for no newer system, and for no one PyTorch or Python."""
    check_symbols(wheel, library_of(wheel))
    platform = f"manylinux_2_28_{os.uname().machine}"
    run(sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", platform, wheel)
    return next(wheel.parent.glob("*.whl"))


def check_contents(wheel: Path) -> None:
    """The tag says which systems it is for, and everything a user needs is in it."""
    name, _, python, abi, platform = wheel.stem.split("-")
    assert (name, python, abi) == ("torch_depthwise", "py3", "none"), wheel.name
    assert platform.startswith("manylinux_2_28_"), wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (LIBRARY, "torch_dwconv/py.typed", "torch_dwconv/bench/layers.csv"):
        assert needed in names, f"{wheel.name} lacks {needed}"
    assert not [name for name in names if name.startswith(("benchmarks", "csrc", "examples", "tests", "tools"))], (
        wheel.name
    )


def install(distribution: Path, environment: Path) -> dict[str, str]:
    """Into an environment, made if need be, that sees this one's torch. Returns the variables to use it with."""
    python = environment / "bin" / "python"
    if not environment.exists():
        run(sys.executable, "-m", "venv", environment)
        (packages,) = environment.glob("lib/python*/site-packages")
        (packages / "torch_of_the_builder.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # Python before 3.12 puts a setuptools of its own there, too old to build with, in front of the builder's.
        run(python, "-m", "pip", "--disable-pip-version-check", "uninstall", "--quiet", "--yes", "setuptools")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["CXXFLAGS"] = "-O0"
    clean["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), clean["PATH"]])  # the builder's ninja
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--ignore-installed")
    run(python, "-m", "pip", "install", *options, "--no-build-isolation", distribution, env=clean)
    return clean


def install_and_use(distribution: Path, environment: Path) -> None:
    clean = install(distribution, environment)
    run(environment / "bin" / "python", "-c", SMOKE, cwd=environment, env=clean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="an empty or missing folder for everything that is made")
    output = parser.parse_args().output.resolve()
    if output.exists() and any(output.iterdir()):
        parser.error(f"output must be empty, got {output}")
    sdist, wheel = build(output)
    check_contents(wheel)
    for distribution, name in ((wheel, "from-wheel"), (sdist, "from-sdist")):
        install_and_use(distribution, output / name)


if __name__ == "__main__":
    main()

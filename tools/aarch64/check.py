"""Uses the package, from its wheel, on the emulated machine: self-test, tests of the layers above the kernels."""

import shutil
from pathlib import Path

from . import system

# Where tests run: the checkout without the package, or Python would find the sources instead of the wheel.
PLACE = system.FOLDER / "checkout"
TESTS = ("tests/operators", "tests/functional", "tests/modules", "tests/gradients")
# What a machine that is fifty times slower has time for in CI.
SLICE = (
    "tests/modules/test_depthwise_conv2d.py",
    "tests/gradients/test_values.py",
    "tests/gradients/test_gradcheck.py::test_second_order",
)


def run(wheel: Path, whole: bool) -> None:
    """Raises subprocess.CalledProcessError where something fails."""
    _install(wheel)
    _python("-m", "torch_dwconv")
    _python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow and not full", *(TESTS if whole else SLICE))


def _install(wheel: Path) -> None:
    for old in system.SITE.glob("torch_d*"):
        shutil.rmtree(old)
    system.unpack_wheel(wheel, system.SITE)
    shutil.rmtree(PLACE, ignore_errors=True)
    shutil.copytree(system.REPOSITORY / "tests", PLACE / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(system.REPOSITORY / "pyproject.toml", PLACE)


def _python(*arguments: str) -> None:
    system.run(system.PYTHON, *arguments, cwd=PLACE)

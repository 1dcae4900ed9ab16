"""The layers above the kernels on the kernels of older machines: a part of what `make check-isa` runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torch_dwconv.operators import native

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "gradients/test_values.py",
    "gradients/test_adjoint.py",
    "gradients/test_accuracy.py",
    "operators/test_layouts.py",
    "operators/test_threads.py",
)
MACHINE = native.cpu_library.dwconv_cpu_isa().decode()
OLDER = native.ISA_LEVELS[: native.ISA_LEVELS.index(MACHINE)]


@pytest.mark.slow
@pytest.mark.parametrize("isa", OLDER)
def test_capped(isa):
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not slow and not full", "-p", "no:cacheprovider"]
    command += [f"tests/{file}" for file in FILES]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TORCH_DWCONV_ISA"] = isa
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]

"""What `make lint` runs sees something."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import PLANTED, ROOT


@pytest.mark.skipif(
    not (Path(sys.executable).with_name("clang-tidy").exists() or shutil.which("clang-tidy")),
    reason="clang-tidy is not installed",
)
def test_clang_tidy_finds_a_planted_fault():
    """A bias that may be null, read in a template three calls down."""
    command = [sys.executable, "-m", "tests.tidy", str(PLANTED)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 1
    assert "clang-analyzer-core.NullDereference" in found.stdout and "1 sources, 1 with findings" in found.stdout

"""An import that cannot work says why in one sentence."""

import platform
import re
import subprocess
import sys

import pytest
import torch

from torch_dwconv.operators import native


def test_not_built(tmp_path):
    missing = tmp_path / "libtorch_dwconv_cpu.so"
    with pytest.raises(ImportError, match=f"not built, {re.escape(str(missing))} is missing: run `pip install -e"):
        native.load(missing)


def test_not_a_library(tmp_path):
    broken = tmp_path / "libtorch_dwconv_cpu.so"
    broken.write_bytes(b"not ELF")
    with pytest.raises(ImportError, match=r"cannot be loaded into PyTorch .*: build it again"):
        native.load(broken)


def test_old_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1+cpu"))
    with pytest.raises(ImportError, match=r"needs PyTorch 2\.10 or newer, got 2\.9\.1\+cpu"):
        native.load()


LEVELS = {"x86_64": "baseline, avx2, avx512", "aarch64": "baseline, neon"}[platform.machine()]
FOREIGN = {"x86_64": "neon", "aarch64": "avx2"}[platform.machine()]


@pytest.mark.parametrize("isa", ["avx1024", "AVX2", FOREIGN, ""])
def test_unknown_instruction_set(monkeypatch, isa):
    monkeypatch.setenv("TORCH_DWCONV_ISA", isa)
    with pytest.raises(ImportError, match=f"TORCH_DWCONV_ISA must be one of {LEVELS}, or not set, got '{isa}'"):
        native.load()


def test_capped_instruction_set_of_a_new_process():
    program = "from torch_dwconv.operators import native; print(native.cpu_library.dwconv_isa().decode())"
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, env={"TORCH_DWCONV_ISA": "baseline"}, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "baseline"

"""The package opens no network connection: not when it is built, not when it is imported, not when it computes.

Every process runs with ``no_network.cpp`` in it, which sees sockets of Python and of native code.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

USE = """
import torch, torch_dwconv
model = torch.nn.Sequential(torch.nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.nn.Conv2d(6, 6, 3, groups=6, stride=2))
torch_dwconv.convert(model)
for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 6, 9, 9, dtype=dtype).to(memory_format=layout).requires_grad_()
        model.to(dtype)(x).sum().backward()
torch_dwconv.fuse(model.eval(), x)(x)
print(torch_dwconv.explain(x, model[0].weight))
"""


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    """The library to preload."""
    library = tmp_path_factory.mktemp("guard") / "no_network.so"
    source = Path(__file__).with_name("no_network.cpp")
    subprocess.run(["c++", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"], check=True)
    return library


def attempts(guard, tmp_path, *arguments, cwd=ROOT, **environment) -> list[str]:
    """What Python, run with these arguments, and its children have tried."""
    log = tmp_path / "attempts"
    log.touch()
    mine = {"LD_PRELOAD": str(guard), "NO_NETWORK_LOG": str(log), **environment}
    subprocess.run([sys.executable, *arguments], cwd=cwd, env={**os.environ, **mine}, check=True)
    return log.read_text().split()


def test_attempts_are_seen(guard, tmp_path):
    tries = """
import socket, subprocess, sys
socket.socketpair()
for attempt in (socket.socket, lambda: socket.getaddrinfo("example.org", 80)):
    try:
        attempt()
        raise SystemExit("nobody refused")
    except OSError:
        pass
if len(sys.argv) == 1:
    subprocess.run([sys.executable, __file__, "child"], check=True)
"""
    (tmp_path / "tries.py").write_text(tries)
    assert attempts(guard, tmp_path, str(tmp_path / "tries.py")) == ["socket", "example.org"] * 2


def test_none_in_use(guard, tmp_path):
    assert attempts(guard, tmp_path, "-c", USE) == []


def test_none_in_a_build(guard, tmp_path):
    """All steps of one, on sources with nothing in them: what they contain makes no step another."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in (
        "setup.py",
        "setup_cuda.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "MANIFEST.in",
        "torch_dwconv",
        "csrc",
    ):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("lib", "__pycache__"))
        elif source.exists():
            shutil.copy(source, tree / name)
    for source in (tree / "csrc").rglob("*.cpp"):
        source.write_text("")
    build = ("setup.py", "--quiet", "build_ext", "--inplace")
    assert attempts(guard, tmp_path, *build, cwd=tree, TORCH_DWCONV_CUDA="0") == []
    assert (tree / "torch_dwconv/lib/libtorch_dwconv_cpu.so").exists()

"""setup.py ends with one sentence where something is missing, and what it builds has no Python in it."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import torch_dwconv

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(torch_dwconv.__file__).parent / "lib" / "libtorch_dwconv_cpu.so"


def build_error(tmp_path, **environment):
    """What a build that must fail prints as its last line."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib")]
    environment = {**os.environ, **environment}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def put_in_front(tmp_path, files):
    """A PYTHONPATH on which these modules hide the installed ones."""
    for name, source in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return str(tmp_path)


def test_missing_torch(tmp_path):
    path = put_in_front(tmp_path, {"torch.py": "raise ImportError(\"No module named 'torch'\")"})
    assert build_error(tmp_path, PYTHONPATH=path) == (
        "torch_dwconv: building needs torch 2.10 or newer in this environment (No module named 'torch'); "
        "run: pip install torch setuptools ninja, then: pip install --no-build-isolation ."
    )


def test_old_torch(tmp_path):
    path = put_in_front(tmp_path, {"torch.py": "__version__ = '2.9.1+cpu'"})
    error = build_error(tmp_path, PYTHONPATH=path)
    assert error.startswith("torch_dwconv: torch 2.9.1+cpu is too old, 2.10 or newer is needed; run: ")


def test_old_setuptools(tmp_path):
    old = {"__init__.py": "__version__ = '65.5.0'", "command/build_ext.py": "class build_ext: pass"}
    path = put_in_front(tmp_path, {f"setuptools/{name}": source for name, source in old.items()})
    error = build_error(tmp_path, PYTHONPATH=path)
    assert error == "torch_dwconv: setuptools 65.5.0 is too old; run: pip install 'setuptools>=77'"


def test_missing_compiler(tmp_path):
    error = build_error(tmp_path, CXX="no-such-compiler -m64")
    assert error == (
        "torch_dwconv: no C++ compiler (no-such-compiler) found; "
        "install one (Debian, Ubuntu: apt install g++) or set CXX to it"
    )


@pytest.fixture(scope="module")
def imported_symbols():
    listing = subprocess.run(["nm", "-D", "--undefined-only", str(LIBRARY)], check=True, capture_output=True, text=True)
    return [line.split()[-1] for line in listing.stdout.splitlines()]


def test_library_imports_no_python_symbol(imported_symbols):
    assert [name for name in imported_symbols if name.lstrip("_").startswith("Py")] == []


def test_library_imports_only_the_stable_abi_of_torch(imported_symbols):
    """C++ names of torch change from release to release; the stable ABI is plain C."""
    unstable = ("_ZN2at", "_ZNK2at", "_ZN3c10", "_ZNK3c10", "_ZN5torch", "_ZNK5torch")
    assert [name for name in imported_symbols if name.startswith(unstable)] == []
    assert any(name.startswith(("aoti_torch_", "torch_")) for name in imported_symbols)


def test_sdist_needs_no_torch_and_holds_what_a_build_needs(tmp_path):
    path = put_in_front(tmp_path / "front", {"torch.py": "raise ImportError('no torch')"})
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(tmp_path), "sdist"]
    command += ["--dist-dir", str(tmp_path), "--formats", "tar"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert sources | {"setup.py", "pyproject.toml", "LICENSE", "README.md", "Makefile"} <= names
    assert not [name for name in names if name.endswith(".so")]

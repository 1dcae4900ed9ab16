"""Which toolkit builds the CUDA library, or the one sentence that says why none does."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.packaging import symbols
from torch_dwconv.operators import native

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
import setup_cuda  # noqa: E402

NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo "Cuda compilation tools, release {version}, V{version}.48" ;;
  *--list-gpu-arch*) echo {architectures} | tr ' ' '\\n' ;;
  *) echo '#$ TOP={home}' >&2 ;;
esac
"""
LIBRARY = None if isinstance(native.cuda_library, str) else Path(native.cuda_library._name)


def pytorch(cuda="13.0", hip=None):
    return SimpleNamespace(__version__="2.14.1", version=SimpleNamespace(cuda=cuda, hip=hip))


@pytest.fixture
def toolkit(tmp_path, monkeypatch):
    """Makes an nvcc of some version and names it in CUDA_HOME."""

    def make(version="13.0", architectures="compute_75 compute_80 compute_90 compute_120", home=None):
        (tmp_path / "bin").mkdir(exist_ok=True)
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.write_text(NVCC.format(version=version, architectures=architectures, home=home or tmp_path))
        nvcc.chmod(0o755)
        monkeypatch.setenv("CUDA_HOME", str(tmp_path))
        return tmp_path

    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    return make


def test_a_toolkit_of_the_same_major_version_is_taken(toolkit):
    home = toolkit("13.4")
    assert setup_cuda.find_toolkit(pytorch("13.0")) == setup_cuda.Toolkit(home.resolve(), "13.4")


def test_the_toolkit_is_where_nvcc_says_it_is(toolkit, tmp_path, monkeypatch):
    home = toolkit(home=tmp_path / "bin" / "..")
    monkeypatch.delenv("CUDA_HOME")
    monkeypatch.setenv("PATH", str(home / "bin"), prepend=os.pathsep)
    assert setup_cuda.find_toolkit(pytorch()).home == home.resolve()


def test_another_major_version_is_refused(toolkit):
    home = toolkit("12.8")
    assert setup_cuda.find_toolkit(pytorch()) == (
        f"{home}/bin/nvcc is of CUDA 12.8 and PyTorch 2.14.1 of CUDA 13.0: "
        "install the CUDA 13 toolkit or set CUDA_HOME to it"
    )


def test_no_nvcc(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    assert setup_cuda.find_toolkit(pytorch()) == (
        f"CUDA_HOME={tmp_path} has no bin/nvcc, and PyTorch 2.14.1 is of CUDA 13.0: "
        "install the CUDA 13 toolkit or set CUDA_HOME to it"
    )


def test_an_nvcc_that_says_nothing(toolkit):
    home = toolkit()
    (home / "bin" / "nvcc").write_text("#!/bin/sh\n")
    assert "does not say where and of which version it is" in setup_cuda.find_toolkit(pytorch())


def test_pytorch_without_cuda_or_for_rocm(toolkit):
    toolkit()
    assert setup_cuda.find_toolkit(pytorch(None)) == "PyTorch 2.14.1 is built without CUDA"
    assert setup_cuda.find_toolkit(pytorch(None, "6.4")).startswith("PyTorch 2.14.1 is built for ROCm")


def test_architectures_are_those_that_nvcc_knows(toolkit, monkeypatch):
    known = " ".join(f"compute_{a}" for a in (75, 80, 86, 89, 90, 100, 103, 110, 120, 121))
    setup_cuda.select(setup_cuda.Toolkit(toolkit(architectures=known), "13.0"))
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "7.5 8.0+PTX 8.6 8.9 9.0 10.0 12.0+PTX"
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST")
    setup_cuda.select(setup_cuda.Toolkit(toolkit("12.6", architectures="compute_70 compute_75 compute_80"), "12.6"))
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "7.5 8.0+PTX"


def test_architectures_that_are_asked_for_are_respected(toolkit, monkeypatch):
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.7")
    setup_cuda.select(setup_cuda.Toolkit(toolkit(), "13.0"))
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "8.7"


@pytest.mark.parametrize(
    "arch_list, flags",
    [
        ("9.0", ["arch=compute_80,code=[sm_90]"]),
        ("7.5;8.0+PTX 8.6", ["arch=compute_75,code=[sm_75]", "arch=compute_80,code=[sm_80,compute_80,sm_86]"]),
        ("9.0+PTX", ["arch=compute_80,code=[sm_90]", "arch=compute_90,code=[compute_90]"]),
        ("11.0", ["arch=compute_110,code=[sm_110]"]),
        ("Hopper", []),
        ("9.0a", []),
        ("", []),
    ],
)
def test_devices_share_a_compilation(arch_list, flags):
    """PTX is that of the device that asks for it; an empty list is PyTorch's to fill."""
    assert setup_cuda.code_flags(arch_list) == [f"-gencode={flag}" for flag in flags]


def test_the_library_is_made_of_all_sources_and_named_by_its_cuda(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    library = setup_cuda.library(setup_cuda.Toolkit(tmp_path, "13.0"), "csrc", [])
    assert library.name == "torch_dwconv.lib.libtorch_dwconv_cuda13"
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc/cuda").rglob("*.c*")}
    sources = {name for name in sources if name.endswith((".cu", ".cpp"))}
    assert set(library.sources) == {*sources, "csrc/binding/single_threaded.cpp"}
    assert {"csrc/binding/tensors.h", "csrc/cuda/device/device.cuh", "csrc/cuda/binding/machine.h"} <= set(
        library.depends
    )


@pytest.mark.parametrize("value", ["yes", "2", "ONLY"])
def test_an_unknown_choice(monkeypatch, value):
    monkeypatch.setenv("TORCH_DWCONV_CUDA", value)
    with pytest.raises(ValueError, match=f"TORCH_DWCONV_CUDA must be 0, 1 or only, or not set, got '{value}'"):
        setup_cuda.choice()


def build(tmp_path, **environment):
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(tmp_path / "lib")]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=600
    )


@pytest.mark.parametrize("choice", ["1", "only"])
def test_a_library_that_is_required_and_cannot_be_built_stops_the_build(tmp_path, choice):
    built = build(tmp_path, TORCH_DWCONV_CUDA=choice, CUDA_HOME=str(tmp_path))
    assert built.returncode != 0 and "Traceback" not in built.stderr
    assert built.stderr.strip().splitlines()[-1].startswith("torch_dwconv: the CUDA library cannot be built: ")


def test_an_unknown_choice_stops_the_build(tmp_path):
    built = build(tmp_path, TORCH_DWCONV_CUDA="maybe")
    assert built.returncode != 0 and "Traceback" not in built.stderr
    sentence = "torch_dwconv: TORCH_DWCONV_CUDA must be 0, 1 or only, or not set, got 'maybe'"
    assert built.stderr.strip().splitlines()[-1] == sentence


def test_a_build_without_the_library_says_so_where_pytorch_has_cuda(monkeypatch, capsys, tmp_path):
    """What setup.py does before it compiles anything, without compiling."""
    program = (
        "import sys, types, setuptools; setuptools.setup = lambda **options: None; "
        "import setup, torch; torch.version.cuda = '13.0'; print(setup.cuda_toolkit())"
    )
    for choice, said in (("", "building without the CUDA library: CUDA_HOME="), ("0", "")):
        environment = {**os.environ, "CUDA_HOME": str(tmp_path), "TORCH_DWCONV_CUDA": choice, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=ROOT)
        assert ran.stdout.strip() == "None", ran.stderr
        assert ran.stderr.startswith(f"torch_dwconv: {said}") if said else ran.stderr == ""


@pytest.mark.skipif(LIBRARY is None, reason=f"no CUDA library: {native.cuda_library}")
def test_the_library_imports_only_the_stable_abi_of_torch_no_python_and_nothing_new_of_the_system():
    assert symbols.binding(LIBRARY) == [] and symbols.too_new(LIBRARY) == {}
    assert "aoti_torch_get_current_cuda_stream" in symbols.imported(LIBRARY)
    assert LIBRARY.stem == f"libtorch_dwconv_cuda{torch.version.cuda.split('.')[0]}"
    assert LIBRARY.stat().st_size < 60e6

"""The CUDA library for setup.py: which toolkit builds it, or why none does.

It can be built where PyTorch is a CUDA build and nvcc is of the same major version: the nvcc of ``CUDA_HOME``, else of
``PATH``, else of /usr/local/cuda. ``TORCH_DWCONV_CUDA`` decides: not set, the library is built where it can be; ``1``
makes it an error where it cannot; ``0`` leaves it out; ``only`` builds it alone, without the CPU library.
``TORCH_CUDA_ARCH_LIST`` chooses the devices, as for every extension of PyTorch.
"""

import os
import re
import shutil
import subprocess
from glob import glob
from pathlib import Path
from typing import NamedTuple

import setuptools

CHOICES = ("0", "1", "only")
# Machine code for these; and PTX, which the driver compiles for what else there is: of 8.0 for devices between them, of
# the newest for newer ones.
ARCHITECTURES = ("7.5", "8.0+PTX", "8.6", "8.9", "9.0", "10.0", "12.0+PTX")
# Through the PTX of which: the kernels tell 7.5, 8.0 and 10.0 apart, and compiling to PTX takes most of the time.
PTX_OF = {"7.5": "7.5", "8.0": "8.0", "8.6": "8.0", "8.9": "8.0", "9.0": "8.0", "10.0": "10.0", "12.0": "12.0"}


class Toolkit(NamedTuple):
    home: Path
    version: str  # "13.0"


def choice() -> str | None:
    """TORCH_DWCONV_CUDA, None if it is not set.

    Raises:
        ValueError: it is none of CHOICES.
    """
    value = os.environ.get("TORCH_DWCONV_CUDA") or None
    if value not in (None, *CHOICES):
        raise ValueError(
            f"TORCH_DWCONV_CUDA must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, or not set, got {value!r}"
        )
    return value


def find_toolkit(torch) -> Toolkit | str:
    """The toolkit that builds for this PyTorch, or in words why there is none."""
    if torch.version.hip is not None:
        return f"PyTorch {torch.__version__} is built for ROCm, and the kernels are for CUDA"
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    major = torch.version.cuda.split(".")[0]
    wanted = f"install the CUDA {major} toolkit or set CUDA_HOME to it"
    named = os.environ.get("CUDA_HOME")
    nvcc = str(Path(named, "bin", "nvcc")) if named else shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if not os.access(nvcc, os.X_OK):
        found = f"CUDA_HOME={named} has no bin/nvcc" if named else "no nvcc is found"
        return f"{found}, and PyTorch {torch.__version__} is of CUDA {torch.version.cuda}: {wanted}"
    try:
        # What is called nvcc may be a script or a link elsewhere; nvcc itself knows where its toolkit is.
        dry_run = subprocess.run(
            [nvcc, "-v", "-E", "-x", "cu", os.devnull], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ).stderr
        report = subprocess.run([nvcc, "--version"], stdout=subprocess.PIPE, text=True).stdout
    except OSError as error:
        return f"{nvcc} does not run ({error}): {wanted}"
    home, version = re.search(r"^#\$ TOP=(.+)$", dry_run, re.MULTILINE), re.search(r"release (\d+\.\d+)", report)
    if home is None or version is None:
        return f"{nvcc} does not say where and of which version it is: {wanted}"
    if version[1].split(".")[0] != major:
        return f"{nvcc} is of CUDA {version[1]} and PyTorch {torch.__version__} of CUDA {torch.version.cuda}: {wanted}"
    return Toolkit(Path(home[1]).resolve(), version[1])


def select(toolkit: Toolkit) -> None:
    """Makes torch.utils.cpp_extension, which must not have been imported yet, use the toolkit."""
    os.environ["CUDA_HOME"] = str(toolkit.home)
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        nvcc = toolkit.home / "bin" / "nvcc"
        known = subprocess.run([nvcc, "--list-gpu-arch"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        names = {name: f"compute_{name.removesuffix('+PTX').replace('.', '')}" for name in ARCHITECTURES}
        chosen = [name for name in ARCHITECTURES if names[name] in known]
        chosen[-1] = chosen[-1].removesuffix("+PTX") + "+PTX"
        os.environ["TORCH_CUDA_ARCH_LIST"] = " ".join(chosen)


def code_flags(arch_list: str) -> list[str]:
    """nvcc's flags for the devices of TORCH_CUDA_ARCH_LIST; none where PyTorch has to say what a name in it means."""
    codes: dict[str, list[str]] = {}
    for name in re.split(r"[ ;]+", arch_list.strip(" ;")):
        device = name.removesuffix("+PTX")
        if not re.fullmatch(r"\d+\.\d", device):
            return []
        of, number = PTX_OF.get(device, device).replace(".", ""), device.replace(".", "")
        codes.setdefault(of, []).append(f"sm_{number}")
        if name != device:
            codes.setdefault(number, []).append(f"compute_{number}")
    return [f"-gencode=arch=compute_{ptx},code=[{','.join(names)}]" for ptx, names in codes.items()]


def library(toolkit: Toolkit, include_dir: str, macros: list) -> setuptools.Extension:
    """libtorch_dwconv_cuda<major>.so: the kernels by nvcc, the binding by the C++ compiler, without a CUDA header."""
    major = toolkit.version.split(".")[0]
    sources = [path for end in ("cpp", "cu") for path in glob(f"csrc/cuda/**/*.{end}", recursive=True)]
    return setuptools.Extension(
        f"torch_dwconv.lib.libtorch_dwconv_cuda{major}",
        sources=sorted([*sources, "csrc/binding/single_threaded.cpp"]),
        depends=sorted(glob("csrc/*.h") + glob("csrc/binding/*.h") + glob("csrc/cuda/**/*.*h", recursive=True)),
        define_macros=macros,
        include_dirs=[include_dir],
        extra_compile_args={
            "cxx": ["-std=c++17", "-O2", "-g0", "-fvisibility=hidden", "-Wextra"],
            "nvcc": [
                "-std=c++20",
                "-O2",
                "-Xcompiler=-fvisibility=hidden",
                "-Xfatbin=-compress-all",  # the driver unpacks what it loads
                *code_flags(os.environ.get("TORCH_CUDA_ARCH_LIST", "")),
            ],
        },
        libraries=["torch_cuda", "torch_cpu", "torch", "c10"],
        library_dirs=[str(toolkit.home / name) for name in ("lib64", "lib")],
        # The runtime that PyTorch has loaded. By its full name: not every toolkit has a link without the version.
        extra_link_args=[f"-l:libcudart.so.{major}", "-Wl,--no-undefined", "-Wl,--wrap=dlsym"],
        language="c++",
    )

"""The compiled libraries: found, checked and loaded when torch_dwconv is imported.

Loading registers the operators torch.ops.torch_dwconv.{forward, grad_input, grad_weight, backward}: `cpu_library` for
CPU tensors, `cuda_library`, which there need not be, for CUDA tensors. Both also export their registries of kernels as
plain C functions (csrc/binding/introspect.h).
"""

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path

import torch

from .. import distribution

OLDEST_TORCH = "2.10"
# What TORCH_DWCONV_ISA may say, ascending: baseline and what the architecture has above it (kIsas in registry.cpp).
ISA_LEVELS = ("baseline", *{"x86_64": ("avx2", "avx512"), "aarch64": ("neon",)}.get(platform.machine(), ()))
SHAPE_FIELDS = 15  # of struct Shape in csrc/shape.h

_FOLDER = Path(__file__).parents[1] / "lib"
_PATH = _FOLDER / "libtorch_dwconv_cpu.so"

# Exported C functions: (result, arguments).
_SHAPE = ctypes.POINTER(ctypes.c_int64)
_REGISTRY_PROTOTYPES = {
    "dwconv_kernel_count": (ctypes.c_int64, ()),
    "dwconv_kernel_field": (ctypes.c_char_p, (ctypes.c_int64, ctypes.c_int64)),
}
_PROTOTYPES = _REGISTRY_PROTOTYPES | {
    "dwconv_isa": (ctypes.c_char_p, ()),
    "dwconv_cpu_isa": (ctypes.c_char_p, ()),
    "dwconv_kernel": (ctypes.c_void_p, (ctypes.c_int64,)),
    "dwconv_kernel_refusal": (ctypes.c_char_p, (ctypes.c_int64, _SHAPE)),
}
_CUDA_PROTOTYPES = _REGISTRY_PROTOTYPES | {
    "dwconv_kernel_refusal": (ctypes.c_char_p, (ctypes.c_int64, _SHAPE, ctypes.c_int64, ctypes.c_int64)),
    "dwconv_device_refusal": (ctypes.c_char_p, ()),
}


def load(path: Path = _PATH) -> ctypes.CDLL:
    """Registers the operators of the library at `path` with PyTorch and returns it with its C functions declared.

    Raises:
        ImportError: PyTorch is too old, TORCH_DWCONV_ISA names no instruction set, the library has not been built, or
            the dynamic linker refuses it.
    """
    if torch.__version__ < OLDEST_TORCH:
        raise ImportError(f"torch_dwconv needs PyTorch {OLDEST_TORCH} or newer, got {torch.__version__}: upgrade torch")
    isa = os.environ.get("TORCH_DWCONV_ISA")
    if isa is not None and isa not in ISA_LEVELS:
        raise ImportError(f"TORCH_DWCONV_ISA must be one of {', '.join(ISA_LEVELS)}, or not set, got {isa!r}")
    if not path.exists():
        raise ImportError(
            f"torch_dwconv is not built, {path} is missing: run `pip install -e . --no-build-isolation` in its checkout"
        )
    try:
        return _open(path, _PROTOTYPES)
    except OSError as error:
        raise ImportError(
            f"torch_dwconv cannot be loaded into PyTorch {torch.__version__} ({error}): "
            "build it again with `pip install -e . --no-build-isolation`"
        ) from error


def _open(path: Path, prototypes: dict) -> ctypes.CDLL:
    """Has the library at `path` register its operators, and declares its C functions."""
    torch.ops.load_library(path)
    library = ctypes.CDLL(str(path))
    for name, (result, arguments) in prototypes.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def load_cuda(folder: Path = _FOLDER) -> ctypes.CDLL | str:
    """The CUDA library that is of this PyTorch's major version of CUDA, loaded as `load` does; or in words why there is
    none, which is no error: F.conv2d computes on CUDA tensors then.

    It is in `folder` where it was built with the package, else in the distribution that holds it alone.
    """
    if torch.version.hip is not None:
        return "PyTorch is built for ROCm, and the kernels are for CUDA"
    if torch.version.cuda is None:
        return "PyTorch is built without CUDA"
    major = torch.version.cuda.split(".")[0]
    name = f"libtorch_dwconv_cuda{major}.so"
    path = folder / name
    if not path.exists():
        companion = distribution.cuda_companion(major)
        if isinstance(companion, str):
            return companion
        others = sorted(other.stem.removeprefix("libtorch_dwconv_cuda") for other in folder.glob("*_cuda*.so"))
        if companion is None and others:
            return f"torch_dwconv is built for CUDA {' and '.join(others)}, and PyTorch for {torch.version.cuda}"
        if companion is None:
            return "torch_dwconv is built without its CUDA library"
        path = companion / name
    try:
        return _open(path, _CUDA_PROTOTYPES)
    except OSError as error:
        return f"the CUDA library cannot be loaded ({error})"


@torch.compiler.assume_constant_result
def cuda_refusal(index: int) -> str | None:
    """Why the CUDA kernels do not run on the device cuda:`index`; None if they do."""
    return _cuda_refusal(index)


@functools.cache
def _cuda_refusal(index: int) -> str | None:
    if isinstance(cuda_library, str):
        return cuda_library
    try:
        with torch.cuda.device(index):
            refusal = cuda_library.dwconv_device_refusal()
    except (RuntimeError, AssertionError) as error:  # PyTorch's word on a machine without a device, or an old driver
        return str(error).partition("\n")[0]
    return None if refusal is None else refusal.decode()


def _load_or_say_why() -> ctypes.CDLL:
    """`load()`. If that fails, ``python -m torch_dwconv`` ends with the reason in one line instead of a traceback."""
    try:
        return load()
    except ImportError as error:
        # Python has "-m" there while it imports the package whose __main__ it will run.
        if sys.argv[:1] == ["-m"] and {"torch_dwconv", "-mtorch_dwconv"} & set(sys.orig_argv):
            sys.exit(f"torch_dwconv does not work: {error}")
        raise


# First, since files that the other distribution has replaced are a reason why loading fails.
distribution.warn_of_other()
cpu_library = _load_or_say_why()
cuda_library = load_cuda()

"""The compiled library: found, checked and loaded when torch_dwconv is imported.

Loading registers the operators torch.ops.torch_dwconv.{forward, grad_input, grad_weight} for CPU tensors. The library
also exports its registry of kernels as plain C functions (csrc/introspect.cpp), which `library` gives access to.
"""

import ctypes
import os
import platform
from pathlib import Path

import torch

OLDEST_TORCH = (2, 10)
# What TORCH_DWCONV_ISA may say, ascending: baseline and what the architecture has above it (kIsas in registry.cpp).
ISA_LEVELS = ("baseline", *{"x86_64": ("avx2", "avx512"), "aarch64": ("neon",)}.get(platform.machine(), ()))
SHAPE_FIELDS = 15  # of struct Shape in csrc/shape.h

_PATH = Path(__file__).parent / "lib" / "libtorch_dwconv_cpu.so"

# Exported C functions: (result, arguments).
_PROTOTYPES = {
    "dwconv_isa": (ctypes.c_char_p, ()),
    "dwconv_cpu_isa": (ctypes.c_char_p, ()),
    "dwconv_kernel_count": (ctypes.c_int64, ()),
    "dwconv_kernel": (ctypes.c_void_p, (ctypes.c_int64,)),
    "dwconv_kernel_field": (ctypes.c_char_p, (ctypes.c_int64, ctypes.c_int64)),
    "dwconv_kernel_refusal": (ctypes.c_char_p, (ctypes.c_int64, ctypes.POINTER(ctypes.c_int64))),
}


def load(path: Path = _PATH) -> ctypes.CDLL:
    """Registers the operators of the library at `path` with PyTorch and returns it with its C functions declared.

    Raises:
        ImportError: PyTorch is too old, TORCH_DWCONV_ISA names no instruction set, the library has not been built, or
            the dynamic linker refuses it.
    """
    if torch.__version__ < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise ImportError(f"torch_dwconv needs PyTorch {oldest} or newer, got {torch.__version__}: upgrade torch")
    isa = os.environ.get("TORCH_DWCONV_ISA")
    if isa is not None and isa not in ISA_LEVELS:
        raise ImportError(f"TORCH_DWCONV_ISA must be one of {', '.join(ISA_LEVELS)}, or not set, got {isa!r}")
    if not path.exists():
        raise ImportError(
            f"torch_dwconv is not built, {path} is missing: run `pip install -e . --no-build-isolation` in its checkout"
        )
    try:
        torch.ops.load_library(path)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(
            f"torch_dwconv cannot be loaded into PyTorch {torch.__version__} ({error}): "
            "build it again with `pip install -e . --no-build-isolation`"
        ) from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


library = load()

"""oneDNN by its own API, on reused buffers, in the fastest of nchw, nhwc and the blocked layout that it would choose.

PyPI has it as onednn-cpu-gomp with headers in onednn-devel-cpu-gomp; DNNLROOT may name another installation. Operands
and weight are put into the primitive's layouts beforehand, and the result stays in its own.
"""

import ctypes
import functools
import os
import sys
from pathlib import Path

import torch
from torch.utils import cpp_extension

from torch_dwconv.bench.contestants import Refused
from torch_dwconv.bench.problem import DTYPES, OPERATIONS
from torch_dwconv.bench.timing import Run, fastest
from torch_dwconv.weights import to_onednn

LAYOUTS = ("nchw", "nhwc", "its own")
_ARCHIVES = ("lib", "lib64")


def prefix() -> Path | None:
    """Where include/dnnl.hpp and lib/libdnnl.so are, None if nowhere."""
    roots = [os.environ.get("DNNLROOT"), sys.prefix, "/usr/local", "/usr"]
    for root in (Path(root) for root in roots if root):
        if (root / "include" / "dnnl.hpp").exists() and any((root / d / "libdnnl.so").exists() for d in _ARCHIVES):
            return root
    return None


@functools.cache
def _library() -> ctypes.CDLL:
    """onednn.cpp, compiled when it or the installation changed."""
    if (root := prefix()) is None:
        raise ImportError("no oneDNN found: pip install onednn-cpu-gomp onednn-devel-cpu-gomp, or set DNNLROOT")
    directories = [root / d for d in _ARCHIVES if (root / d / "libdnnl.so").exists()]
    os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)  # ninja, in an environment not activated
    try:
        path = cpp_extension.load(
            "torch_dwconv_bench_onednn",
            [str(Path(__file__).with_suffix(".cpp"))],
            extra_cflags=["-O2", "-fvisibility=hidden"],
            extra_include_paths=[str(root / "include")],
            extra_ldflags=["-ldnnl", *(f"-L{d} -Wl,-rpath,{d}" for d in directories)],
            is_python_module=False,
        )
    except (RuntimeError, OSError) as error:
        raise ImportError(f"onednn.cpp does not build: {str(error).splitlines()[0]}") from error
    library = ctypes.CDLL(path)
    pointer = ctypes.c_void_p
    library.create.argtypes = (ctypes.POINTER(pointer), *[ctypes.c_int] * 3, pointer, pointer, pointer, pointer)
    library.execute.argtypes = library.implementation.argtypes = library.destroy.argtypes = (pointer,)
    library.read_result.argtypes = (pointer, pointer)
    library.destroy.restype = None
    for name in ("create", "execute", "read_result", "implementation", "library_version"):
        getattr(library, name).restype = ctypes.c_char_p
    return library


def version() -> str:
    return _library().library_version().decode()


class Convolution:
    """One primitive with its memory.

    Args:
        operation: "forward", "grad_input" or "grad_weight".
        layout: index in LAYOUTS.
        input, grad_output: (N, C, H, W) and (N, C*M, OH, OW), of any strides.
        weight: (C, M, 1, KH, KW), oneDNN's dimensions goihw.
        stride, padding, dilation: (h, w); what the output reaches beyond them is padding at the bottom and right.
    """

    def __init__(self, operation: str, layout: int, input, weight, grad_output, stride, padding, dilation):
        self._library = _library()
        self._handle = ctypes.c_void_p()
        tensors = [tensor.contiguous() for tensor in (input, weight, grad_output)]
        batch, channels, height, width = input.shape
        numbers = (batch, channels, weight.shape[1], height, width, *weight.shape[3:], *grad_output.shape[2:])
        numbers += (*stride, *dilation, *padding)
        shape = (ctypes.c_int64 * len(numbers))(*numbers)
        dtype = self._library.data_type(list(DTYPES.values()).index(input.dtype))
        pointers = (tensor.data_ptr() for tensor in tensors)
        create = self._library.create
        self._check(create(ctypes.byref(self._handle), OPERATIONS.index(operation), dtype, layout, shape, *pointers))
        like = {"forward": grad_output, "grad_input": input, "grad_weight": weight}[operation]
        self._result = torch.empty(like.shape, dtype=like.dtype)

    @staticmethod
    def _check(error: bytes | None) -> None:
        if error is not None:
            raise Refused(error.decode())

    @property
    def implementation(self) -> str:
        return self._library.implementation(self._handle).decode()

    def execute(self) -> bytes | None:
        """Computes; returns the text of the error, for `result`."""
        return self._library.execute(self._handle)

    def result(self, error: bytes | None) -> torch.Tensor:
        """What the last execution computed, contiguous; the weight gradient with the dimensions of the weight."""
        self._check(error)
        self._check(self._library.read_result(self._handle, self._result.data_ptr()))
        return self._result

    def __del__(self):
        self._library.destroy(self._handle)


def runs(problem) -> dict[str, Run]:
    candidates, reason = {}, Refused("no layout")
    weight = to_onednn(problem.weight, problem.cell.layer.multiplier)
    operands = problem.input, weight, problem.grad_output, problem.stride, problem.padding, problem.dilation
    for layout, name in enumerate(LAYOUTS):
        try:
            convolution = Convolution(problem.cell.operation, layout, *operands)
        except Refused as refusal:
            reason = refusal
            continue

        def result(error, convolution=convolution):
            return convolution.result(error).reshape(problem.result_like.shape)

        candidates[name] = Run(convolution.execute, result, note=f"{name}, {convolution.implementation}")
    if not candidates:
        raise reason
    return {"reused": fastest(candidates)[1]}

"""What the machine cannot beat: moving the bytes, and doing the multiply-adds, measured beside the contestants.

    limit = max(time of the best stream of the same bytes, FLOPs of the taps inside the input / FMA peak)

The stream reads as many bytes as the operands have and writes as many as its result, on reused buffers and with
the same number of threads; the peak is that of multiply-adds on registers, in float32 for the 16-bit dtypes. Both are
loops in csrc/probe.
"""

import ctypes
import functools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from ..operators import native
from .problem import Problem
from .timing import Run, Timing

STREAMS = ("memcpy", "vector", "non-temporal")
_LINE = 64
_FMA_ITERATIONS = 2000  # a few microseconds

_library = native.cpu_library
_library.dwconv_probe_fma.restype = ctypes.c_double
_library.dwconv_probe_fma.argtypes = (ctypes.c_int64, ctypes.c_int64)
_library.dwconv_probe_stream.restype = None
_library.dwconv_probe_stream.argtypes = (
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
)


@functools.cache
def _executor(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


class _ThreadedRun(Run):
    """Runs ``work(thread, repeats)`` on every thread at once; its time is that of the slowest thread."""

    def __init__(self, work: Callable[[int, int], object], threads: int):
        super().__init__(call=lambda: self.seconds(1), pool="openmp" if threads == 1 else "python")
        self._work, self._threads = work, threads
        self._executor = _executor(threads) if threads > 1 else None
        self._barrier = threading.Barrier(threads)

    def seconds(self, repeats: int) -> float:
        if self._executor is None:
            return self._seconds_of(0, repeats)
        return max(self._executor.map(self._seconds_of, range(self._threads), [repeats] * self._threads))

    def _seconds_of(self, thread: int, repeats: int) -> float:
        self._barrier.wait()
        start = time.perf_counter()
        self._work(thread, repeats)
        return time.perf_counter() - start


def _aligned_bytes(size: int) -> torch.Tensor:
    """`size` bytes that begin at a cache line and were written: unwritten pages are all one page of zeros."""
    buffer = torch.ones(size + _LINE, dtype=torch.uint8)
    return buffer[-buffer.data_ptr() % _LINE :][:size]


def stream_runs(problem: Problem) -> dict[str, Run]:
    """The problem's bytes moved by each of STREAMS, split evenly between the threads in whole cache lines."""
    threads = problem.cell.threads
    read, written = (_LINE * math.ceil(size / threads / _LINE) for size in (problem.bytes_read, problem.bytes_written))
    source, target = _aligned_bytes(read * threads), _aligned_bytes(written * threads)

    def work(method: int, thread: int, repeats: int):
        to, start = target.data_ptr() + thread * written, source.data_ptr() + thread * read
        _library.dwconv_probe_stream(method, to, written, start, read, repeats)

    return {name: _ThreadedRun(functools.partial(work, method), threads) for method, name in enumerate(STREAMS)}


def fma_run(dtype: torch.dtype, threads: int) -> Run:
    """Multiply-adds on registers: a fixed number a call, which `fma_peak` knows."""

    def work(thread: int, repeats: int):
        _library.dwconv_probe_fma(int(dtype == torch.float64), _FMA_ITERATIONS * repeats)

    return _ThreadedRun(work, threads)


def fma_peak(dtype: torch.dtype, threads: int, timing: Timing) -> float:
    """FLOPs a second of all threads together, from the time of `fma_run`."""
    flops = _library.dwconv_probe_fma(int(dtype == torch.float64), _FMA_ITERATIONS)
    return threads * flops / timing.median

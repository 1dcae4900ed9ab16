"""Tests of the benchmarks start as all others do: from the same random state."""

import ctypes
import gc

import pytest

from tests.conftest import _same_random_numbers, fresh_compiler  # noqa: F401


class SignalStack(ctypes.Structure):
    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@pytest.fixture(scope="module")
def own_signal_stack():
    """The thread's stack for signals as it was: OpenVINO's CPU plugin sets its own, then unmaps it."""
    before, libc = SignalStack(), ctypes.CDLL(None)
    assert libc.sigaltstack(None, ctypes.byref(before)) == 0
    yield
    gc.collect()
    assert libc.sigaltstack(ctypes.byref(before), None) == 0

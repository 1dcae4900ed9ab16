"""What plain eager code is: the calls for which autograd is the only dispatch layer."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

_C = torch._C

PLAIN_TYPES = frozenset({Tensor, torch.nn.Parameter})


def _keys(*names: str) -> _C.DispatchKeySet:
    keys = _C.DispatchKeySet(getattr(_C.DispatchKey, names[0]))
    for name in names[1:]:
        keys = keys.add(getattr(_C.DispatchKey, name))
    return keys


# Looked up once: plain eager calls are counted in microseconds.
_is_compiling = torch.compiler.is_compiling
_thread_keys, _tensor_keys = _C._dispatch_tls_local_include_set, _C._dispatch_keys

# The dispatch keys of a dense tensor, by device, and those that a thread adds to every call when nothing is watching
# it; each first as usual, then in inference mode. Were a PyTorch to change them, calls would take the longer way.
_TENSOR_KEYS = (
    _keys("CPU", "ADInplaceOrView", "AutogradCPU", "AutocastCPU"),
    _keys("CPU", "AutocastCPU"),
    _keys("CUDA", "ADInplaceOrView", "AutogradCUDA", "AutocastCUDA"),
    _keys("CUDA", "AutocastCUDA"),
)
_THREAD_KEYS = _keys("BackendSelect", "ADInplaceOrView"), _keys("BackendSelect")


def is_plain_thread() -> bool:
    """Whether no functorch transform, dispatch mode or tracer watches this thread."""
    return _thread_keys() in _THREAD_KEYS


def is_plain(first: Tensor, second: Tensor, third: Tensor | None = None) -> bool:
    """Whether these are ordinary dense CPU or CUDA tensors in eager code that nothing transforms, traces or records.

    Then autograd is the only dispatch layer that a call would meet, and it may be met, or skipped, by hand. The keys of
    the thread show functorch transforms, dispatch modes and tracers; those of a tensor show subclasses, fake, sparse
    and lazily conjugated or negated tensors and other devices. Only forward mode leaves no trace in either.
    """
    return (
        not _is_compiling()
        and type(first) in PLAIN_TYPES
        and type(second) in PLAIN_TYPES
        and _thread_keys() in _THREAD_KEYS
        and _tensor_keys(first) in _TENSOR_KEYS
        and _tensor_keys(second) in _TENSOR_KEYS
        and (third is None or (type(third) in PLAIN_TYPES and _tensor_keys(third) in _TENSOR_KEYS))
        and forward_ad._current_level < 0
    )

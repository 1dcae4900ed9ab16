"""What the tracers of PyTorch may see of a call: torch.fx.symbolic_trace and torch.jit.trace."""

import contextlib

import torch
from torch.overrides import has_torch_function_variadic


def is_symbolic(*tensors) -> bool:
    """Whether torch.fx.symbolic_trace is recording this call: it gets a node of its own, by handle_torch_function."""
    return has_torch_function_variadic(*tensors) and any(isinstance(tensor, torch.fx.Proxy) for tensor in tensors)


def untraced() -> contextlib.AbstractContextManager:
    """Keeps what is done with sizes out of a torch.jit.trace, which would record it, and warn, as if they were data."""
    state = torch._C._get_tracing_state()
    return _NOTHING if state is None else _tracing_suspended(state)


_NOTHING = contextlib.nullcontext()  # one for all: it holds nothing


@contextlib.contextmanager
def _tracing_suspended(state):
    set_state = torch._C._set_tracing_state  # type: ignore[attr-defined]  # its stub has only the getter
    set_state(None)
    try:
        yield
    finally:
        set_state(state)

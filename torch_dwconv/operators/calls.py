"""How an operator is called below autograd, and what its error says if memory ran out."""

import re

import torch
from torch import Tensor

from .fake import EMPTY_RESULT

_C = torch._C


def below_autograd(op, *args):
    try:
        with _C._AutoDispatchBelowAutograd():
            return op._op(*args)
    except RuntimeError as error:
        _raise_out_of_memory(error, op, args)
        raise


def redispatch(op, keyset, args):
    """The call of a kernel at the Autograd key, handed on to what comes below it."""
    try:
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)
    except RuntimeError as error:
        _raise_out_of_memory(error, op, args)
        raise


def _raise_out_of_memory(error: RuntimeError, op, args) -> None:
    """Raises PyTorch's own out-of-memory error if an operator failed for want of memory.

    The stable ABI reports every failure inside PyTorch as "API call failed", without the reason. Making the same
    allocations here, the result, the workspace and dense copies of the operands, meets the same failure with its text.
    """
    if "API call failed" in str(error):
        allocations = [EMPTY_RESULT[op](*args)]
        if workspace := re.search(r"workspace of (\d+) bytes", str(error)):
            allocations.append(torch.empty(int(workspace[1]), dtype=torch.uint8, device=args[0].device))
        for arg in args:
            if isinstance(arg, Tensor):
                allocations.append(arg.clone(memory_format=torch.contiguous_format))

"""How an operator is called below autograd, what has its writes noticed, and what its error says if memory ran out."""

import re

import torch
from torch import Tensor

from .fake import EMPTY_RESULT

_C = torch._C


def below_autograd(op, *args, guard=_C._AutoDispatchBelowAutograd):
    """A call that autograd does not see. Of an operator that writes to arguments, its `counting` kernel does, unless
    `guard` is _AutoDispatchBelowADInplaceOrView.
    """
    try:
        with guard():
            return op._op(*args)
    except RuntimeError as error:
        raise_out_of_memory(error, op, args)
        raise


def redispatch(op, keyset, args):
    """The call of a kernel at the Autograd key, handed on to what comes below it."""
    try:
        with _C._AutoDispatchBelowAutograd():
            return op.redispatch(keyset & _C._after_autograd_keyset, *args)
    except RuntimeError as error:
        raise_out_of_memory(error, op, args)
        raise


def count_write(tensor: Tensor) -> None:
    """Has autograd notice that the tensor was written to: what saved it for a backward pass raises its error there."""
    if not tensor.is_inference():  # those have no count
        _C._increment_version((tensor,))


def counting(op):
    """The kernel at the ADInplaceOrView key of an operator that writes to arguments: counts the writes.

    Like PyTorch's own in-place operators, it is called in inference mode too, for tensors from outside of it.
    """
    schema = op._schema.arguments
    written = [i for i, argument in enumerate(schema) if argument.alias_info and argument.alias_info.is_write]

    def kernel(keyset, *args, **keywords):
        results = op.redispatch(keyset & _C._after_ADInplaceOrView_keyset, *args, **keywords)
        for i in written:
            count_write(args[i] if i < len(args) else keywords[schema[i].name])
        return results

    return kernel


def raise_out_of_memory(error: RuntimeError, op, args) -> None:
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

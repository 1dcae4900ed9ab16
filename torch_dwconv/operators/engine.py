"""Which gradients the backward pass in progress has a use for, asked of autograd's engine.

A Function learns from ctx.needs_input_grad which operands require a gradient. torch.autograd.grad and backward(inputs=)
want those of some, and the engine throws the others away. PyTorch's own nodes ask the engine first; so does this, by
private names of PyTorch. Where one is missing, or answers in a way that is not known here, an operand counts as needed.
"""

from typing import Any

import torch
from torch import Tensor

from .plain import PLAIN_TYPES, is_plain_thread

_C = torch._C

# Looked up once, since a backward pass of a tiny layer takes tens of microseconds.
_is_compiling = torch.compiler.is_compiling
_is_grad_enabled, _set_grad_enabled = torch.is_grad_enabled, _C._set_grad_enabled
_alias = torch.ops.aten.alias.default._op
_current_node: Any = getattr(_C, "_current_autograd_node", None)
_will_execute: Any = getattr(_C, "_will_engine_execute_node", None)
# Whether the pass was started without inputs=, which reentrant checkpoints ask.
_all_is_wanted: Any = getattr(torch.autograd.Variable._execution_engine, "is_checkpoint_valid", None)


def needed(ctx, tensors: int, v: Tensor) -> tuple[bool, ...]:
    """Whether each of the first `tensors` operands of a Function needs its gradient; called in its backward.

    Those are its only tensors, and only the last of them may be None. `v` is any incoming gradient.
    """
    marked = ctx.needs_input_grad[:tensors]
    if _is_compiling():  # what Dynamo traces and nobody uses does not stay
        return marked
    try:
        if _all_is_wanted() or sum(marked) < 2 or _current_node() is not ctx:  # the last if a node is called by hand
            return marked
        return _answers(marked, ctx.next_functions, v)
    except Exception:  # whatever a PyTorch has changed here, no gradient may be lost by it
        return marked


def _answers(marked, edges, v: Tensor) -> tuple[bool, ...]:
    """`marked`, less what the engine has no use for; `edges` are those of the operands that are tensors."""
    answers = [False] * len(marked)
    for i in reversed(range(len(edges))):
        if marked[i]:
            node = edges[i][0]
            if node.next_functions:
                answers[i] = _will_execute(node)
            else:
                # The engine would hardly be here for nothing, and this spares the input alone its question.
                answers[i] = (i == 0 and not any(answers)) or _is_leaf_wanted(i, node, v)
    return tuple(answers)


# About a leaf there are two ways to ask. If torch.autograd.grad wants it, the engine answers with an exception, which
# takes as long as a convolution, and otherwise at once; an alias takes a few microseconds. Both tell the truth. Once an
# operand has not been wanted a few times in a row, the engine is asked.
_FEW = 4
_times_unwanted = [0] * 3


def _is_leaf_wanted(operand: int, node, v: Tensor) -> bool:
    answer = (_engine_executes if _times_unwanted[operand] >= _FEW else _alias_computes)(node, v)
    _times_unwanted[operand] = 0 if answer else _times_unwanted[operand] + 1
    return answer


def _engine_executes(node, v: Tensor) -> bool:
    try:
        return _will_execute(node)
    except RuntimeError:
        return True


def _alias_computes(node, v: Tensor) -> bool:
    """Whether a node of PyTorch's own, which asks the engine, computes the gradient of the leaf; nothing is copied."""
    leaf = node.variable
    if not (leaf.requires_grad and type(leaf) in PLAIN_TYPES and is_plain_thread()):
        return _engine_executes(node, v)
    grad_enabled = _is_grad_enabled()
    _set_grad_enabled(True)
    try:
        alias = _alias(leaf).grad_fn
    finally:
        _set_grad_enabled(grad_enabled)
    return alias.next_functions[0][0] is not node or alias(v) is not None

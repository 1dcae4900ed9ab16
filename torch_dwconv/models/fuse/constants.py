"""Pass: what depends on parameters and buffers alone is computed once.

Frozen BatchNorm, weight standardisation, parametrisations, tables of relative positions.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx

from .program import Program, aten, module_name

_LIMIT = 2**24  # bytes: a larger result is kept only if it is no larger than what it is made of
_RANDOM = torch.Tag.nondeterministic_seeded
_UNINITIALISED = ("empty", "new_empty")


@torch.no_grad()
def fold_constants(program: Program) -> None:
    values: dict[fx.Node, Any] = dict(program.constants)
    computed: dict[fx.Node, None] = {}
    for node in program.calls():
        if not _may_be_computed(node) or not all(operand in values for operand in node.all_input_nodes):
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        operands = [values[operand] for operand in node.all_input_nodes]
        if _bytes(result) <= max(_LIMIT, sum(map(_bytes, operands))):
            values[node] = result
            computed[node] = None
    for node in computed:
        if isinstance(values[node], Tensor) and any(user not in computed for user in node.users):
            constant = program.add_constant(values[node], f"{module_name(node)}.{node.name}")
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in computed)
    for node in reversed([*computed]):
        if not node.users:
            program.graph.erase_node(node)
            program.convolutions.pop(node, None)


def copy_constant_outputs(program: Program) -> None:
    """Lets the caller have a copy of a constant that is a result: he may write to it."""
    output = next(iter(reversed(program.graph.nodes)))
    for node in output.all_input_nodes:
        if node in program.constants:
            with program.graph.inserting_before(output):
                output.replace_input_with(node, program.graph.call_function(aten.clone.default, (node,)))


def _may_be_computed(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return getattr(target, "__name__", "") == "getitem"
    returns_tensors = all("Tensor" in str(result.type) for result in target._schema.returns)
    name = target._schema.name.rpartition("::")[2]
    return (
        bool(target._schema.returns)
        and returns_tensors
        and not target._schema.is_mutable
        and _RANDOM not in target.tags
        and not name.startswith(_UNINITIALISED)
    )


def _bytes(result: Any) -> int:
    if isinstance(result, Tensor):
        return math.prod(result.shape) * result.element_size()
    return sum(map(_bytes, result)) if isinstance(result, (tuple, list)) else 0

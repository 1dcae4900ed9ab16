"""Pass: what depends on parameters and buffers alone is computed once.

Frozen BatchNorm, weight standardisation, parametrisations, tables of relative positions.
"""

import math
from typing import Any

import torch
from torch import Tensor, fx

from .program import Program, aten, module_name

_LIMIT = 2**24  # bytes: a larger result is kept only if it is no larger than what it is made of
_GROWTH = 1 / 20  # of the model's bytes, in all: tables of positions are made of small ones
_LITTLE = 2**18  # bytes in all that are no matter
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
    _limit_growth(program, values, computed)
    for node in computed:
        if _is_kept(node, values, computed):
            constant = program.add_constant(values[node], f"{module_name(node)}.{node.name}")
            node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in computed)
    for node in reversed([*computed]):
        if not node.users:
            program.graph.erase_node(node)
            program.convolutions.pop(node, None)


def _is_kept(node: fx.Node, values: dict[fx.Node, Any], computed: dict[fx.Node, None]) -> bool:
    return isinstance(values[node], Tensor) and any(user not in computed for user in node.users)


def _limit_growth(program: Program, values: dict[fx.Node, Any], computed: dict[fx.Node, None]) -> None:
    """Leaves the largest results to each call, until what is kept is little more than what it is made of."""
    before = sum(map(_bytes, program.constants.values()))
    while computed:
        kept = [node for node in computed if _is_kept(node, values, computed)]
        still_read = [node for node in program.constants if any(user not in computed for user in node.users)]
        after = sum(_bytes(values[node]) for node in (*kept, *still_read))
        if not kept or after <= before + max(_GROWTH * before, _LITTLE):
            return
        del computed[max(kept, key=lambda node: _bytes(values[node]))]


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

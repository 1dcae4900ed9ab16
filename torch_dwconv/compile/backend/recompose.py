"""Pass: what AOTAutograd has decomposed becomes the call that torch.export leaves, which the passes of fuse take."""

import operator
from typing import Any

from torch import fx

from ...models.fuse.program import Program, arguments_of, aten, same_sizes, value

_TRANSPOSES = (aten.t.default, aten.transpose.int, aten.permute.default)
_RESHAPES = (aten.reshape.default, aten.view.default, aten._unsafe_view.default)
_SAME = (aten.alias.default, aten.detach.default)  # of a graph without gradients


def recompose(program: Program) -> None:
    for node in program.calls(*_SAME):
        if all(user.op == "call_function" for user in node.users):
            program.replace(node, node.args[0])  # type: ignore[arg-type]
    for node in program.calls(aten.native_layer_norm.default):
        _layer_norm(program, node)
    for node in program.calls(aten.addmm.default, aten.mm.default):
        _linear(program, node)


def _layer_norm(program: Program, node: fx.Node) -> None:
    results = [user for user in node.users if user.target is operator.getitem]
    if any(user.args[1] != 0 and user.users for user in results):
        return  # mean or variance is read
    with program.graph.inserting_before(node):
        new = program.graph.call_function(aten.layer_norm.default, node.args)
    for user in results:
        if user.args[1] == 0:
            new.meta = {**user.meta}
            program.replace(user, new)
        else:
            program.graph.erase_node(user)


def _linear(program: Program, node: fx.Node) -> None:
    """addmm or mm of rows with a transposed weight, and the reshapes to rows and back."""
    given = arguments_of(node)
    bias = given["self"] if node.target is aten.addmm.default else None
    rows: Any = node.args[-2]
    transposed: Any = node.args[-1]
    if node.target is aten.addmm.default and (given["beta"] != 1 or given["alpha"] != 1 or value(bias).dim() != 1):
        return
    if not _is_transpose(transposed) or value(bias if bias is not None else rows).dtype != value(node).dtype:
        return
    weight = transposed.args[0]
    source = rows
    if rows.target in _RESHAPES and node.users:
        wide = value(rows.args[0]).shape
        back = [*wide[:-1], value(node).shape[-1]]
        keeps_rows = same_sizes(wide[-1:], value(rows).shape[-1:])
        if keeps_rows and all(user.target in _RESHAPES and same_sizes(value(user).shape, back) for user in node.users):
            source = rows.args[0]
    with program.graph.inserting_before(node):
        new = program.graph.call_function(aten.linear.default, (source, weight, bias))
    new.meta = {**node.meta}
    if source is rows:
        program.replace(node, new)
        return
    first, *others = node.users
    new.meta = {**first.meta}
    for user in (first, *others):
        program.replace(user, new)


def _is_transpose(node) -> bool:
    if not isinstance(node, fx.Node) or node.target not in _TRANSPOSES or value(node).dim() != 2:
        return False
    order: list[Any] = [*node.args[1:]]
    return order in ([], [0, 1], [1, 0], [[1, 0]])

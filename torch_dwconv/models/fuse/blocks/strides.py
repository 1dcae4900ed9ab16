"""Memory formats: blocks return channels_last, and what depends on strides gets those of the captured program."""

from typing import Any

import torch
from torch import Tensor, fx

from ....operators.block import BLOCK
from ....operators.formats import suggests_channels_last
from ....operators.schemas import FORWARD
from ..program import CHANNELS_LAST_AT, Program, aten, value
from .views import call

# What looks at strides, or refuses some. So may whatever is in the graph of a higher-order operator.
_OF_STRIDES = {
    aten.as_strided.default,
    aten.view.dtype,
    aten.view_as_complex.default,
    aten.view_as_real.default,
    aten.sym_stride.int,
    aten.sym_storage_offset.default,
    aten.stride.int,
    aten.is_contiguous.default,
    aten.is_contiguous.memory_format,
}
_STATELESS = ("aten", "torch_dwconv")


def wanted_strides(program: Program) -> list[tuple[fx.Node, list | None]]:
    """Of each tensor whose strides somebody sees: who, and the strides; once for each of its arguments, in order."""
    wanted = []
    for node in program.graph.nodes:
        if node.op == "output" or node.target in _OF_STRIDES or isinstance(node.target, torch._ops.HigherOrderOperator):
            for operand in _operands(node):
                strides = [*value(operand).stride()] if _is_dense(value(operand)) else None
                wanted.append((node, strides))
    return wanted


def _operands(node: fx.Node) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(node.args, lambda each: found.append(each))  # each place, where all_input_nodes has a node once
    return found


def _is_dense(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.layout == torch.strided and tensor.device.type != "meta"


def refresh(program: Program) -> None:
    """Computes the fake values again, behind the first block."""
    modes = [getattr(value(node), "fake_mode", None) for node in program.inputs()]
    mode = next((mode for mode in modes if mode is not None), None)
    if mode is None:
        return
    changed: set[fx.Node] = set()
    fakes: dict[fx.Node, Any] = {}

    def fake(node: fx.Node) -> Any:
        if node not in fakes:
            own = value(node)
            if isinstance(own, Tensor) and getattr(own, "fake_mode", None) is None:
                own = mode.from_tensor(own, static_shapes=True)
            fakes[node] = own
        return fakes[node]

    for node in program.calls():
        if node.target is not BLOCK and not any(operand in changed for operand in node.all_input_nodes):
            continue
        changed.add(node)
        if node.target is FORWARD:
            _follow(node)
        if isinstance(node.target, torch._ops.OpOverload) and node.target.namespace not in _STATELESS:
            continue
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), fake)
        try:
            with mode, torch.no_grad():
                node.meta["val"] = node.target(*args, **kwargs)  # type: ignore[operator]
        except Exception:  # what depends on data, or a higher-order operator: its strides are a guess
            continue
        fakes.pop(node, None)


def _follow(node: fx.Node) -> None:
    """Lets a depthwise convolution return the format that its input has now, as F.conv2d does."""
    channels_last = suggests_channels_last(value(node.args[0])) or suggests_channels_last(value(node.args[1]))
    node.update_arg(CHANNELS_LAST_AT, channels_last)


def restore_strides(program: Program, wanted) -> None:
    """Copies what would have other strides than those that somebody saw in the captured program."""
    places: dict[fx.Node, list] = {}
    for reader, strides in wanted:
        places.setdefault(reader, []).append(strides)
    for reader, each in places.items():
        copies: dict[fx.Node, fx.Node] = {}
        rest = iter(each)

        def place(operand: fx.Node, reader=reader, copies=copies, rest=rest) -> fx.Node:
            strides = next(rest)
            if operand not in copies:
                copies[operand] = _with_strides(program, operand, strides, reader)
            return copies[operand]

        reader.args = fx.node.map_arg(reader.args, place)


def _with_strides(program: Program, node: fx.Node, strides: list | None, reader: fx.Node) -> fx.Node:
    tensor = value(node)
    if strides is None or not _is_dense(tensor) or [*map(str, tensor.stride())] == [*map(str, strides)]:
        return node
    hints = [_hint(stride) for stride in strides]
    order = sorted(range(len(hints)), key=lambda dim: (-hints[dim], dim))
    back = sorted(range(len(order)), key=order.__getitem__)
    with program.graph.inserting_before(reader):
        if order == back == [*range(len(order))]:
            return call(program, aten.clone.default, node, memory_format=torch.contiguous_format)
        ordered = call(program, aten.permute.default, node, order)
        copy = call(program, aten.clone.default, ordered, memory_format=torch.contiguous_format)
        return call(program, aten.permute.default, copy, back)


def _hint(stride: Any) -> int:
    return stride if isinstance(stride, int) else stride.node.hint

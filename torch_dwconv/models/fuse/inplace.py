"""In-place operators: made functional where that is plainly the same, and made again where nobody can notice."""

import torch
from torch import fx

from ...operators.block import BLOCK
from ...operators.block.steps import DENSE, DEPTHWISE, decoded
from ...operators.schemas import FORWARD
from .program import ACTIVATION_AT, BATCH_NORMS, CONVOLUTIONS, Program, arguments_of, aten, same_sizes, value

# What returns memory of its own that no operand shares and, for a gradient, nobody keeps.
_FRESH_UNSAVED = (
    CONVOLUTIONS | BATCH_NORMS | {aten.linear.default, aten.addmm.default, aten.add.Tensor, aten.sub.Tensor}
)
_FRESH = _FRESH_UNSAVED | {
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.mean.dim,
    aten.cat.default,
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.matmul.default,
}
_UNARY = {
    aten.relu.default: aten.relu_.default,
    aten.hardtanh.default: aten.hardtanh_.default,
    aten.hardswish.default: aten.hardswish_.default,
    aten.hardsigmoid.default: aten.hardsigmoid_.default,
    aten.silu.default: aten.silu_.default,
    aten.sigmoid.default: aten.sigmoid_.default,
    aten.gelu.default: aten.gelu_.default,
    aten.leaky_relu.default: aten.leaky_relu_.default,
    aten.elu.default: aten.elu_.default,
}
_BINARY = {aten.add.Tensor: aten.add_.Tensor}
_FUNCTIONAL = {inplace: plain for plain, inplace in (_UNARY | _BINARY).items()} | {
    aten.relu6_.default: aten.relu6.default,
    aten.sub_.Tensor: aten.sub.Tensor,
    aten.mul_.Tensor: aten.mul.Tensor,
    aten.div_.Tensor: aten.div.Tensor,
    aten.clamp_.default: aten.clamp.default,
    aten.clamp_min_.default: aten.clamp_min.default,
}
_DETACH = (aten.detach.default, aten.detach_.default)
_HAS_STATE = {aten.batch_norm.default: "training", aten.instance_norm.default: "use_input_stats"}


def is_plainly_functional(graph: fx.Graph) -> bool:
    """Whether the graph changes no tensor but temporary ones that only the changing call reads.

    Otherwise torch.export has to make it functional, which takes longer than to capture it.
    """
    return all(_is_plain(node) for node in graph.nodes if node.op == "call_function")


def stops_gradients(graph: fx.Graph) -> bool:
    """Whether forward turns gradients off for parts of it, which a graph made functional does not say."""
    return any(
        "set_grad_enabled" in str(node.target)
        or (node.target in _DETACH and node.args[0].target is not aten.lift_fresh_copy.default)
        for node in graph.nodes
    )


def _is_plain(node: fx.Node) -> bool:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return not isinstance(target, torch._ops.HigherOrderOperator)
    if flag := _HAS_STATE.get(target):
        given = arguments_of(node)
        return not (given[flag] and given["running_mean"] is not None)
    if not target._schema.is_mutable:
        return target.namespace in ("aten", "torch_dwconv") or not target._schema.returns
    own = node.args[0]
    return (
        target in _FUNCTIONAL
        and isinstance(own, fx.Node)
        and (own.target in _FRESH or own.target in _UNARY or own.target in _FUNCTIONAL)
        and len(own.users) == 1
        and all(value(other).dtype == value(own).dtype for other in node.all_input_nodes if _is_tensor(other))
    )


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(value(node), torch.Tensor)


def make_functional(graph: fx.Graph) -> None:
    """For a graph that is plainly functional: without in-place operators."""
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = _FUNCTIONAL.get(node.target, node.target)


def make_inplace(program: Program) -> None:
    """The last pass: what alone reads the fresh result of a call, and writes one like it, writes there."""
    for node in program.calls(*_UNARY):
        if _may_be_overwritten(node.args[0], node):
            node.target = _UNARY[node.target]  # type: ignore[index]
    if len(program.inputs()) != 1:
        return  # vmap over some of several inputs refuses to write a batched result into a tensor that is none
    for node in program.calls(*_BINARY):
        if len(node.args) != 2 or node.kwargs:
            continue
        for own, other in (node.args, node.args[::-1]):
            if own is not other and isinstance(other, fx.Node) and _may_be_overwritten(own, node):
                node.target, node.args = _BINARY[node.target], (own, other)  # type: ignore[index]
                break


def _may_be_overwritten(own, node: fx.Node) -> bool:
    if not isinstance(own, fx.Node) or len(own.users) != 1 or not _is_fresh(own):
        return False
    old, new = value(own), value(node)
    return old.dtype == new.dtype and same_sizes(old.shape, new.shape) and same_sizes(old.stride(), new.stride())


def _is_fresh(node: fx.Node) -> bool:
    if node.target is FORWARD:
        return node.args[ACTIVATION_AT:] in ((), (0,))  # PyTorch's activations keep their result for the gradient
    if node.target is BLOCK:
        last = decoded(node.args[3])[-1]  # type: ignore[arg-type]
        return last.kind in (DENSE, DEPTHWISE) and not last.activation
    if getattr(node.target, "__name__", "") == "getitem":
        call, index = node.args[:2]
        return isinstance(call, fx.Node) and call.target in BATCH_NORMS and index == 0  # type: ignore[return-value]
    return node.target in _FRESH_UNSAVED

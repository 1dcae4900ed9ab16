"""to_aten: PyTorch's operators in place of ours in a graph that has been captured already."""

import operator
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ..operators.schemas import GRAD_INPUT
from .decompositions import LAYERS, aten, decompositions

Program = TypeVar("Program", torch.export.ExportedProgram, torch.fx.GraphModule)


def to_aten(program: Program) -> Program:
    """Replaces this package's operators by PyTorch's in a captured graph, in place.

    For tools that look for aten.conv2d and aten.conv_transpose2d, as PT2E quantisers do. A layer stays one node unless
    opposite sides are padded differently: then aten.pad comes before it, or narrow after a transposed one. The gradient
    of a weight becomes aten.convolution_backward. (Of a model that has not been captured yet, `revert` the layers.)

    Args:
        program: torch.export.ExportedProgram or torch.fx.GraphModule, whose nodes have ``meta["val"]``.

    Returns:
        `program`, the same object.

    Raises:
        TypeError: `program` is something else.
        ValueError: an operator has an operand of unknown size.

    >>> program = torch.export.export(DepthwiseConv2d(4, 4, 3), (torch.randn(1, 4, 8, 8),))
    >>> [node.target.name() for node in to_aten(program).graph.nodes if node.op == "call_function"]
    ['aten::conv2d']
    """
    module = program.graph_module if isinstance(program, torch.export.ExportedProgram) else program
    if not isinstance(module, torch.fx.GraphModule):
        raise TypeError(f"program must be an ExportedProgram or a GraphModule, got {type(program).__name__}")
    for part in module.modules():  # a region without gradients and the branches of a condition are modules in it
        if isinstance(part, torch.fx.GraphModule):
            top = part is module and isinstance(program, torch.export.ExportedProgram)
            for op in decompositions():
                for node in part.graph.find_nodes(op="call_function", target=op):
                    _replace(node, program.graph_signature if top else None)
            part.recompile()
    return program


# What export writes beside the node that a module of torch.nn made: quantisers find layers by it.
_MODULES: dict[torch._ops.OpOverload, type[nn.Module]] = {
    aten.conv2d.default: nn.Conv2d,
    aten.conv_transpose2d.input: nn.ConvTranspose2d,
    aten.relu.default: nn.ReLU,
    aten.hardtanh.default: nn.ReLU6,
    aten.hardswish.default: nn.Hardswish,
    aten.silu.default: nn.SiLU,
    aten.gelu.default: nn.GELU,
}


def _arguments(node: torch.fx.Node) -> list:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    args = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    return [args[name] for name in names if name in args]


def _replace(node: torch.fx.Node, signature) -> None:
    """Puts PyTorch's operators in place of one of ours."""
    lower, old, args = partial(decompositions()[node.target], terms=LAYERS), node, _arguments(node)
    options: dict[str, Any] = {}
    if node.target == GRAD_INPUT:
        old, args, options = _whole_layer(node, args)
    leaves = pytree.tree_leaves((args, options))  # of a block, its constants are in a list
    operands = list(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, torch.fx.Node)))
    if unknown := [operand.name for operand in operands if "val" not in operand.meta]:
        raise ValueError(f"to_aten needs meta['val'] of every node, as torch.export writes it; {unknown[0]} has none")

    def run(*values):
        known = dict(zip(operands, values, strict=True))
        return lower(*torch.fx.map_arg(args, known.get), **torch.fx.map_arg(options, known.get))

    with torch.no_grad():
        traced = make_fx(run, pre_dispatch=True)(*(operand.meta["val"] for operand in operands)).graph
    traced.eliminate_dead_code()
    places: dict[torch.fx.Node, Any] = dict(zip(traced.find_nodes(op="placeholder"), operands, strict=True))
    with node.graph.inserting_before(old):
        output: Any = node.graph.graph_copy(traced, places)
    made = [places[inner] for inner in traced.nodes if inner.op == "call_function"]
    for new in made:
        new.meta = {key: value for key, value in node.meta.items() if key != "val"} | new.meta
        if new.target in _MODULES:
            new.meta["source_fn_stack"] = [(new.name, _MODULES[new.target])]
    if isinstance(output, torch.fx.Node):
        _use(output, old, signature)
    else:
        for user in list(node.users):
            if user.target is operator.getitem:
                _use(output[user.args[1]], user, signature)
            else:  # the output of a graph that returns all of them
                user.args = torch.fx.node.map_aggregate(user.args, lambda arg: output if arg is node else arg)
    _erase_unused([node, *made])


def _use(new: torch.fx.Node, old: torch.fx.Node, signature) -> None:
    old.replace_all_uses_with(new)
    if signature is not None:
        signature.replace_all_uses(old.name, new.name)
    _erase_unused([old])


def _erase_unused(nodes: list[torch.fx.Node]) -> None:
    """Erases those of the nodes that nobody uses, and what is then used by nobody."""
    while nodes:
        node = nodes.pop()
        if node.op == "call_function" and not node._erased and not node.users and not node.is_impure():
            nodes += node.all_input_nodes
            node.graph.erase_node(node)


def _whole_layer(node: torch.fx.Node, args: list) -> tuple[torch.fx.Node, list, dict[str, Any]]:
    """What depthwise_conv_transpose2d has round grad_input for a channel multiplier and a bias is PyTorch's node too.

    Returns:
        The node that holds the layer's result, and what _grad_input takes for it.
    """
    grad_output, weight, in_channels, *sizes = args
    options: dict[str, Any] = {}
    if (repeated := _repeated(grad_output)) and weight.target in (aten.reshape.default, aten.view.default):
        (input, multiplier), filters = repeated, weight.args[0]
        shapes = [tuple(each.meta["val"].shape) for each in (input, filters, weight) if "val" in each.meta]
        kernel_size = shapes[-1][2:]
        if shapes[1:] == [(shapes[0][1], multiplier, *kernel_size), (in_channels, 1, *kernel_size)]:
            grad_output, weight, options = input, filters, {"groups": shapes[0][1]}
    user = next(iter(node.users)) if len(node.users) == 1 else None
    if user is not None and (bias := _bias(user, node)):
        return user, [grad_output, weight, in_channels, *sizes], options | {"bias": bias}
    return node, [grad_output, weight, in_channels, *sizes], options


def _repeated(node: torch.fx.Node) -> tuple[torch.fx.Node, int] | None:
    """The tensor whose channels a node repeats, and how often, as depthwise_conv_transpose2d writes it."""
    dim, there, back = 1, [0, 2, 3, 1], [0, 3, 1, 2]
    if channels_last := node.target == aten.permute.default and node.args[1] == back:
        dim, node = 3, node.args[0]  # type: ignore[assignment]
    if node.target != aten.repeat_interleave.self_int:
        return None
    input, multiplier, *dims = _arguments(node)
    if dims != [dim]:
        return None
    if not channels_last:
        return input, multiplier
    return (input.args[0], multiplier) if input.target == aten.permute.default and input.args[1] == there else None


def _bias(user: torch.fx.Node, node: torch.fx.Node) -> torch.fx.Node | None:
    """The bias, if `user` is the sum of a node and bias[:, None, None]."""
    if user.target != aten.add.Tensor or user.kwargs or user.args[0] is not node:
        return None
    term, dims = user.args[1], []
    while isinstance(term, torch.fx.Node) and term.target == aten.unsqueeze.default:
        term, dim = term.args
        dims.append(dim)
    if dims != [2, 1] or not isinstance(term, torch.fx.Node) or "val" not in term.meta:
        return None
    return term if term.meta["val"].shape == node.meta["val"].shape[1:2] else None

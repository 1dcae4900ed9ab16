"""Blocks that can run one after the other become one call, which knows where everything between them lies.

This is how a program runs in eager mode. What is exported, compiled or differentiated has the calls of the single
blocks.
"""

import copy
import operator

import torch
from torch import fx

from ...operators.block import BLOCK
from ...operators.block.steps import Step
from .program import Program

RUN_BLOCKS = torch.ops.torch_dwconv.run_blocks.default


def grouped(program: Program) -> tuple[str, dict, list[list[int]]]:
    """The source of the program with a call for each group, its globals, and the numbers of each group.

    Behind the arguments of the program the source takes those numbers as tensors:

        [blocks, outputs, the outputs..., of each block: source, residual, steps, the integers of the steps...]

    Values are counted from the inputs of the call on, then come the results of the blocks in order; -1 is none.
    """
    graph = copy.deepcopy(program.graph)
    numbers = [_to_call(graph, members, index) for index, members in enumerate(_find(graph))]
    graph.lint()
    code = graph.python_code("self")
    return code.src, {**code.globals}, numbers


def _find(graph: fx.Graph) -> list[list[fx.Node]]:
    """Blocks of which none needs what other operators make of an earlier one's result."""
    found: list[list[fx.Node]] = []
    members: list[fx.Node] = []
    behind: set[fx.Node] = set()  # what depends on the members
    for node in graph.nodes:
        reads = {*node.all_input_nodes}
        if node.target is not BLOCK:
            if not behind.isdisjoint(reads) or not reads.isdisjoint(members):
                behind.add(node)
            continue
        if members and (not behind.isdisjoint(reads) or _dtype(node) != _dtype(members[0])):
            found.append(members)
            members, behind = [], set()
        members.append(node)
    found.append(members)
    return [members for members in found if len(members) > 1]


def _dtype(node: fx.Node) -> torch.dtype:
    return node.meta["val"].dtype


def _to_call(graph: fx.Graph, members: list[fx.Node], index: int) -> list[int]:
    """Puts a call in the place of the members. Returns its numbers."""
    inside = {*members}
    inputs: dict[fx.Node, int] = {}
    for node in members:
        for read in (node.args[0], node.args[2]):
            if isinstance(read, fx.Node) and read not in inside:
                inputs.setdefault(read, len(inputs))
    value = {**inputs, **{node: len(inputs) + at for at, node in enumerate(members)}}
    outputs = [node for node in members if not inside.issuperset(node.users)]
    numbers = [len(members), len(outputs), *(value[node] for node in outputs)]
    constants: list[fx.Node] = []
    epsilons: list[float] = []
    for node in members:
        source, own, residual, steps, *epsilon = node.args  # torch.export leaves out what is the default
        numbers += [value[source], -1 if residual is None else value[residual]]  # type: ignore[index]
        numbers += [len(steps) // len(Step._fields), *steps]  # type: ignore[arg-type, misc]
        constants += own  # type: ignore[arg-type]
        epsilons.append(epsilon[0] if epsilon else 0.0)  # type: ignore[arg-type]
    _move_behind(graph, members)
    last_placeholder = [node for node in graph.nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(last_placeholder):
        held = graph.placeholder(f"numbers_{index}")
    with graph.inserting_after(members[-1]):
        call = graph.call_function(RUN_BLOCKS, ([*inputs], constants, held, epsilons))
    last = call
    for at, node in enumerate(outputs):
        with graph.inserting_after(last):
            last = graph.call_function(operator.getitem, (call, at))
        node.replace_all_uses_with(last, delete_user_cb=lambda user: user not in inside)
    for node in reversed(members):
        graph.erase_node(node)
    return numbers


def _move_behind(graph: fx.Graph, members: list[fx.Node]) -> None:
    """Moves what depends on the members behind the last of them."""
    place, behind = members[-1], {*members}
    for node in [*graph.nodes]:
        if node not in behind and not behind.isdisjoint(node.all_input_nodes):
            behind.add(node)
            if node < members[-1]:
                place.append(node)
                place = node

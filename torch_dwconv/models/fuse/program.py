"""Program: a captured graph while passes rewrite it, and what they ask of its nodes."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ...operators.schemas import FORWARD, GRAD_INPUT

aten = torch.ops.aten

# Convolutions whose weight has the output channels first, so that what scales channels can be folded into it.
CONVOLUTIONS = {
    FORWARD,
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
    aten.convolution.default,
}
TRANSPOSED = {
    GRAD_INPUT,
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
}
BATCH_NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}
NORMS = BATCH_NORMS | {
    aten._native_batch_norm_legit.no_stats,
    aten.instance_norm.default,
    aten.group_norm.default,
    aten.native_group_norm.default,
    aten.layer_norm.default,
    aten.native_layer_norm.default,
}
_VIEWS = {
    aten.permute.default,
    aten.transpose.int,
    aten.view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.contiguous.default,
    aten.clone.default,
}
_FORWARD_ARGUMENTS = [argument.name for argument in FORWARD._schema.arguments]
ACTIVATION_AT, CHANNELS_LAST_AT = _FORWARD_ARGUMENTS.index("activation"), _FORWARD_ARGUMENTS.index("channels_last")


class Unfit(Exception):
    """Why something is not folded."""


@dataclass
class Program:
    """A graph without state: its placeholders are the tensors of the call and the constants, in `constants`.

    Attributes:
        owner: holds the graphs of higher-order operators.
        leaves: for each leaf of the example arguments its placeholder, None for one that is no tensor.
        names: what each constant is called in the state_dict.
        convolutions: each convolution, in the order of the calls, by its name in the report.
        converted: names of those that were PyTorch's and are now this package's operator.
        taken: what a convolution has taken over.
        unfit: why a convolution took no more.
        blocks: the steps of each block, by a name for the report.
        in_blocks: the convolutions that are part of one.
        no_blocks: why steps of some dtype or device are in none.
        gradients: whether it has those of the model: forward turns them off nowhere, or the graph says where.
    """

    owner: fx.GraphModule
    leaves: list[fx.Node | None]
    constants: dict[fx.Node, Tensor]
    names: dict[fx.Node, str]
    convolutions: dict[fx.Node, str] = field(default_factory=dict)
    converted: list[str] = field(default_factory=list)
    taken: dict[fx.Node, list[str]] = field(default_factory=dict)
    unfit: dict[fx.Node, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    in_blocks: set[fx.Node] = field(default_factory=set)
    no_blocks: dict[str, None] = field(default_factory=dict)
    gradients: bool = True

    @property
    def graph(self) -> fx.Graph:
        return self.owner.graph

    def inputs(self) -> list[fx.Node]:
        """The placeholders of tensors; a graph of Dynamo's has others for sizes."""
        return [leaf for leaf in self.leaves if leaf is not None and isinstance(value(leaf), Tensor)]

    def calls(self, *targets) -> Iterator[fx.Node]:
        """The calls of any of these operators, all calls without one."""
        wanted = set(targets)
        for node in list(self.graph.nodes):
            if node.op == "call_function" and (not wanted or node.target in wanted):
                yield node

    def add_constant(self, value: Tensor, name: str) -> fx.Node:
        """A placeholder for one more constant, with a name of its own made of `name`."""
        own = constant_name(name, {*self.names.values()})
        with self.graph.inserting_before(next(iter(self.graph.nodes))):
            node = self.graph.placeholder(own)
        self.constants[node], self.names[node] = value, own
        node.meta["val"] = value
        return node

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Gives the readers of `old` the value of `new`, and removes `old` with what only it has read."""
        old.replace_all_uses_with(new)
        self._remove(old)

    def _remove(self, node: fx.Node) -> None:
        for user in [*node.users]:
            if user.target is operator.getitem and not user.users:  # another result, which nobody takes
                self.graph.erase_node(user)
        is_in_graph = node.prev.next is node  # what another operand was made of may be gone already
        if node.op == "call_function" and not node.users and is_in_graph:
            operands = node.all_input_nodes
            self.graph.erase_node(node)
            for operand in operands:
                self._remove(operand)

    def find_convolutions(self) -> None:
        """Fills `convolutions`."""
        seen: Counter = Counter()
        for node in self.calls(*CONVOLUTIONS, *TRANSPOSED):
            name = module_name(node)
            seen[name] += 1
            self.convolutions[node] = name if seen[name] == 1 else f"{name} (call {seen[name]})"

    def eliminate_dead_code(self) -> None:
        self.graph.eliminate_dead_code(is_impure_node=_is_impure)
        alive = {*self.graph.nodes}
        self.convolutions = {node: name for node, name in self.convolutions.items() if node in alive}

    def drop_unused_constants(self) -> None:
        for node in [node for node in self.constants if not node.users]:
            self.graph.erase_node(node)
            del self.constants[node], self.names[node]

    def parts(self) -> Iterator[tuple[str, fx.GraphModule]]:
        """The graphs of higher-order operators, the branches of torch.cond, which no pass looks into."""
        for name, part in self.owner.named_modules():
            if name and isinstance(part, fx.GraphModule):
                yield name, part

    def finish(self) -> None:
        """Removes what nothing reads, and puts the placeholders of the constants behind those of the call."""
        self.eliminate_dead_code()
        self.drop_unused_constants()
        for node in [node for node in self.graph.nodes if node.op == "placeholder"]:
            if node not in self.constants and node not in self.leaves:
                self.graph.erase_node(node)  # of an argument that is no tensor
        first = next(iter(self.graph.nodes))
        for node in (*filter(None, self.leaves), *self.constants):
            if node is not first:
                first.prepend(node)
            else:
                first = first.next
        for _, part in self.parts():
            part._tracer_cls = None  # torch.export's own, which pickle cannot make
        self.graph.lint()


def _is_impure(node: fx.Node) -> bool:
    """Whether a node does more than to compute its value: checks of sizes, and calls of graphs that might hold one."""
    if node.op in ("placeholder", "output"):
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return isinstance(node.target, torch._ops.HigherOrderOperator)
    return node.target._schema.is_mutable or not node.target._schema.returns


def constant_name(name: str, taken: set[str]) -> str:
    """What a constant made of the tensor `name` is called: an identifier that no plain model's state_dict has."""
    stem = own = "fused_" + re.sub(r"\W", "_", name).removeprefix("fused_")
    number = 2
    while own in taken:
        own, number = f"{stem}_{number}", number + 1
    return own


def value(node) -> Any:
    """The fake value of a node, with its sizes and strides."""
    return node.meta.get("val") if isinstance(node, fx.Node) else node


def same_sizes(first, second) -> bool:
    """Whether these are equal for all that dynamic sizes may be, without making that a condition."""
    return len(first) == len(second) and all(str(a) == str(b) for a, b in zip(first, second, strict=True))


def module_name(node: fx.Node) -> str:
    """The name of the innermost module that made this call."""
    stack = node.meta.get("nn_module_stack")
    return [*stack.values()][-1][0] if stack else str(node.name)


def module_class(node: fx.Node) -> str:
    """The class of the innermost module that made this call."""
    stack = node.meta.get("nn_module_stack")
    kind = [*stack.values()][-1][1] if stack else ""
    return (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def operator_name(node: fx.Node) -> str:
    if node.target is FORWARD:
        return "depthwise convolution"
    if node.target in BATCH_NORMS:
        return "batch_norm"
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.rpartition("::")[2]
    return getattr(node.target, "__name__", str(node.target))


def arguments_of(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call by name, with defaults."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema), node.args, strict=False)) | node.kwargs
    return {argument.name: given.get(argument.name, argument.default_value) for argument in schema}


def only_reader(node: fx.Node) -> fx.Node:
    """The one call that reads a node.

    Raises:
        Unfit: there is none, or more than one, or it is the caller of the program.
    """
    if len(node.users) != 1:
        raise Unfit(f"its result is used {len(node.users)} times")
    (reader,) = node.users
    if reader.op == "output":
        raise Unfit("nothing follows")
    return reader


def is_squeeze_of_row(node: fx.Node) -> bool:
    """Whether this takes the height of 1 off a 1-D convolution that was computed as a 2-D one."""
    if node.target not in (aten.squeeze.dim, aten.squeeze.dims) or len(value(node.args[0]).shape) != 4:
        return False
    dim = node.args[1] if node.target is aten.squeeze.dim else (*node.args[1],)  # type: ignore[misc]
    return dim in (2, -2, (2,), (-2,)) and value(node.args[0]).shape[2] == 1


def end_of(convolution: fx.Node) -> fx.Node:
    """Where the result of a convolution is read: behind the squeeze of a 1-D one."""
    if len(convolution.users) == 1 and is_squeeze_of_row(reader := next(iter(convolution.users))):
        return reader
    return convolution


def norm_behind(node: fx.Node) -> fx.Node | None:
    """A normalisation that reads a node, itself or through views of it."""
    for reader in node.users:
        if reader.target in NORMS:
            return reader
        if reader.target in _VIEWS and (norm := norm_behind(reader)):
            return norm
    return None


Pass = Callable[[Program], None]

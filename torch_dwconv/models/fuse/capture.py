"""From a model and example arguments to a Program: what torch.export is asked, and what of its answer is used."""

import copy
import re
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument

from . import inplace
from .inputs import Example, Inputs, TensorSpec, memory_format_of
from .program import Program, arguments_of, aten, constant_name, operator_name

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_LIFTED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
_IN_CONDITIONS = ("math", "max", "min", "abs")  # what a printed condition may call
_MAY_BE_RANDOM = ("train", "training", "p", "dropout_p")  # arguments without which an operator is not


class Refused(RuntimeError):
    """Why there can be no program of this model for these inputs."""


class Captured(NamedTuple):
    program: Program
    inputs: Inputs
    outputs: Any  # the structure of the result


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model that shares nothing with it.

    Raises:
        RuntimeError: it cannot be copied, or what it runs is not its own.
    """
    if type(model).__name__ == "OptimizedModule":
        raise RuntimeError("model was compiled by torch.compile: fuse the model itself, and compile what fuse returns")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise RuntimeError(f"{name or 'the model'} was compiled by TorchScript: fuse the model before that")
        where = f"{name or 'the model'} ({type(module).__name__})"
        for method in ("forward", "_conv_forward"):
            if isinstance(vars(module).get(method), types.FunctionType):
                raise RuntimeError(f"{where}: its {method} was replaced by a function, which may use the model itself")
    computed = (tensor for module in model.modules() for tensor in _computed_in(vars(module)))
    memo = {id(tensor): tensor.detach().clone() for tensor in computed}  # which deepcopy would refuse
    try:
        twin = copy.deepcopy(model, memo)
    except Exception as error:
        raise RuntimeError(f"model cannot be copied, and fuse works on a copy: {_reason(error)}") from error
    shared = {*_tensors_of(model)} & {*_tensors_of(twin)}
    if twin is model or shared:
        raise RuntimeError("model cannot be copied, and fuse works on a copy: its copy shares tensors with it")
    for (name, module), other in zip(model.named_modules(), twin.modules(), strict=True):
        for kind in _HOOKS:
            for key, hook in getattr(module, kind).items():
                if getattr(other, kind).get(key) is hook and not type(hook).__module__.startswith("torch.nn.utils"):
                    raise RuntimeError(
                        f"{name or 'the model'} ({type(module).__name__}) has a hook, {hook!r}, which would see what "
                        "torch.export traces and no call of the program: remove it before fuse"
                    )
    return twin


def _computed_in(value: Any) -> Iterator[Tensor]:
    """Tensors with a gradient's history in an attribute: the weight of a pruned layer, what a model has cached."""
    if isinstance(value, Tensor):
        if value.grad_fn is not None:
            yield value
    elif isinstance(value, (dict, list, tuple)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _computed_in(part)


def _tensors_of(model: nn.Module) -> Iterator[int]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield id(tensor)


def _reason(error: Exception) -> str:
    """The first lines of what an exception says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (" ".join(lines[:2]) or type(error).__name__)[:400]


def batch_sizes(leaves: list[Any]) -> list[int | None]:
    """For each leaf the size of its batch: of the tensors whose first dimension is the first tensor's."""
    first = next((leaf.shape[0] for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()), None)
    return [first if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == first else None for leaf in leaves]


def capture(model: nn.Module, example: Example, dynamic_shapes: Any) -> Captured:
    """The program of a copy of the model, which may be changed, as torch.export makes it.

    Args:
        dynamic_shapes: what torch.export takes; "batch" for a batch that varies if the model allows it.

    Raises:
        Refused: torch.export cannot capture it, or it changes state.
    """
    leaves = [_normalised(leaf) for leaf in example.leaves]
    if dynamic_shapes == "batch":
        batches = batch_sizes(leaves)
        # torch.export takes a size of 1 for a constant.
        leaves = [torch.cat([leaf, leaf]) if batch == 1 else leaf for leaf, batch in zip(leaves, batches, strict=True)]
        dynamic_shapes = example.shapes([None if batch is None else {0: Dim.AUTO} for batch in batches])
    args, kwargs = example.with_leaves(leaves)
    try:
        exported = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)
        inputs = _inputs(exported, example, leaves)
        gradients = inplace.is_plainly_functional(exported.graph) or not inplace.stops_gradients(exported.graph)
        if inplace.is_plainly_functional(exported.graph):
            inplace.make_functional(exported.graph)
        else:
            exported = exported.run_decompositions({})
    except Refused:
        raise
    except Exception as error:
        raise Refused(
            f"torch.export cannot capture {type(model).__name__}: {_reason(error)}\n"
            "convert(model) takes any model, and so does torch.compile after it."
        ) from error
    _check_signature(exported.graph_signature)
    for part in exported.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            _check_random(part.graph)
    program = _program(exported)
    program.gradients = gradients
    return Captured(program, inputs, exported.call_spec.out_spec)


def _normalised(leaf: Any) -> Any:
    return leaf.detach().contiguous(memory_format=memory_format_of(leaf)) if isinstance(leaf, Tensor) else leaf


def _user_inputs(exported) -> Iterator[tuple[Any, Any]]:
    """Of each leaf of the arguments its specification and its placeholder."""
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for spec in exported.graph_signature.input_specs:
        if spec.kind == InputKind.USER_INPUT:
            yield spec, placeholders[spec.arg.name]
        elif spec.kind not in _LIFTED:
            raise Refused(f"the model uses {spec.target or spec.arg.name}, {spec.kind.name}, which is no tensor")


def _inputs(exported, example: Example, leaves: list[Any]) -> Inputs:
    """What the program takes: sizes and the conditions on them that torch.export found."""
    specs: list[TensorSpec] = []
    users = [*_user_inputs(exported)]
    if len(users) != len(leaves):
        raise Refused(f"torch.export takes {len(users)} arguments of {len(leaves)}")
    names: dict[str, str] = {}
    for path, own, leaf, (spec, node) in zip(example.paths, example.leaves, leaves, users, strict=True):
        if not isinstance(spec.arg, (TensorArgument, ConstantArgument)):
            raise Refused(f"{path} is a number that varies, dynamic_shapes may be of tensors only")
        if not isinstance(leaf, Tensor):
            continue
        sizes = [_code(size) for size in node.meta["val"].shape]
        for axis, size in enumerate(sizes):
            if isinstance(size, str) and size.isidentifier() and size not in names:
                names[size] = _readable(axis, leaf.dim(), {*names.values()})
            if isinstance(size, int) and size != own.shape[axis]:
                raise Refused("the batch cannot vary")
        specs.append(TensorSpec(path, leaf.dtype, leaf.device, tuple(sizes), memory_format_of(leaf)))
    ranges: dict[str, list] = {own: [2, None] for own in names.values()}
    for symbol, allowed in exported.range_constraints.items():
        if str(symbol) in names:
            ranges[names[str(symbol)]] = [max(_integer(allowed.lower) or 0, 0), _integer(allowed.upper)]
    specs = [spec._replace(sizes=tuple(_renamed(size, names) for size in spec.sizes)) for spec in specs]
    return Inputs(example, specs, ranges, [*_conditions(users, names)])


def _readable(axis: int, dims: int, taken: set[str]) -> str:
    """A name for a size that varies."""
    name = "batch" if axis == 0 else {2: "height", 3: "width"}.get(axis, "size") if dims == 4 else "size"
    return name if name not in taken else next(f"{name}{n}" for n in range(2, 99) if f"{name}{n}" not in taken)


def _renamed(code: Any, names: dict[str, str]) -> Any:
    """Code with the names of sizes instead of torch.export's.

    Raises:
        Refused: it has a size that is none of the inputs'.
    """
    if not isinstance(code, str):
        return code
    if unknown := {*compile(code, "", "eval").co_names} - {*names, *_IN_CONDITIONS}:
        raise Refused(f"dynamic_shapes must give {', '.join(sorted(unknown))} a dimension of its own")
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), code)


def _code(size: Any) -> int | str:
    return size if isinstance(size, int) else _printed(size.node.expr)


def _printed(expression: Any) -> str:
    from torch.utils._sympy.printers import PythonPrinter  # imports SymPy

    return PythonPrinter().doprint(expression)


def _integer(bound: Any) -> int | None:
    try:
        return int(bound) if abs(int(bound)) < 2**62 else None
    except (TypeError, ValueError, OverflowError, AttributeError):  # SymPy's infinities
        return None


def _conditions(users, names: dict[str, str]) -> Iterator[str]:
    """What tracing has decided about sizes, and is so for no others: 'batch % 2 == 0'."""
    modes = [getattr(node.meta.get("val"), "fake_mode", None) for _, node in users]
    shape_envs = [mode.shape_env for mode in modes if mode is not None and mode.shape_env is not None]
    if not shape_envs:
        return
    shape_env = shape_envs[0]
    for guard in shape_env.guards:
        expression = guard.expr.xreplace(shape_env.replacements)
        symbols = {str(symbol) for symbol in expression.free_symbols}
        if symbols and symbols <= {*names}:
            yield f"({_renamed(_printed(expression), names)})"
        elif str(expression) == "False":
            raise Refused("what tracing decided about sizes contradicts itself")


def _check_signature(signature) -> None:
    for spec in signature.output_specs:
        if spec.kind == OutputKind.BUFFER_MUTATION:
            raise Refused(f"forward writes to the buffer {spec.target}, and a fused program has no state")
        if spec.kind != OutputKind.USER_OUTPUT:
            what = spec.target or spec.arg.name
            raise Refused(f"forward writes to {what} ({spec.kind.name}), and a fused program changes nothing")


def _check_random(graph: torch.fx.Graph) -> None:
    for node in graph.nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
            continue
        given = arguments_of(node)
        if not any(name in given and not given[name] for name in _MAY_BE_RANDOM):
            raise Refused(f"forward calls {operator_name(node)}, whose result is random")


def _program(exported) -> Program:
    """Takes the graph of an exported program, with its tensors."""
    graph = exported.graph
    placeholders = {node.name: node for node in graph.nodes if node.op == "placeholder"}
    constants: dict[torch.fx.Node, Tensor] = {}
    names: dict[torch.fx.Node, str] = {}
    leaves: list[torch.fx.Node | None] = []
    tensors: dict[str, Tensor] = {**exported.constants, **exported.state_dict}
    for spec in exported.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind in _LIFTED:
            constants[node] = tensors[spec.target].detach()
            names[node] = constant_name(spec.target, {*names.values()})
        else:
            leaves.append(node if isinstance(spec.arg, TensorArgument) else None)
    program = Program(exported.graph_module, leaves, constants, names)
    tidy(program)
    program.find_convolutions()
    return program


def _says_nothing(node: torch.fx.Node) -> bool:
    """Whether this is a dropout in its form for inference, which torch.export may have made a copy."""
    if node.target is aten.dropout.default:
        return not node.args[2]
    (source,) = node.all_input_nodes if len(node.all_input_nodes) == 1 else (None,)
    return (
        node.target is aten.clone.default
        and not node.kwargs
        and source is not None
        and source.op == "call_function"
        and all(user.op == "call_function" for user in (*node.users, *source.users))
    )


def tidy(program: Program) -> None:
    """Removes what says nothing, and lets no view depend on strides that torch.export has only foreseen."""
    for node in program.calls():
        if node.target is aten._assert_tensor_metadata.default:
            program.graph.erase_node(node)
        elif node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default
        elif node.target is aten.view_as.default:
            node.target = aten.reshape_as.default
        elif _says_nothing(node):
            program.replace(node, node.all_input_nodes[0])
    program.eliminate_dead_code()

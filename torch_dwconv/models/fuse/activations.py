"""Pass: the activation that alone reads a depthwise convolution becomes the operator's `activation`."""

from torch import fx

from ...operators.schemas import ACTIVATION_CODES, ACTIVATIONS, FORWARD
from .program import ACTIVATION_AT, Program, Unfit, arguments_of, aten, end_of, only_reader, operator_name

_ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.relu6.default: "relu6",
    aten.hardswish.default: "hardswish",
    aten.silu.default: "silu",
}
_GATES = {aten.sigmoid.default: "silu", aten.hardsigmoid.default: "hardswish"}  # by which x is multiplied
_OF_GATES = {aten.sigmoid.default: "sigmoid", aten.hardsigmoid.default: "hardsigmoid"}


def fold_activations(program: Program) -> None:
    for node in program.calls(FORWARD):
        if node.args[ACTIVATION_AT:] not in ((), (0,)):
            continue
        end = end_of(node)
        try:
            last, name = activation_behind(end)
            if name not in ACTIVATIONS:
                raise Unfit(f"{name} follows")
        except Unfit as reason:
            program.unfit.setdefault(node, str(reason))
            continue
        node.args = (*node.args[:ACTIVATION_AT], ACTIVATION_CODES[name])
        program.replace(last, end)
        program.taken.setdefault(node, []).append(name)


def activation_behind(node: fx.Node) -> tuple[fx.Node, str]:
    """The last call of the activation that reads a node, and its name; "sigmoid" and "hardsigmoid" too.

    Raises:
        Unfit: something else reads it.
    """
    gates = [user for user in node.users if user.target in _GATES]
    if len(gates) == 1 and len(node.users) == 2:
        (gate,), (product,) = gates, (user for user in node.users if user not in gates)
        if product.target is aten.mul.Tensor and {*product.args} == {node, gate} and {*gate.users} == {product}:
            return product, _GATES[gate.target]  # type: ignore[index]
    reader = only_reader(node)
    if name := (_ACTIVATIONS | _OF_GATES).get(reader.target):  # type: ignore[call-overload]
        return reader, name
    given = arguments_of(reader) if "aten" in str(reader.target) else {}
    if reader.target is aten.gelu.default:
        return reader, "gelu_tanh" if given["approximate"] == "tanh" else "gelu"
    bounds = clamp_bounds(reader)
    if bounds in ((0, 6), (0, None)):
        return reader, "relu6" if bounds[1] else "relu"
    raise Unfit(f"{operator_name(reader)} follows")


def clamp_bounds(node: fx.Node) -> tuple | None:
    """Between which numbers, None for none, a call clamps its operand; None if it does something else."""
    if node.target is aten.relu6.default:
        return 0, 6
    given = arguments_of(node) if "aten" in str(node.target) else {}
    if node.target is aten.hardtanh.default:
        return given["min_val"], given["max_val"]
    if node.target is aten.clamp.default:
        return given["min"], given["max"]
    return (given["min"], None) if node.target is aten.clamp_min.default else None

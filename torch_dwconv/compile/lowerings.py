"""How Inductor lowers the operators: each takes its operands in the memory format in which Inductor makes them.

The last word on layout in a compiled graph is Inductor's. On CPU it moves aten's convolutions, and what lies between
them, to channels_last, whatever the model's format. An operator that insisted on the format of the traced model would
stand between two conversions. These kernels work in either format, so the format is settled here, when the operand's is
known. What leaves the graph has the strides that were traced all the same: Inductor sees to that for every operator.

Imported when Inductor itself has been (operators/schemas.py), because importing it takes seconds.
"""

from torch._inductor import ir, lowering
from torch._inductor.virtualized import V

from ..operators.batch_norm import BATCH_NORM, BATCH_NORM_BACKWARD, BATCH_NORM_EVAL
from ..operators.block import BLOCK
from ..operators.schemas import FORWARD, GRAD_INPUT, GRAD_WEIGHT
from ..operators.sequence import BACKWARD, CAUSAL_CONV1D

NCHW, NHWC = [3, 2, 1, 0], [3, 0, 2, 1]  # stride orders: the rank of each dimension's stride


def _is_channels_last(operand) -> bool:
    """Whether channels lie closest together, in an operand whose layout is settled or would be if left to itself."""
    operand.realize()
    box = operand.data
    while isinstance(box, ir.MutableBox):
        box = box.data
    if isinstance(box, ir.ComputedBuffer) and isinstance(box.get_layout(), ir.FlexibleLayout):
        return any(_has_channels_inside(V.graph.try_get_buffer(name)) for name in box.get_read_names())
    return _has_channels_inside(operand)


def _has_channels_inside(buffer) -> bool:
    strides = None if buffer is None else buffer.maybe_get_stride()
    if strides is None or len(strides) != 4:  # a view that no strides describe is copied, in its traced format
        return False
    known = V.graph.sizevars.statically_known_equals
    return known(strides[1], 1) and not known(strides[3], 1)


def _to(operand, channels_last: bool):
    return ir.ExternKernel.require_stride_order(operand, NHWC if channels_last else NCHW)


def _let_users_follow(node) -> None:
    """Marks what is computed from `node`, element by element, as channels_last, as Inductor does after convolutions.

    Otherwise what is saved for backward is converted to the traced format, and back in the graph that reads it.
    """
    size, reached = node.meta["val"].shape, [node]
    while reached:
        node = reached.pop()
        V.graph.nodes_prefer_channels_last.add(node)
        for user in node.users:
            value = user.meta.get("val")
            if hasattr(value, "shape") and value.shape == size and user not in V.graph.nodes_prefer_channels_last:
                reached.append(user)


def _follow_first_operand(op):
    """Lowers `forward` and `grad_input`: the result has the format of the first operand."""
    place = [argument.name for argument in op._schema.arguments].index("channels_last")
    call = lowering.fallback_handler(op, add_to_fallback_set=False)

    def lower(first, *rest, **keywords):
        args = [first, *rest]
        args[place] = args[place] or _is_channels_last(first)
        args[0] = _to(first, args[place])
        if args[place]:
            _let_users_follow(V.graph.current_node)
        return call(*args, **keywords)

    return lower


def _same_format(op):
    """Lowers `grad_weight`: both operands have one format; that of the result is another matter."""
    call = lowering.fallback_handler(op, add_to_fallback_set=False)

    def lower(input, grad_output, *sizes, **keywords):
        channels_last = _is_channels_last(input)
        return call(_to(input, channels_last), _to(grad_output, channels_last), *sizes, **keywords)

    return lower


def register() -> None:
    """Gives Inductor the lowerings; it had none for these operators."""
    for op, lower in (
        (FORWARD, _follow_first_operand(FORWARD)),
        (GRAD_INPUT, _follow_first_operand(GRAD_INPUT)),
        (GRAD_WEIGHT, _same_format(GRAD_WEIGHT)),
    ):
        lowering.add_needs_realized_inputs(op)
        lowering.register_lowering(op, type_promotion_kind=None)(lower)
    # Inductor does for these what it does for an operator unknown to it: every operand comes with the strides that were
    # traced. It is told so, because it refuses to do so by itself where `CI` is set and a decomposition exists.
    for op in (BLOCK, BATCH_NORM, BATCH_NORM_EVAL, BATCH_NORM_BACKWARD, CAUSAL_CONV1D, BACKWARD):
        lowering.make_fallback(op, lowering.constrain_to_fake_tensors, warn=False)

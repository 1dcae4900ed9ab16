"""What follows a step becomes part of it: scales and shifts of each channel, a residual, an activation.

Each of these may stand behind views of the result, since it computes element by element.
"""

from typing import Any

import torch
from torch import Tensor, fx

from ....operators.block.steps import CODES, DENSE, DEPTHWISE
from ....operators.schemas import ACTIVATIONS
from ..activations import activation_behind
from ..norms import ARITHMETIC, batch_norm_affine, result_of
from ..program import BATCH_NORMS, Program, Unfit, aten, only_reader, operator_name, same_sizes, value
from .draft import Draft, Drafts, Part, residual_of
from .views import VIEWS, Axes, axes_through, channel_axis, image_like, own_axes

_FLOATS = (int, float)


def take_epilogues(program: Program, drafts: Drafts) -> None:
    for node, draft in drafts:
        if draft.last.step.kind in (DENSE, DEPTHWISE):
            while _take_one(program, drafts, node, draft):
                pass


def _take_one(program: Program, drafts: Drafts, node: fx.Node, draft: Draft) -> bool:
    """Whether something behind a block, or behind views of it, has become part of it."""
    path: list[fx.Node] = []
    end, axes = node, own_axes(node)
    while True:
        for take in (_activation, _affine, _residual):
            try:
                last, name = take(program, drafts, node, end, [*path], axes)
            except Unfit:
                continue
            program.replace(last, end)
            for layer in draft.last.layers:
                program.taken.setdefault(layer, []).append(name)
            return True
        reader = next(iter(end.users)) if len(end.users) == 1 else None
        if reader is None or reader.target not in VIEWS or reader.args[0] is not end:
            return False
        through = axes_through(reader, axes, value(node).shape)
        if through is None:
            return False
        path.append(reader)
        end, axes = reader, through


def same_kind(old: fx.Node, new: fx.Node) -> None:
    """Raises Unfit if a call changes the size or the dtype."""
    if value(old).dtype != value(new).dtype or not same_sizes(value(old).shape, value(new).shape):
        raise Unfit("its dtype or size changes")


def _activation(program, drafts: Drafts, node: fx.Node, end: fx.Node, path, axes) -> tuple[fx.Node, str]:
    draft = drafts.of[node]
    last, name = activation_behind(end)
    same_kind(end, last)
    if draft.last.step.activation:
        raise Unfit("it has an activation")
    if draft.last.step.kind == DEPTHWISE and name not in ACTIVATIONS:
        raise Unfit("depthwise steps have no gate")
    draft.change(activation=CODES[name])
    return last, name


def _is_linear(draft: Draft, node: fx.Node) -> bool:
    """Whether a step is weight and bias alone."""
    return draft.last.step.activation == 0 and residual_of(node) is None


def _affine(program: Program, drafts: Drafts, node: fx.Node, end: fx.Node, path, axes: Axes) -> tuple[fx.Node, str]:
    draft, reader = drafts.of[node], only_reader(end)
    if not _is_linear(draft, node):
        raise Unfit("it has an activation or a residual")
    scale, shift = scale_and_shift(program, reader, end, channel_axis(axes), draft.last.step.channels)
    last = result_of(reader)
    same_kind(end, last)
    _fold(draft.last, scale, shift)
    draft.change()
    return last, operator_name(reader)


def scale_and_shift(
    program: Program, reader: fx.Node, end: fx.Node, axis: int | None, channels: int
) -> tuple[Any, Any]:
    """What a call multiplies each channel of an operand by, and what it adds then.

    Args:
        end: the operand.
        axis: its channels.

    Raises:
        Unfit: the reader does something else.
    """
    if reader.target in BATCH_NORMS:
        if axis != 1:
            raise Unfit("its BatchNorm normalises another dimension")
        return batch_norm_affine(program, reader, end, channels, value(end).dim() - 2)
    kind, (left, right) = ARITHMETIC.get(reader.target), (*reader.args, None, None)[:2]  # type: ignore[call-overload]
    if kind is None or reader.kwargs.get("alpha", 1) != 1 or left is right:
        raise Unfit(f"{operator_name(reader)} follows")
    if left is not end and kind in ("div", "sub"):
        raise Unfit(f"{operator_name(reader)} from the other side follows")
    other = _per_channel(program, right if left is end else left, axis, value(end).dim(), channels)
    if kind in ("mul", "div"):
        return other if kind == "mul" else 1 / torch.as_tensor(other, dtype=torch.float64), 0.0
    return 1.0, other if kind == "add" else -other


def _per_channel(program: Program, operand: Any, axis: int | None, dims: int, channels: int) -> Any:
    """A number, or float64 values of each channel.

    Raises:
        Unfit: the operand is something else.
    """
    if isinstance(operand, _FLOATS) and not isinstance(operand, bool):
        return float(operand)
    constant = program.constants.get(operand)
    if constant is None:
        raise Unfit("it depends on the input")
    wide = constant.reshape((1,) * (dims - constant.dim()) + tuple(constant.shape))
    if not constant.dtype.is_floating_point or wide.dim() > dims:
        raise Unfit(f"it is a constant of {constant.dtype}")
    if any(size != 1 for dim, size in enumerate(wide.shape) if dim != axis):
        raise Unfit("it is not one of each channel")
    return wide.double().flatten().expand(channels)


def _fold(part: Part, scale: Any, shift: Any) -> None:
    weight, bias = (constant.double() for constant in part.constants)
    scale = torch.as_tensor(scale, dtype=torch.float64).expand(weight.shape[0])
    folded = [weight * scale.reshape(-1, *(1,) * (weight.dim() - 1)), bias * scale + shift]
    if not all(is_finite(tensor, part.constants[0].dtype) for tensor in folded):
        raise Unfit("its weights would overflow")
    part.constants = folded


def is_finite(tensor: Tensor, dtype: torch.dtype) -> bool:
    return bool(torch.isfinite(tensor.to(dtype)).all())


def _residual(program: Program, drafts: Drafts, node: fx.Node, end: fx.Node, path, axes) -> tuple[fx.Node, str]:
    draft, reader = drafts.of[node], only_reader(end)
    if reader.target is not aten.add.Tensor or reader.kwargs or len(reader.args) != 2:
        raise Unfit("no sum follows")
    left, right = reader.args
    other = right if left is end else left
    if not isinstance(other, fx.Node) or other is end or draft.last.step.kind != DENSE or not _is_linear(draft, node):
        raise Unfit("its sum is none of two images")
    same_kind(end, reader)
    if not isinstance(value(other), Tensor):
        raise Unfit("it meets a number")
    same_kind(other, reader)
    if other in program.constants:
        raise Unfit("it meets a constant")
    with program.graph.inserting_before(reader):
        image = image_like(program, other, axes, node)
    if image is None:
        raise Unfit("what it meets is no image")
    for each in (node, *path):  # behind whatever computes the other
        reader.prepend(each)
    node.update_arg(2, image)
    draft.change()
    return reader, "add"

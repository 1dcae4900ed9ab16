"""What stands before dense steps becomes part of them: scales and shifts of each channel, and those of LayerNorm.

    w (scale x + shift) + b = (w scale) x + (b + w shift)

All that reads such a call has to be dense, and a shift goes into no step that pads, since it moves no zero.
"""

from typing import Any

import torch
from torch import Tensor, fx

from ....operators.block.steps import DENSE, LAYER_NORM, Step
from ..norms import ARITHMETIC, result_of
from ..program import BATCH_NORMS, Program, Unfit, arguments_of, aten, module_name, operator_name, value
from .draft import Draft, Drafts, Part, input_of
from .elementary import checked, no_kernels
from .epilogues import is_finite, same_kind, scale_and_shift
from .views import CHANNELS, VIEWS, as_image, axis_through, fits_an_image


def take_prologues(program: Program, drafts: Drafts) -> None:
    """The last first: what stood before it may follow."""
    for node in reversed([*program.calls(*BATCH_NORMS, *ARITHMETIC)]):
        operands = node.args[:1] if node.target in BATCH_NORMS else node.args[:2]
        for operand in operands:
            if (
                isinstance(operand, fx.Node)
                and operand not in program.constants
                and _take(program, drafts, node, operand)
            ):
                break


def _take(program: Program, drafts: Drafts, node: fx.Node, operand: fx.Node) -> bool:
    """Whether all that reads a call has taken over what it does to an operand."""
    result = result_of(node)
    shape = getattr(value(operand), "shape", ())
    axes = [1] if node.target in BATCH_NORMS else [1, len(shape) - 1]
    for axis in axes if len(shape) > 1 else ():
        try:
            same_kind(operand, result)
            readers = _dense_readers(drafts, result, axis)
            _fold_before(readers, *scale_and_shift(program, node, operand, axis, shape[axis]))
        except Unfit:
            continue
        program.replace(result, operand)
        return True
    return False


def draft_layer_norms(program: Program, drafts: Drafts) -> None:
    """LayerNorm over the channels of each pixel, where its weight and bias can go into all layers that read it."""
    for node in program.calls(aten.layer_norm.default):
        try:
            _layer_norm(program, drafts, node)
        except Unfit:
            continue


def _layer_norm(program: Program, drafts: Drafts, node: fx.Node) -> None:
    if no_kernels(value(node.args[0])):
        return
    input, given = checked(node), arguments_of(node)
    source, weight, bias = input_of(node), given["weight"], given["bias"]
    shape = [*given["normalized_shape"]]
    if len(shape) != 1 or not fits_an_image(source) or input.dim() < 2:
        raise Unfit("it normalises over more than channels")
    if any(operand is not None and operand not in program.constants for operand in (weight, bias)):
        raise Unfit("its weight or bias depends on the input")
    readers = _dense_readers(drafts, node, input.dim() - 1)
    _fold_before(
        readers,
        1.0 if weight is None else program.constants[weight],
        0.0 if bias is None else program.constants[bias],
    )
    part = Part(Step(LAYER_NORM, 0, shape[0]), shape[0], [], module_name(node))
    with program.graph.inserting_before(node):
        image, back = as_image(program, source)
        block = drafts.add(image, part, value(image).shape, node, given["eps"])
        result = back(block)
    program.replace(node, result)


def _dense_readers(drafts: Drafts, node: fx.Node, axis: int) -> list[Draft]:
    """The drafts that read a tensor, themselves or through views; they are dense, and `axis` is their channels.

    Raises:
        Unfit: something else reads it.
    """
    readers: list[Draft] = []
    for user in node.users:
        if user.target in VIEWS and (behind := axis_through(user, axis)) is not None:
            readers += _dense_readers(drafts, user, behind)
        elif user in drafts.of and input_of(user) is node and drafts.of[user].parts[0].step.kind == DENSE:
            if node in user.args[2:]:
                raise Unfit("it is a residual")
            if axis != CHANNELS:
                raise Unfit("its channels are another axis")
            readers.append(drafts.of[user])
        else:
            raise Unfit(f"{operator_name(user)} follows")
    if not readers:
        raise Unfit("nothing follows")
    return readers


def _fold_before(readers: list[Draft], scale: Any, shift: Any) -> None:
    """Lets dense steps take what scales and shifts the channels of their input.

    Raises:
        Unfit: one of them cannot. None has changed then.
    """
    folded: list[list[Tensor]] = []
    for draft in readers:
        step, constants = draft.parts[0].step, draft.parts[0].constants
        weight, bias = (constant.double() for constant in constants)
        scales, shifts = (_per_channel(number, weight) for number in (scale, shift))
        if any(step.padding) and shifts.any():
            raise Unfit("what is added is not added to a padding of zeros")
        bias = bias + torch.einsum("oihw,i->o", weight, shifts)
        weight = weight * scales[:, None, None]
        if not all(is_finite(tensor, constants[0].dtype) for tensor in (weight, bias)):
            raise Unfit("its weights would overflow")
        folded.append([weight, bias])
    for draft, constants in zip(readers, folded, strict=True):
        draft.parts[0].constants = constants
        draft.original = None


def _per_channel(number: Any, weight: Tensor) -> Tensor:
    return torch.as_tensor(number, dtype=torch.float64, device=weight.device).expand(weight.shape[1])

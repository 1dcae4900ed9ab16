"""Pass: BatchNorm in its form for inference, and what else scales or shifts each channel, goes into the convolution.

All that follows one convolution is composed in float64 and rounded once.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ...operators.schemas import FORWARD
from .program import (
    ACTIVATION_AT,
    BATCH_NORMS,
    CONVOLUTIONS,
    Program,
    Unfit,
    arguments_of,
    aten,
    end_of,
    module_class,
    norm_behind,
    only_reader,
    operator_name,
    same_sizes,
    value,
)

ARITHMETIC = {aten.mul.Tensor: "mul", aten.div.Tensor: "div", aten.add.Tensor: "add", aten.sub.Tensor: "sub"}


class _Affine(NamedTuple):
    """x * scale + shift for each channel, in float64; numbers where all channels have the same."""

    scale: Any
    shift: Any

    def then(self, scale, shift) -> "_Affine":
        return _Affine(self.scale * scale, self.shift * scale + shift)


@torch.no_grad()
def fold_norms(program: Program) -> None:
    for node in program.convolutions:
        if node.target in CONVOLUTIONS:
            _fold_into(program, node)
        elif (norm := norm_behind(node)) is not None:
            program.unfit[node] = f"it is a transposed convolution, {operator_name(norm)} stays"


def _fold_into(program: Program, node: fx.Node) -> None:
    try:
        weight, bias = _operands(program, node)
    except Unfit as reason:
        if norm_behind(node) is not None:
            program.unfit.setdefault(node, str(reason))
        return
    total, names, end, last = _Affine(1.0, 0.0), [], end_of(node), end_of(node)
    try:
        while True:
            reader = only_reader(last)
            total, name = _compose(program, total, reader, last, node)
            names.append(name)
            last = result_of(reader)
    except Unfit as reason:
        if (norm := norm_behind(last)) is not None:
            why = (
                str(reason)
                if norm.target in BATCH_NORMS
                else f"{operator_name(norm)} follows, which depends on the input"
            )
            program.unfit.setdefault(node, why)
    if not names:
        return
    folded = _apply(total, weight, bias)
    if not all(torch.isfinite(tensor).all() for tensor in folded) and torch.isfinite(weight).all():
        program.unfit[node] = f"{', '.join(names)} would make its weights overflow"
        return
    stem = program.names[node.args[1]]  # type: ignore[index]
    constants = [
        program.add_constant(tensor, f"{stem}_{kind}")
        for tensor, kind in zip(folded, ("folded", "folded_bias"), strict=True)
    ]
    node.update_arg(1, constants[0])
    if len(node.args) > 2:
        node.update_arg(2, constants[1])
    else:
        node.kwargs = {**node.kwargs, "bias": constants[1]}
    program.replace(last, end)
    program.taken[node] = names


def _operands(program: Program, node: fx.Node) -> tuple[Tensor, Tensor | None]:
    """The weight and the bias of a convolution.

    Raises:
        Unfit: they are not constant, or its result is not what follows could be folded into.
    """
    options = arguments_of(node)
    if options.get("transposed"):
        raise Unfit("it is a transposed convolution")
    if node.target is FORWARD and node.args[ACTIVATION_AT:] not in ((), (0,)):
        raise Unfit("it has an activation of its own")
    weight, bias = options["weight"], options["bias"]
    if weight not in program.constants or (bias is not None and bias not in program.constants):
        raise Unfit("its weight or bias depends on the input")
    if not program.constants[weight].dtype.is_floating_point:
        raise Unfit(f"its weight is {program.constants[weight].dtype}")
    return program.constants[weight], None if bias is None else program.constants[bias]


def result_of(node: fx.Node) -> fx.Node:
    """A call itself, or of those that return several results the first."""
    if node.target is aten._native_batch_norm_legit_no_training.default:
        first = [user for user in node.users if user.target.__name__ == "getitem" and user.args[1] == 0]  # type: ignore[union-attr]
        return first[0]
    return node


def _compose(program: Program, total: _Affine, node: fx.Node, source: fx.Node, conv: fx.Node) -> tuple[_Affine, str]:
    """What comes of `total` with one more call after it, and the name of that.

    Raises:
        Unfit: it is no scale or shift of each channel by constants.
    """
    channels = value(conv.args[1]).shape[0]
    spatial = value(conv.args[1]).dim() - 2 - (end_of(conv) is not conv)
    if node.target in BATCH_NORMS:
        kind = module_class(node)
        name = kind if "norm" in kind.lower() else operator_name(node)
        return total.then(*batch_norm_affine(program, node, source, channels, spatial)), name
    if node.target not in ARITHMETIC:
        raise Unfit(f"{operator_name(node)} follows")
    kind = ARITHMETIC[node.target]
    left, right = node.args[:2]
    if node.kwargs.get("alpha", 1) != 1 or (left is source and right is source):
        raise Unfit(f"{operator_name(node)} follows")
    if left is not source and kind in ("div", "sub"):
        raise Unfit(f"{operator_name(node)} from the other side follows")
    result, own = value(node), value(source)
    other = _per_channel(program, right if left is source else left, channels, spatial, own)
    if result.dtype != own.dtype or not same_sizes(result.shape, own.shape):
        raise Unfit(f"{operator_name(node)} changes its dtype or size")
    if kind in ("mul", "div"):
        return total.then(
            other
            if kind == "mul"
            else 1 / torch.as_tensor(other, dtype=torch.float64, device=value(conv.args[1]).device),
            0.0,
        ), kind
    return total.then(1.0, other if kind == "add" else -other), kind


def batch_norm_affine(
    program: Program, node: fx.Node, source: fx.Node, channels: int, spatial: int
) -> tuple[Tensor, Tensor]:
    given = arguments_of(node)
    mean, variance = given["running_mean"], given["running_var"]
    if given["input"] is not source:
        raise Unfit("its result is what a BatchNorm scales by")
    if given.get("training") or mean is None or variance is None:
        raise Unfit("its BatchNorm normalises by the batch")
    operands = [given["weight"], given["bias"], mean, variance]
    if any(operand is not None and operand not in program.constants for operand in operands):
        raise Unfit("what its BatchNorm scales by depends on the input")
    if value(source).dim() != spatial + 2:
        raise Unfit("its BatchNorm normalises another dimension")
    result = result_of(node)
    if result is not node and any(user is not result and user.users for user in node.users):
        raise Unfit("the statistics of its BatchNorm are read")
    weight, bias, mean, variance = (None if o is None else program.constants[o].double() for o in operands)
    assert mean is not None and variance is not None
    scale = torch.rsqrt(variance + given["eps"])
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def _per_channel(program: Program, operand, channels: int, spatial: int, own: Tensor) -> Any:
    """A number, or float64 values of each channel.

    Raises:
        Unfit: the operand is something else.
    """
    if isinstance(operand, (int, float)) and not isinstance(operand, bool):
        return float(operand)
    constant = program.constants.get(operand)
    if constant is None:
        raise Unfit("its result meets another that depends on the input")
    if not constant.dtype.is_floating_point or constant.dim() > own.dim():
        raise Unfit(f"a constant of {constant.dtype} and {constant.dim()} dimensions follows")
    wide = constant.reshape((1,) * (own.dim() - constant.dim()) + tuple(constant.shape))
    axis = own.dim() - spatial - 1
    if any(size != 1 for dim, size in enumerate(wide.shape) if dim != axis):
        raise Unfit("a constant that is not one of each channel follows")
    return wide.double().flatten().expand(channels)


def _apply(total: _Affine, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    ones = torch.ones(weight.shape[0], dtype=torch.float64, device=weight.device)
    scale, shift = total.scale * ones, total.shift * ones
    folded = weight.double() * scale.reshape(-1, *(1,) * (weight.dim() - 1))
    offset = shift if bias is None else shift + bias.double() * scale
    dense = torch.empty_like(weight).copy_(folded)  # the weight's dtype and memory format
    return dense, offset.to(weight.dtype)

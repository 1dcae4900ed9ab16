"""Pass: depthwise convolutions of PyTorch become this package's operator, with the zero padding before them."""

import operator
from typing import Any

import torch
from torch import fx

from ...functional.dispatch import native_reason
from ...operators.formats import suggests_channels_last
from ...operators.schemas import DTYPES, FORWARD, GRAD_INPUT
from .program import TRANSPOSED, Program, aten, value

_CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.convolution.default,
)
_PADS = (aten.pad.default, aten.constant_pad_nd.default)


def to_operator(program: Program) -> None:
    for node in program.calls(*_CONVOLUTIONS):
        if not is_depthwise(node) or value(node.args[1]).dim() > 4 or options_of(node).get("transposed"):
            continue
        if reason := _why_not(node):
            program.unfit[node] = reason
            continue
        with program.graph.inserting_before(node):
            new = result = _operator(program, node)
            if value(node).dim() == 3:
                result = _call(program, aten.squeeze.dim, new, -2)
        for made in (new, result):
            made.meta = {**node.meta, **made.meta}
        program.convolutions = {new if key is node else key: name for key, name in program.convolutions.items()}
        program.converted.append(program.convolutions[new])
        program.replace(node, result)
    for node in program.calls(FORWARD):
        _take_padding(program, node)


def is_depthwise(node: fx.Node) -> bool:
    """Whether a convolution has filters of its own for each of its channels, whoever computes it."""
    if node.target in (FORWARD, GRAD_INPUT):
        return True
    weight, options = value(node.args[1]), options_of(node)
    if node.target in TRANSPOSED or options.get("transposed"):
        return options["groups"] > 1 and weight.shape[0] == options["groups"]
    return options["groups"] > 1 and weight.shape[1] == 1


def options_of(node: fx.Node) -> dict[str, Any]:
    names = ["stride", "padding", "dilation", "groups"]
    if node.target is aten.convolution.default:
        names = ["stride", "padding", "dilation", "transposed", "output_padding", "groups"]
    elif node.target in TRANSPOSED:
        names = ["stride", "padding", "output_padding", "groups", "dilation"]
    defaults = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    return defaults | dict(zip(names, node.args[3:], strict=False)) | node.kwargs


def _why_not(node: fx.Node) -> str | None:
    """Why the operator does not compute a depthwise convolution; None if it does."""
    input, weight = value(node.args[0]), value(node.args[1])
    if input.dim() != weight.dim():
        return f"its input has {input.dim()} dimensions and no batch"
    if input.dtype not in DTYPES:
        return f"it computes in {input.dtype}"
    probe = torch.empty(0, dtype=input.dtype, device=input.device)
    return native_reason(probe, probe)


def _operator(program: Program, node: fx.Node) -> fx.Node:
    """The operator's call for a convolution, 1-D as 2-D of height 1."""
    options, bias = options_of(node), node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
    input, weight = node.args[:2]
    stride, dilation, padding = options["stride"], options["dilation"], options["padding"]
    row = value(input).dim() == 3
    if row:
        input = _call(program, aten.unsqueeze.default, input, -2)
        if weight in program.constants:
            value_2d = program.constants[weight].unsqueeze(-2)  # type: ignore[index]
            weight = program.add_constant(value_2d, f"{program.names[weight]}_2d")  # type: ignore[index]
        else:
            weight = _call(program, aten.unsqueeze.default, weight, -2)
    fake, kernel = value(input), value(weight).shape[2:]
    stride, dilation = _pair(stride, 1 if row else None), _pair(dilation, 1 if row else None)
    reach = [step * (taps - 1) for step, taps in zip(dilation, kernel, strict=True)]
    if isinstance(padding, str):
        total = reach if padding == "same" else [0, 0]
        before = [sides // 2 for sides in total]
    else:
        before = _pair(padding, 0 if row else None)
        total = [2 * side for side in before]
    channels_last = not row and (suggests_channels_last(fake) or suggests_channels_last(value(weight)))
    outputs = [output_size(program, input, axis, total[axis] - reach[axis] - 1, stride[axis]) for axis in range(2)]
    args = (input, weight, bias, *outputs, *stride, *before, *dilation, channels_last, 0)
    new = program.graph.call_function(FORWARD, args)
    new.meta["val"] = value(node).unsqueeze(-2) if row else value(node)
    return new


def _call(program: Program, target, operand, *args) -> fx.Node:
    node = program.graph.call_function(target, (operand, *args))
    node.meta["val"] = target(value(operand), *args)
    return node


def _pair(option, of_row: int | None = None) -> list:
    """An option for h and w; for h that of a row's height of 1, if it is given."""
    entries = [*option] if isinstance(option, (list, tuple)) else [option]
    return [entries[0] if of_row is None else of_row, entries[-1]]


def output_size(program: Program, input: Any, axis: int, more: int, stride: int) -> Any:
    """(size + more) // stride + 1 of the input's height or width: a number, or nodes where that may vary."""
    size = value(input).shape[2 + axis]
    if isinstance(size, int):
        return (size + more) // stride + 1
    graph = program.graph
    node = graph.call_function(aten.sym_size.int, (input, 2 + axis))
    node.meta["val"] = size
    for function, number in ((operator.add, more), (operator.floordiv, stride), (operator.add, 1)):
        new = graph.call_function(function, (node, number))
        new.meta["val"] = function(node.meta["val"], number)
        node = new
    return node


def _take_padding(program: Program, node: fx.Node) -> None:
    """The operator pads each side by its own amount: TensorFlow's SAME needs no padded copy of the input."""
    if (amounts := zero_padding(node.args[0])) is None:
        return
    args = [*node.args]
    args[0] = node.args[0].args[0]  # type: ignore[union-attr]
    args[7] += amounts[0]  # type: ignore[operator]
    args[8] += amounts[1]  # type: ignore[operator]
    node.args = tuple(args)


def zero_padding(pad: Any) -> tuple[int, int, int, int] | None:
    """Top, left, bottom and right of a call that pads images by zeros; None if it is something else."""
    if not isinstance(pad, fx.Node) or pad.target not in _PADS or len(pad.args) < 2:
        return None
    amounts = pad.args[1]
    mode, fill = (*pad.args[2:], None, None)[:2] if pad.target is aten.pad.default else ("constant", (*pad.args, 0)[2])
    mode, fill = pad.kwargs.get("mode", mode), pad.kwargs.get("value", fill)
    if mode not in (None, "constant") or fill not in (None, 0) or not isinstance(amounts, (list, tuple)):
        return None
    if len(amounts) != 4 or not all(isinstance(amount, int) and amount >= 0 for amount in amounts):
        return None
    left, right, top, bottom = amounts
    return top, left, bottom, right  # type: ignore[return-value]

"""Pass: activations that are written out become PyTorch's own calls, which later passes know.

relu6(x + 3) / 6            hardsigmoid(x)
x * relu6(x + 3) / 6        hardswish(x)
0.5 x (1 + erf(x / √2))     gelu(x)
"""

import math
from typing import Any

import torch
from torch import fx

from .activations import clamp_bounds
from .program import Program, Unfit, aten, only_reader, same_sizes, value

_CLAMPS = (aten.relu6.default, aten.hardtanh.default, aten.clamp.default)


def recognise_activations(program: Program) -> None:
    for node in program.calls(*_CLAMPS):
        try:
            x, last, target = _of_clamp(node)
        except Unfit:
            continue
        _put(program, x, last, target)
    for node in program.calls(aten.erf.default):
        try:
            x, last = _of_erf(node)
        except Unfit:
            continue
        _put(program, x, last, aten.gelu.default)


def _put(program: Program, x: fx.Node, last: fx.Node, target: Any) -> None:
    if value(x).dtype != value(last).dtype or not same_sizes(value(x).shape, value(last).shape):
        return
    with program.graph.inserting_before(last):
        new = program.graph.call_function(target, (x,))
    new.meta = {**last.meta}
    program.replace(last, new)


def _of_clamp(node: fx.Node) -> tuple[fx.Node, fx.Node, Any]:
    """Of relu6(x + 3): x, the last call, and what all of it is.

    Raises:
        Unfit: it is nothing else than what it says.
    """
    if clamp_bounds(node) != (0, 6):
        raise Unfit("it clamps to other bounds")
    x = _other(node.args[0], aten.add.Tensor, 3)
    reader = only_reader(node)
    if _is_sixth(reader, node):
        return x, reader, aten.hardsigmoid.default
    if reader.target is aten.mul.Tensor and {*reader.args} == {x, node}:
        last = only_reader(reader)
        if _is_sixth(last, reader):
            return x, last, aten.hardswish.default
    raise Unfit("it is not divided by 6")


def _of_erf(node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Of erf(x / √2): x, and the last call of gelu(x).

    Raises:
        Unfit: it is no gelu.
    """
    scaled: Any = node.args[0]
    if scaled.target is aten.div.Tensor and _is_number(scaled.args[1], math.sqrt(2)):
        x = scaled.args[0]
    else:
        x = _other(scaled, aten.mul.Tensor, math.sqrt(0.5))
    plus = only_reader(node)
    if _other(plus, aten.add.Tensor, 1) is not node:
        raise Unfit("it is not 1 + erf")
    product = only_reader(plus)
    if product.target is not aten.mul.Tensor:
        raise Unfit("no product follows")
    factor: Any = _operand(product, plus)
    if _half_of(factor) is x:
        return x, product
    last = only_reader(product)
    if factor is x and _half_of(last) is product:
        return x, last
    if _is_number(factor, 0.5) and last.target is aten.mul.Tensor and {*last.args} == {x, product}:
        return x, last
    raise Unfit("it is no gelu")


def _is_number(operand: Any, number: float) -> bool:
    return isinstance(operand, (int, float)) and math.isclose(operand, number, rel_tol=1e-5)


def _other(node: Any, target: Any, number: float) -> fx.Node:
    """The operand beside a number in a sum or a product.

    Raises:
        Unfit: it is something else.
    """
    if isinstance(node, fx.Node) and node.target is target and len(node.args) == 2 and not node.kwargs:
        for own, other in (node.args, node.args[::-1]):
            if isinstance(own, fx.Node) and isinstance(value(own), torch.Tensor) and _is_number(other, number):
                return own
    raise Unfit("another number stands there")


def _operand(node: fx.Node, known: Any) -> Any:
    """The operand of a product beside a known one."""
    left, right = node.args
    return right if left is known else left


def _half_of(node: Any) -> Any:
    """x of x * 0.5 or x / 2; None of anything else."""
    if not isinstance(node, fx.Node):
        return None
    if node.target is aten.div.Tensor and _is_number(node.args[1], 2):
        return node.args[0]
    try:
        return _other(node, aten.mul.Tensor, 0.5)
    except Unfit:
        return None


def _is_sixth(node: fx.Node, source: fx.Node) -> bool:
    """Whether a call is source / 6."""
    if node.target is aten.div.Tensor:
        return node.args[0] is source and not node.kwargs and _is_number(node.args[1], 6)
    try:
        return _other(node, aten.mul.Tensor, 1 / 6) is source
    except Unfit:
        return False

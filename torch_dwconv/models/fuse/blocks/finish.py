"""Drafts become calls: weights are packed, and the report gets the names."""

from itertools import takewhile

import torch
from torch import Tensor, fx

from ....operators.block.packing import packed
from ....operators.block.steps import DENSE, encoded
from ..program import Program
from .draft import Draft, Drafts, Part, residual_of


@torch.no_grad()
def finish(program: Program, drafts: Drafts) -> None:
    program.drop_unused_constants()  # their names are free then
    made: dict[tuple, tuple[Tensor, fx.Node]] = {}  # a layer that is called twice has its weight once
    for node, draft in drafts:
        constants = []
        for part in draft.parts:
            names = (
                ("weight", "bias") if len(part.constants) < 3 else ("reduce", "reduce_bias", "expand", "expand_bias")
            )
            for name, constant in zip(names, part.constants, strict=False):
                is_bias = constant.dim() == 1
                key = (id(constant), part.step.kind, part.step.dilation_w)
                if key not in made:
                    laid_out = _laid_out(part, constant, is_bias, node)
                    stem = f"{part.name or node.name}.{name}"
                    made[key] = constant, program.add_constant(laid_out, stem)
                constants.append(made[key][1])
        steps = encoded([part.step for part in draft.parts])
        node.args = (node.args[0], constants, node.args[2], steps, draft.epsilon or 0.0)
        _report(program, node, draft)


def _laid_out(part: Part, constant: Tensor, is_bias: bool, node: fx.Node) -> Tensor:
    """A constant as the operator takes it."""
    dtype = node.meta["val"].dtype
    packs = part.step.kind == DENSE or len(part.constants) == 4
    if is_bias:
        return constant.to(torch.float32 if packs else dtype, copy=True)
    weight = constant.to(dtype)
    return packed(weight, part.step.dilation_w) if packs else weight.clone(memory_format=torch.contiguous_format)


def _report(program: Program, node: fx.Node, draft: Draft) -> None:
    names = [part.name for part in draft.parts]
    common = takewhile(lambda words: len({*words}) == 1, zip(*(name.split(".") for name in names), strict=False))
    stem = name = ".".join(words[0] for words in common) or names[0]
    number = 2
    while name in program.blocks:
        name, number = f"{stem} (block {number})", number + 1
    residual = ", + residual" if residual_of(node) is not None else ""
    program.blocks[name] = ", ".join(map(str, draft.parts)) + residual
    for part in draft.parts:
        program.in_blocks.update(part.layers)

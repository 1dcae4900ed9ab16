"""Drafts: calls of the block operator while passes let them grow. Weights are plain until the blocks are finished."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ....operators.block import BLOCK
from ....operators.block.steps import DENSE, DEPTHWISE, KINDS, NAMES, SQUEEZE_EXCITE, Step
from ....operators.schemas import FORWARD
from ..depthwise import output_size
from ..program import Program, value

DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # that the kernels of blocks take


@dataclass
class Part:
    """A step with its plain constants: weight and bias, of squeeze-and-excite both pairs.

    Attributes:
        name: of the module that it was.
        layers: the convolutions that it is made of, by which the report knows it.
    """

    step: Step
    in_channels: int
    constants: list[Tensor]
    name: str
    layers: list[fx.Node] = field(default_factory=list)

    def __str__(self) -> str:
        step = self.step
        words = [KINDS[step.kind]]
        if step.kind in (DENSE, DEPTHWISE):
            words.append(f"{step.kernel_h}x{step.kernel_w}")
            words += [f"{self.in_channels}→{step.channels}"] * (step.kind == DENSE or step.channels != self.in_channels)
            for letter, pair in (("s", step[5:7]), ("d", step[7:9])):
                words += [letter + "x".join(map(str, dict.fromkeys(pair)))] * (pair != (1, 1))
        elif step.kind == SQUEEZE_EXCITE:
            words.append(f"{self.in_channels}→{step.channels}")
        words += [name for code in (step.activation, step.gate) if (name := NAMES[code])]
        return " ".join(words)


@dataclass
class Draft:
    """What a block node computes. `original` is the call that it was, as long as it computes just that."""

    parts: list[Part]
    epsilon: float | None = None
    original: tuple[Any, tuple, dict] | None = None

    @property
    def last(self) -> Part:
        return self.parts[-1]

    def change(self, **fields) -> None:
        """Gives the last step other fields."""
        self.last.step = self.last.step._replace(**fields)
        self.original = None


class Drafts:
    """The drafts of a program, by their nodes: calls of the operator with an input and a residual, and no more yet."""

    def __init__(self, program: Program):
        self.program = program
        self.of: dict[fx.Node, Draft] = {}

    def __iter__(self) -> Iterator[tuple[fx.Node, Draft]]:
        """In the order of the graph."""
        for node in self.program.calls(BLOCK):
            if node in self.of:
                yield node, self.of[node]

    def add(self, input: fx.Node, part: Part, sizes, like: fx.Node, epsilon: float | None = None) -> fx.Node:
        """A new block node, where the graph inserts; it has the size `sizes` and the origin of `like`."""
        node = self.program.graph.call_function(BLOCK, (input, [], None, [], 0.0))
        node.meta = {key: item for key, item in like.meta.items() if key != "val"}
        node.meta["val"] = value(input).new_empty(sizes)
        self.of[node] = Draft([part], epsilon)
        return node

    def turn(self, node: fx.Node, input: fx.Node, part: Part) -> None:
        """Makes a call, with its result as it is, a block node."""
        self.of[node] = Draft([part], None, (node.target, node.args, node.kwargs))
        node.target, node.args, node.kwargs = BLOCK, (input, [], None, [], 0.0), {}

    def restore(self, node: fx.Node) -> None:
        """Makes a block node the call that it was, of the input that it has now."""
        draft = self.of.pop(node)
        original, step = draft.original, draft.last.step
        assert original is not None
        target, args, kwargs = original
        input = input_of(node)
        if target is FORWARD:  # the nodes of sizes that vary are gone
            with self.program.graph.inserting_before(node):
                args = (*args[:3], *output_sizes(self.program, input, step), *args[5:])
        node.target, node.args, node.kwargs = target, (input, *args[1:]), kwargs


def output_sizes(program: Program, input: fx.Node, step: Step) -> list:
    """Height and width of a convolution's result, numbers or new nodes."""
    reach_h, reach_w = step.dilation_h * (step.kernel_h - 1), step.dilation_w * (step.kernel_w - 1)
    return [
        output_size(program, input, 0, step.pad_top + step.pad_bottom - reach_h - 1, step.stride_h),
        output_size(program, input, 1, step.pad_left + step.pad_right - reach_w - 1, step.stride_w),
    ]


def input_of(node: fx.Node) -> fx.Node:
    """The first argument, of blocks and of what becomes one."""
    return node.args[0]  # type: ignore[return-value]


def residual_of(node: fx.Node) -> fx.Node | None:
    return node.args[2]  # type: ignore[return-value]

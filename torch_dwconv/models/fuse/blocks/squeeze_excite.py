"""Squeeze-and-excite: mean, two layers and a product become one step."""

from torch import fx

from ....operators.block.steps import DENSE, GATES, MEAN, SQUEEZE_EXCITE, Step
from ..program import Program, Unfit, aten, only_reader, same_sizes, value
from .draft import Drafts, Part, input_of, residual_of


def draft_squeeze_excite(program: Program, drafts: Drafts) -> None:
    for node in program.calls(aten.mul.Tensor):
        for image, gate in (node.args, node.args[::-1]):
            try:
                part = _step(drafts, image, gate)
            except Unfit:
                continue
            if value(image).dtype == value(node).dtype and same_sizes(value(image).shape, value(node).shape):
                drafts.turn(node, image, part)  # type: ignore[arg-type]
                _erase(program, drafts, gate)  # type: ignore[arg-type]
                break


def _step(drafts: Drafts, image, gate) -> Part:
    """The step that multiplies an image by a gate made of its means.

    Raises:
        Unfit: it is something else.
    """
    expand = _only_layer(drafts, gate)
    reduce_node = input_of(gate)
    reduce = _only_layer(drafts, reduce_node)
    mean_node = input_of(reduce_node)
    mean = drafts.of.get(mean_node)
    if mean is None or len(mean.parts) != 1 or mean.last.step.kind != MEAN or input_of(mean_node) is not image:
        raise Unfit("it is no mean of the image")
    only_reader(mean_node)
    if expand.step.activation not in GATES or expand.step.channels != mean.last.in_channels:
        raise Unfit("it is no gate of each channel")
    step = Step(SQUEEZE_EXCITE, reduce.step.activation, reduce.step.channels, gate=expand.step.activation)
    layers = [*reduce.layers, *expand.layers]
    return Part(step, mean.last.in_channels, [*reduce.constants, *expand.constants], mean.last.name, layers)


def _only_layer(drafts: Drafts, node) -> Part:
    """The step of a block that is a 1x1 convolution and has one reader.

    Raises:
        Unfit: it is something else.
    """
    draft = drafts.of.get(node)
    if draft is None or len(draft.parts) != 1 or draft.last.step.kind != DENSE or residual_of(node) is not None:
        raise Unfit("it is no layer")
    if not draft.last.step.is_pointwise:
        raise Unfit("it is no 1x1 convolution")
    only_reader(node)
    return draft.last


def _erase(program: Program, drafts: Drafts, gate: fx.Node) -> None:
    """Removes what the step has taken over."""
    node = gate
    for _ in range(3):
        before = input_of(node)
        del drafts.of[node]
        program.graph.erase_node(node)
        node = before

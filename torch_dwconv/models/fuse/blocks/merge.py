"""Neighbours become one block where what lies between them is better never made as a whole."""

from torch import fx

from ....operators.block.steps import DENSE, DEPTHWISE, LAYER_NORM, MEAN
from ..program import Program
from .draft import Draft, Drafts, input_of, residual_of

_FEW_CHANNELS = 4  # of a picture


def merge(program: Program, drafts: Drafts) -> None:
    for node, draft in drafts:
        reader = next(iter(node.users)) if len(node.users) == 1 else None
        follower = drafts.of.get(reader)  # type: ignore[arg-type]
        if reader is None or follower is None or input_of(reader) is not node or residual_of(reader) is node:
            continue
        if residual_of(node) is None and _fits(draft, follower) and belong_together(draft, follower):
            follower.parts[:0] = draft.parts
            follower.epsilon = draft.epsilon if follower.epsilon is None else follower.epsilon
            follower.original = None
            reader.update_arg(0, input_of(node))
            del drafts.of[node]
            program.graph.erase_node(node)


def _fits(first: Draft, second: Draft) -> bool:
    """Whether one call can compute both: it has one epsilon."""
    return first.epsilon is None or second.epsilon is None or first.epsilon == second.epsilon


def belong_together(first: Draft, second: Draft) -> bool:
    """Whether two chains of which the second alone reads the first are one block.

    The usual block is: dense steps, depthwise ones, LayerNorm or squeeze-and-excite, a dense step. It ends there, where
    the image between two blocks is a narrow one. Of two dense steps in a row the image between them has to be wider
    than both others, as in the MLP of ConvNeXt, or the first one makes it of a picture, and then it is large. Nothing
    follows a mean, after which a batch is a small matrix.
    """
    before, after = first.last, second.parts[0]
    if before.step.kind == MEAN:
        return False
    if after.step.kind == MEAN:
        return True
    if before.step.kind == DENSE and after.step.kind == DENSE:
        if before.in_channels <= _FEW_CHANNELS and len(first.parts) == 1:
            return True
        return after.step.is_pointwise and before.step.channels > max(before.in_channels, after.step.channels)
    spatial = any(part.step.kind != DENSE for part in first.parts)
    return before.step.kind != DENSE or not spatial


def is_worthwhile(draft: Draft) -> bool:
    """Whether the operator is better than the call that a block was: a depthwise convolution, a LayerNorm or a mean by
    itself stays what it is."""
    alone = len(draft.parts) == 1 and draft.last.step.kind in (DEPTHWISE, LAYER_NORM, MEAN)
    return draft.original is None or not alone


def restore_others(drafts: Drafts) -> list[fx.Node]:
    """Lets what is not worthwhile be what it was, and returns it."""
    others = [node for node, draft in drafts if not is_worthwhile(draft)]
    for node in others:
        drafts.restore(node)
    return others

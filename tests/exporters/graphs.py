"""What captured graphs are asked."""

import torch


def names(program):
    """The operators in a graph; the arithmetic of dynamic sizes is Python's and none of them."""
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return [target.name() for target in targets if isinstance(target, torch._ops.OpOverload)]

"""An optional pass for torch.compile: the activation after a depthwise layer, computed in the layer's own pass.

    model = torch.compile(model, options={"pre_grad_custom_pass": FuseActivations()})

Nothing imports this module but its user, and it changes no setting of PyTorch.
"""

import torch
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch.nn import functional as F

from .operators.schemas import ACTIVATION_CODES, FORWARD

# What an activation is in a graph as Dynamo makes it.
_FUNCTIONS = {
    F.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",  # the method
    F.relu6: "relu6",
    F.hardswish: "hardswish",
    F.silu: "silu",
    F.gelu: "gelu",
}
_BEFORE = [argument.name for argument in FORWARD._schema.arguments].index("activation")  # arguments before it


class FuseActivations(CustomGraphPass):
    """Gives `activation=` to each depthwise convolution whose result only an activation reads.

    ReLU, ReLU6, Hardswish, SiLU and GELU (both forms). Where a gradient is needed the operator computes the two one
    after the other, as they were.

    Args:
        then: another pass of the user's own for the same place, which runs after this one.

    >>> model = torch.nn.Sequential(DepthwiseConv2d(8, 8, 3), torch.nn.ReLU6()).eval()
    >>> compiled = torch.compile(model, options={"pre_grad_custom_pass": FuseActivations()})
    """

    def __init__(self, then=None):
        self.then = then

    def __call__(self, graph: torch.fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=FORWARD):
            if node.args[_BEFORE:] in ((), (0,)) and (code := self._only_reader(node)):
                (reader,) = node.users
                node.args = (*node.args[:_BEFORE], code)
                reader.replace_all_uses_with(node)
                graph.erase_node(reader)
        if self.then is not None:
            self.then(graph)

    @staticmethod
    def _only_reader(node: torch.fx.Node) -> int:
        """The code of the activation that reads this node and is the only one to; 0 if it is something else."""
        if len(node.users) != 1:
            return 0
        (reader,) = node.users
        name = _FUNCTIONS.get(reader.target)
        if reader.target is F.hardtanh and reader.args[1:3] == (0.0, 6.0):  # what nn.ReLU6 calls
            name = "relu6"
        if name is None or reader.args[:1] != (node,):
            return 0
        if name == "gelu" and reader.kwargs.get("approximate", "none") == "tanh":
            name = "gelu_tanh"
        return ACTIVATION_CODES[name]

    def uuid(self):
        """What Inductor's cache keys are made of: this file and the other pass's own."""
        mine = get_hash_for_files((__file__,))
        if self.then is None:
            return mine
        theirs = self.then.uuid() if isinstance(self.then, CustomGraphPass) else None
        return None if theirs is None else (mine, theirs)  # None: nothing is cached

"""Depthwise convolutions that `convert` finds in a model and cannot swap since they are no layers of torch.nn."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

_COMPILED = "compiled by TorchScript: convert the model before torch.jit.script or torch.jit.trace"
# Where `groups` stands among the arguments of a function that a graph calls.
_GROUPS: dict[Any, int] = {
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d), 6),
    **dict.fromkeys((torch.ops.aten.conv1d.default, torch.ops.aten.conv1d.padding), 6),
    **dict.fromkeys((torch.ops.aten.conv2d.default, torch.ops.aten.conv2d.padding), 6),
    **dict.fromkeys((torch.ops.aten.conv_transpose1d.default, torch.ops.aten.conv_transpose2d.input), 6),
    torch.ops.aten.convolution.default: 8,
}


class Unseen:
    """One walk over a model's modules, parents before children."""

    def __init__(self) -> None:
        self.compiled: set[nn.Module] = set()  # ScriptModules inside one that was named

    def reason(self, module: nn.Module) -> str | None:
        """Why a module that is no convolution of torch.nn stays, if it computes a depthwise convolution."""
        if isinstance(module, torch.jit.ScriptModule):
            outermost = module not in self.compiled
            self.compiled.update(module.modules())
            return _COMPILED if outermost or _depthwise(module) else None
        if isinstance(module, torch.fx.GraphModule):
            calls = [node.name for node in module.graph.nodes if _calls_grouped(node)]
            return (
                f"its graph calls a convolution with groups, a function and no layer ({', '.join(calls)})"
                if calls
                else None
            )
        if _depthwise(module):
            return f"{type(module).__module__}.{type(module).__qualname__}, not a convolution of torch.nn"
        return None


def _depthwise(module: nn.Module) -> bool:
    """Whether a module that merely looks like a convolution says that it is depthwise."""
    if isinstance(module, torch.jit.ScriptModule):
        groups, channels = (getattr(module, name, None) for name in ("groups", "in_channels"))
    else:
        groups, channels = (vars(module).get(name) for name in ("groups", "in_channels"))
    return isinstance(groups, int) and groups > 1 and groups == channels


def _calls_grouped(node: torch.fx.Node) -> bool:
    if node.op != "call_function" or node.target not in _GROUPS:
        return False
    position = _GROUPS[node.target]
    groups: Any = node.args[position] if len(node.args) > position else node.kwargs.get("groups", 1)
    return bool(groups != 1)

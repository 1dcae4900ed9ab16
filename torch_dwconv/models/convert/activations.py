"""Our names of the activations that layers of PyTorch and timm compute."""

from collections.abc import Callable
from typing import Any

from torch import nn

# Of layers of exactly such a class, None if what one does is none of ours.
_NAMES: dict[type[nn.Module], Callable[[Any], str | None]] = {
    nn.ReLU: lambda layer: "relu",
    nn.ReLU6: lambda layer: "relu6",
    nn.Hardtanh: lambda layer: "relu6" if (layer.min_val, layer.max_val) == (0, 6) else None,
    nn.Hardswish: lambda layer: "hardswish",
    nn.SiLU: lambda layer: "silu",
    nn.GELU: lambda layer: {"none": "gelu", "tanh": "gelu_tanh"}[layer.approximate],
}
# timm's own, which take an `inplace` that PyTorch's do not.
_TIMMS = {"GELU": "gelu", "GELUTanh": "gelu_tanh"}


def name_of(layer: nn.Module) -> str | None:
    """The name of what `layer` computes, None if it is no activation of ours."""
    cls = type(layer)
    if cls in _NAMES:
        return _NAMES[cls](layer)
    return _TIMMS.get(cls.__name__) if cls.__module__ == "timm.layers.activations" else None

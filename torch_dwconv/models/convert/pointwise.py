"""What `convert` does with ``blocks=True`` to 1x1 convolutions: they become `PointwiseConv2d`, by their class."""

from torch import nn

from ...layers.pointwise import PointwiseConv2d
from . import classes


def swap(module: nn.Module) -> str | bool:
    """Swaps a 1x1 convolution: True if it did, the reason if one was left, False for any other module.

    Of subclasses nothing is known, and a parametrised layer is one: `convert` reports them as it reports others.
    """
    if isinstance(module, PointwiseConv2d):
        return f"already a {PointwiseConv2d.__name__}"
    if type(module) is not nn.Conv2d or not _is_pointwise(module):
        return False
    if (method := classes.patched(nn.Conv2d)) is not None:
        return f"{method} has been replaced"
    if (reason := _replaced(module)) is not None:
        return reason
    module.__class__ = PointwiseConv2d
    return True


def swap_back(module: nn.Module) -> str | bool:
    """Undoes `swap`."""
    if not isinstance(module, PointwiseConv2d):
        return False
    if type(module) is not PointwiseConv2d:
        return f"{type(module).__qualname__}, a subclass of PointwiseConv2d that may compute something else"
    if (reason := _replaced(module)) is not None:
        return reason
    module.__class__ = nn.Conv2d  # type: ignore[assignment]  # mypy narrows the class
    return True


def _is_pointwise(layer: nn.Conv2d) -> bool:
    geometry = layer.kernel_size, layer.stride, layer.groups
    # A depthwise layer of one channel too, which convert leaves as an ordinary convolution.
    return geometry == ((1, 1), (1, 1), 1) and layer.padding in ((0, 0), "valid", "same")


def _replaced(module: nn.Module) -> str | None:
    for method in ("forward", "_conv_forward"):
        if method in vars(module):
            return f"its {method} was replaced on the instance"
    return None

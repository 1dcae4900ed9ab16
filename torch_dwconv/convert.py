"""convert and revert: give the depthwise layers of a model our class, and take it back.

A swap changes a layer's class and, for timm's Conv2dSame, its `padding`. The layer stays the same object, with the same
parameters, buffers, hooks, flags and state_dict keys, so optimizers, tied weights and references to it stay valid.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from .modules import DepthwiseConv2d

_ORIGIN = "_converted_from"  # on a layer that was no plain nn.Conv2d: (class, padding) to go back to


@dataclass
class Report:
    """What `convert` or `revert` did, by layer name (as in ``model.named_modules()``; the model itself is '').

    Attributes:
        swapped (list[str]): layers whose class changed.
        left (dict[str, str]): convolutions that stayed as they were, each with the reason.
    """

    swapped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"swapped: {len(self.swapped)}", *(f"  {name or '(the model)'}" for name in self.swapped)]
        return "\n".join([*lines, f"left: {len(self.left)}", *by_reason(self.left)])


def by_reason(reasons: dict[str, str]) -> list[str]:
    """Lines for a report: each reason once, with the names of the layers."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name or "(the model)")
    return [f"  {reason}: {', '.join(layers)}" for reason, layers in names.items()]


def convert(model: nn.Module, *, report: Callable[[Report], object] | None = None) -> nn.Module:
    """Makes every depthwise convolution of a model a `DepthwiseConv2d`, in place.

    A layer is swapped if it is an nn.Conv2d with ``groups == in_channels > 1`` and no subclass of it, or timm's
    Conv2dSame (which becomes ``padding='same'``), parametrised or not. A subclass, a lazy layer (run the model once
    first) and a layer whose `forward` was replaced on the instance may compute something else and are left.

    Args:
        model: any module; it may itself be the depthwise layer.
        report: called once with the `Report` of what was swapped and what was left and why; ``report=print`` prints it.

    Returns:
        `model`, the same object.

    Raises:
        TypeError: `model` is no nn.Module.

    >>> model = convert(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 16, 1)), report=print)
    swapped: 1
      0
    left: 1
      groups=1, an ordinary convolution: 1
    """
    return _swap(model, _ConvNd, _why_not_convert, _to_depthwise, report)


def revert(model: nn.Module, *, report: Callable[[Report], object] | None = None) -> nn.Module:
    """Undoes `convert`, in place: every `DepthwiseConv2d` becomes the nn.Conv2d (or timm Conv2dSame) it was.

    Tools that look for nn.Conv2d by its exact type, such as quantisation and torch.jit.script, need this first.
    Layers that were built as DepthwiseConv2d become nn.Conv2d as well, except those that nn.Conv2d cannot express:
    an activation, padding that differs between opposite sides, and ``padding='same'`` with a stride. Those, subclasses,
    and layers whose `forward` was replaced on the instance are left.

    Args, returns, raises: as `convert`.
    """
    return _swap(model, DepthwiseConv2d, _why_not_revert, _to_origin, report)


def _swap(model, candidates: type, why_not: Callable, swap: Callable, report: Callable | None) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    done = Report()
    for name, module in model.named_modules():
        if not isinstance(module, candidates):
            continue
        if reason := why_not(module):
            done.left[name] = reason
        else:
            swap(module)
            done.swapped.append(name)
    if report is not None:
        report(done)
    return model


def _why_not_convert(module: _ConvNd) -> str | None:
    cls = parametrize.type_before_parametrizations(module)
    if issubclass(cls, DepthwiseConv2d):
        return "already a DepthwiseConv2d"
    if isinstance(module, _ConvTransposeNd) or not isinstance(module, nn.Conv2d):
        return f"{cls.__name__}, not a 2-D convolution"
    if isinstance(module, LazyModuleMixin):
        return f"{cls.__name__} has no channels yet: run the model once, then convert"
    if module.groups == 1:
        return "groups=1, an ordinary convolution"
    if module.groups != module.in_channels:
        return f"groups={module.groups} with in_channels={module.in_channels}, grouped but not depthwise"
    if cls is not nn.Conv2d and not is_timm_same(cls):
        return f"{cls.__module__}.{cls.__qualname__}, a subclass of nn.Conv2d that may compute something else"
    return instance_override(module)


def _why_not_revert(module: DepthwiseConv2d) -> str | None:
    cls = parametrize.type_before_parametrizations(module)
    if cls is not DepthwiseConv2d:
        return f"{cls.__module__}.{cls.__qualname__}, a subclass of DepthwiseConv2d that may compute something else"
    if module.activation is not None:
        return f"activation={module.activation}, which nn.Conv2d does not have"
    if module.padding == "same":
        if any(s != 1 for s in module.stride) and not hasattr(module, _ORIGIN):
            return f"padding='same' with stride={module.stride}, which nn.Conv2d does not have"
    elif any(isinstance(side, tuple) for side in module.padding):
        return f"padding={module.padding} differs between opposite sides, which nn.Conv2d does not have"
    return instance_override(module)


def instance_override(module: nn.Module) -> str | None:
    for method in ("forward", "_conv_forward"):
        if method in vars(module):
            return f"its {method} was replaced on the instance"
    return None


def is_timm_same(cls: type) -> bool:
    # By name, because importing timm takes seconds and few users have it.
    return cls.__name__ == "Conv2dSame" and cls.__module__.partition(".")[0] == "timm"


def _to_depthwise(module: nn.Conv2d) -> None:
    cls = parametrize.type_before_parametrizations(module)
    if cls is not nn.Conv2d:
        setattr(module, _ORIGIN, (cls, module.padding))
        module.padding = "same"
    _set_class(module, DepthwiseConv2d)


def _to_origin(module: DepthwiseConv2d) -> None:
    cls, padding = vars(module).pop(_ORIGIN, (nn.Conv2d, module.padding))
    if module.padding == "same":  # else the user gave the layer another padding since, which is nn.Conv2d's to do
        module.padding = padding
    else:
        cls = nn.Conv2d
    _set_class(module, cls)


def _set_class(module: nn.Module, cls: type) -> None:
    if parametrize.is_parametrized(module):
        # parametrize gave the layer a subclass of its own that holds its properties. Deep copies of the layer share
        # that class, so its base is not changed: the layer gets a second one like it.
        namespace = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), namespace)
    module.__class__ = cls

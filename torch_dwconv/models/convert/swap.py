"""convert and revert: give the depthwise layers of a model our classes, and take them back.

A swap changes a layer's class (`classes.py`) and, where the old class padded in a `forward` of its own (`paddings.py`),
its `padding`. The layer stays the same object, with the same parameters, buffers, hooks, flags and state_dict keys, so
optimizers, tied weights and references to it stay valid.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from ...layers.options import BY_SIZE
from . import batch_norms, classes, pointwise
from . import padding as paddings
from .classes import FAMILIES
from .unseen import Unseen

# On a layer some of whose attributes were changed: (its class, their values before, their values after).
_ORIGIN = "_converted_from"
# Methods by which blocks of timm, MobileOne, RepVGG, RepLKNet and others put new convolutions in the place of theirs.
_REBUILD = ("reparameterize", "switch_to_deploy", "merge_kernel", "fuse", "fuse_convs")


@dataclass
class Report:
    """What `convert` or `revert` did, by layer name (as in ``model.named_modules()``; the model itself is '').

    Attributes:
        swapped (list[str]): layers whose class changed.
        left (dict[str, str]): convolutions that stayed as they were, each with the reason.
        rebuilt (dict[str, str]): modules above swapped layers with a method that may put new layers in their place, as
            the `reparameterize` of MobileOne's blocks does: convert after it, or again.
    """

    swapped: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    rebuilt: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"swapped: {len(self.swapped)}", *(f"  {name or '(the model)'}" for name in self.swapped)]
        lines += [f"left: {len(self.left)}", *by_reason(self.left)]
        if self.rebuilt:
            lines += [f"may be rebuilt: {len(self.rebuilt)}", *by_reason(self.rebuilt)]
        return "\n".join(lines)


def by_reason(reasons: dict[str, str]) -> list[str]:
    """Lines for a report: each reason once, with the names of the layers."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name or "(the model)")
    return [f"  {reason}: {', '.join(layers)}" for reason, layers in names.items()]


def convert(model: nn.Module, *, blocks: bool = False, report: Callable[[Report], object] | None = None) -> nn.Module:
    """Makes every depthwise convolution of a model one of ours, in place.

    nn.Conv2d becomes `DepthwiseConv2d` and nn.Conv1d `DepthwiseConv1d` where ``groups == in_channels > 1``,
    parametrised layers too. So does a subclass that computes what they do: one whose forward is PyTorch's own and that
    adds no parameter, buffer or child, and one whose own forward only pads (TensorFlow's SAME, causal), whose `padding`
    then says so. Everything else may compute something else and is left, and so is a lazy layer (run the model first).

    The class of a converted layer is a subclass of its old one. Called, it makes a layer of the old class.

    With `blocks`, each nn.BatchNorm2d becomes a `BatchNormAct2d` too, which trains faster, and computes the activation
    behind it where both follow each other in an nn.Sequential, have no hooks and are used once. The activation becomes
    an nn.Identity then: code of yours that calls the BatchNorm of such a pair by itself gets activated values. timm's
    BatchNormAct2d computes the activation that it holds, and holds it still. And each nn.Conv2d with a 1x1 kernel, a
    stride of 1 and no padding becomes a `PointwiseConv2d`.

    Args:
        model: any module; it may itself be the depthwise layer.
        blocks: BatchNorm2d as well, with ReLU, ReLU6, Hardtanh(0, 6), Hardswish, SiLU or GELU, and 1x1 convolutions.
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
    conversion = _Conversion()
    if not blocks or not isinstance(model, nn.Module):
        return _walk(model, conversion.look, report, _rebuilders)
    pairs = batch_norms.Pairs(model)
    return _walk(
        model,
        lambda module: pointwise.swap(module) or conversion.look(module) or pairs.look(module),
        report,
        _rebuilders,
    )


def revert(model: nn.Module, *, report: Callable[[Report], object] | None = None) -> nn.Module:
    """Undoes `convert`, in place: every converted layer gets back the class that it had.

    Tools that look for nn.Conv2d by its exact type, such as quantisation and torch.jit.script, need this first.
    Layers that were built as ours become PyTorch's as well, except those that PyTorch's cannot express: an activation,
    padding that differs between opposite sides, and ``padding='same'`` with a stride. Those, subclasses, and layers
    whose `forward` was replaced on the instance are left.

    Args, returns, raises: as `convert`.
    """
    if not isinstance(model, nn.Module):
        return _walk(model, _revert_one, report)
    split = batch_norms.Split(model)
    return _walk(model, lambda module: pointwise.swap_back(module) or _revert_one(module) or split.look(module), report)


def _walk(
    model: nn.Module,
    look: Callable[[nn.Module], Any],
    report: Callable[[Report], object] | None,
    rebuilders: Callable[[nn.Module, list[str]], dict[str, str]] | None = None,
) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    done = Report()
    for name, module in model.named_modules():
        match look(module):
            case str(reason):
                done.left[name] = reason
            case True:
                done.swapped.append(name)
    if report is not None:
        if rebuilders is not None:
            done.rebuilt = rebuilders(model, done.swapped)
        report(done)
    return model


def _rebuilders(model: nn.Module, swapped: list[str]) -> dict[str, str]:
    """The modules above swapped layers that have a method of `_REBUILD`, each with what to do about it."""
    found = {}
    for name, module in model.named_modules():
        methods = [method for method in _REBUILD if callable(getattr(type(module), method, None))]
        if methods and any(layer.startswith(name and f"{name}.") for layer in swapped):
            found[name] = f"its {methods[0]}() may put PyTorch's layers in place of ours: convert after it"
    return found


class _Conversion:
    """One call of `convert`, which remembers what it has found out about classes."""

    def __init__(self) -> None:
        self.paddings: dict[Any, Any] = {}
        self.unseen = Unseen()

    def look(self, module: nn.Module) -> str | bool:
        """Swaps a layer: True if it did, the reason if a convolution was left, False for any other module."""
        if not isinstance(module, _ConvNd):
            return self.unseen.reason(module) or False
        cls = parametrize.type_before_parametrizations(module)
        base = classes.family(cls)
        if base is None:
            return f"{cls.__name__}, not a 1-D or 2-D convolution"
        layer = FAMILIES[base]
        if issubclass(cls, layer):
            return f"already a {layer.__name__}"
        if isinstance(module, LazyModuleMixin):
            return f"{cls.__name__} has no channels yet: run the model once, then convert"
        if module.groups == 1:
            return "groups=1, an ordinary convolution"
        if module.groups != module.in_channels:
            return f"groups={module.groups} with in_channels={module.in_channels}, grouped but not depthwise"
        try:
            changes = self.changes(module, cls, base)
        except paddings.Unlike as reason:
            return str(reason)
        try:
            _set_class(module, cls, classes.converted_class(cls, layer))
        except Exception as error:  # of a metaclass or an __init_subclass__, which may be anything
            return f"{_full_name(cls)} cannot be subclassed: {type(error).__name__}: {error}"
        if changes:
            before = {name: getattr(module, name) for name in changes}
            vars(module).update(changes, **{_ORIGIN: (cls, before, changes)})
        else:
            vars(module).pop(_ORIGIN, None)  # of a layer that was made anew by calling its constructor again
        return True

    def changes(self, module: _ConvNd, cls: type, base: type[_ConvNd]) -> dict[str, Any]:
        """The attributes that a layer needs another value of as one of ours; raises Unlike if it cannot be one."""
        layer = FAMILIES[base]
        if override := _instance_override(module, "_conv_forward"):
            raise paddings.Unlike(override)
        if method := classes.patched(base):
            raise paddings.Unlike(f"{method} has been replaced")
        for name in classes.added_names(base, layer):
            if hasattr(cls, name) or getattr(module, name, None) is not None:
                raise paddings.Unlike(f"its {name} would mean something else in a {layer.__name__}")
        plain = not classes.changed_names(cls)
        if not (plain and "_conv_forward" in classes.computing_methods(base)) and (
            override := _forward_override(module, cls)
        ):
            raise paddings.Unlike(override)
        changes = {}
        if plain:
            if cls is not base and (added := classes.added_state(module)):
                raise paddings.Unlike(f"{_full_name(cls)}, a subclass that adds {', '.join(added)}")
        else:
            padding = self.padding(module, cls, base)
            if padding != module.padding:
                changes["padding"] = padding
                if padding == "same" and module.padding_mode != "zeros":
                    changes["_reversed_padding_repeated_twice"] = [*BY_SIZE]
        for name in ("stride", "dilation"):
            value = getattr(module, name)
            if value != (regular := paddings.numbers(value, _axes(module))):
                changes[name] = regular
        return changes

    def padding(self, module: _ConvNd, cls: type, base: type[_ConvNd]) -> Any:
        """The padding with which ours computes what the forward of a subclass does, looked for once a geometry."""
        try:
            if others := classes.changed_names(cls, methods=False):
                raise paddings.Unlike(f"it has a {others[0]} of its own")
            if base not in paddings.BASES:
                raise paddings.Unlike("it has a forward of its own")
            key = (cls, paddings.geometry(module))
            if key not in self.paddings:
                try:
                    self.paddings[key] = paddings.padding(module, cls, base)
                except paddings.Unlike as reason:
                    self.paddings[key] = reason
            if isinstance(found := self.paddings[key], paddings.Unlike):
                raise found
            return found
        except paddings.Unlike as reason:
            what = f"{_full_name(cls)}, a subclass of nn.{base.__name__} that may compute something else"
            raise paddings.Unlike(f"{reason}: {what}") from None


def _revert_one(module: nn.Module) -> str | bool:
    layer = next((layer for layer in FAMILIES.values() if isinstance(module, layer)), None)
    if layer is None:
        return False
    assert isinstance(module, _ConvNd)
    cls = parametrize.type_before_parametrizations(module)
    original, base = classes.origin(cls), classes.family(cls)
    assert base is not None
    if original is None and cls is not layer:
        return f"{_full_name(cls)}, a subclass of {layer.__name__} that may compute something else"
    former, before, after = _changes_made(module)
    restored = {name: before[name] for name in after if vars(module).get(name) == after[name]}
    if "padding" in after and "padding" not in restored:
        former = base  # it was given another padding since, which the class that it had would not look at
    elif original is not None:
        former = original
    # Below a plain class's own forward the swap changes _conv_forward alone, whoever calls that.
    below = original is not None and not classes.changed_names(original)
    below = below and "_conv_forward" in classes.computing_methods(base)
    if override := _instance_override(module, "_conv_forward"):
        return override
    if not below and (override := _forward_override(module, original and cls)):
        return override
    if "padding" not in restored and (beyond := _beyond(module, base)):
        return f"{beyond}, which nn.{base.__name__} does not have"
    _set_class(module, cls, former or base)
    vars(module).pop(_ORIGIN, None)
    vars(module).update(restored)
    return True


def _changes_made(module: nn.Module) -> tuple[type | None, dict[str, Any], dict[str, Any]]:
    """The class that a layer had, and the attributes that `convert` changed: their values before and after."""
    match vars(module).get(_ORIGIN):
        case (cls, dict(before), dict(after)):
            return cls, before, after
        case (cls, padding):  # in files of versions that converted no other subclass than timm's Conv2dSame
            return cls, {"padding": padding}, {"padding": "same"}
    return None, {}, {}


def _axes(module: _ConvNd) -> int:
    return 1 if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)) else 2


def _beyond(module: _ConvNd, base: type) -> str | None:
    """What of a layer of ours PyTorch's class cannot express."""
    if (activation := getattr(module, "activation", None)) is not None:
        return f"activation={activation}"
    padding = module.padding
    if padding == "same" and any(step != 1 for step in paddings.numbers(module.stride, _axes(module))):
        return f"padding='same' with stride={module.stride}"
    if isinstance(padding, (tuple, list)) and (
        len(padding) > _axes(module) or any(isinstance(side, (tuple, list)) for side in padding)
    ):
        return f"padding={padding} differs between opposite sides"
    return None


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _instance_override(module: nn.Module, method: str) -> str | None:
    return f"its {method} was replaced on the instance" if method in vars(module) else None


def _forward_override(module: nn.Module, cls: type | None) -> str | None:
    """_instance_override of forward, unless it leads to the forward of `cls`, which can be exchanged too."""
    # accelerate's forward calls what it keeps as _old_forward; taken away, it leaves that as forward.
    name = "_old_forward" if "_hf_hook" in vars(module) else "forward"
    return None if cls and _is_bound(module, name, cls) else _instance_override(module, "forward")


def _is_bound(module: nn.Module, name: str, cls: Any) -> bool:
    method = vars(module).get(name)
    return isinstance(method, MethodType) and method.__self__ is module and method.__func__ is cls.forward


def _set_class(module: nn.Module, old: type, new: Any) -> None:
    bound = [name for name in ("forward", "_old_forward") if _is_bound(module, name, old)]
    classes.set_class(module, new)
    vars(module).update({name: MethodType(new.forward, module) for name in bound})

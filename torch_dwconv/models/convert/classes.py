"""The classes of converted layers: what `convert` gives a layer in place of its own class, and `revert` takes back.

A converted layer gets a class made for it of two: the class that it had, and our layer of that kind. The class is a
subclass of both, so that ``isinstance`` and whatever the old class added (attributes, properties, methods,
`extra_repr`) stay, and it computes as our layer does. Called as a constructor it is the old class: libraries that make
a layer like another one by ``type(layer)(in_channels, out_channels, kernel_size)`` get what they would have got.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules import conv
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from ...layers.convolution import DepthwiseConv1d, DepthwiseConv2d
from ...layers.transposed import DepthwiseConvTranspose1d, DepthwiseConvTranspose2d

# The classes of PyTorch whose depthwise layers are converted, each with ours.
FAMILIES: dict[type[_ConvNd], type[_ConvNd]] = {
    nn.Conv1d: DepthwiseConv1d,
    nn.Conv2d: DepthwiseConv2d,
    nn.ConvTranspose1d: DepthwiseConvTranspose1d,
    nn.ConvTranspose2d: DepthwiseConvTranspose2d,
}

_MADE_OF = "_made_of"  # in a class made here: (the class that the layer had, our layer's class)


def family(cls: type) -> type[_ConvNd] | None:
    """The class of PyTorch in `FAMILIES` that `cls` is or derives from, None if there is none."""
    return next((base for base in FAMILIES if issubclass(cls, base)), None)


def origin(cls: type) -> type | None:
    """The class that layers of a class made by `converted_class` had before, None if `cls` is no such class."""
    return vars(cls)[_MADE_OF][0] if _MADE_OF in vars(cls) else None


def converted_class(original: type, layer: type) -> type:
    """The class of layers of class `original` that compute as `layer` does; the same one at every call."""
    base = family(original)
    assert base is not None and issubclass(layer, base)
    if original is base:
        return _converted_base(base, layer)
    # Python keeps weak references to subclasses, so this is a cache that keeps no class of a user's alive.
    cls: type
    for cls in type.__subclasses__(original):
        if vars(cls).get(_MADE_OF) == (original, layer):
            return cls
    return _make(original, layer, (original, _converted_base(base, layer)), {})


_BASES: dict[type, type] = {}


def _converted_base(base: type, layer: type) -> type:
    """The class of layers whose class was PyTorch's own; the others made here derive from it."""
    if layer not in _BASES:
        _BASES[layer] = _make(base, layer, (layer,), {"__reduce_ex__": _reducer(lambda: _BASES[layer])})
    return _BASES[layer]


def _make(original: type, layer: type, parents: tuple[type, ...], namespace: dict[str, Any]) -> type:
    name = f"Depthwise{original.__name__}"  # of nn.Conv2d: DepthwiseConv2d
    constants = (*getattr(original, "__constants__", ()), *getattr(layer, "__constants__", ()))
    namespace |= {
        _MADE_OF: (original, layer),
        "__module__": layer.__module__,
        "__qualname__": name,
        "__doc__": f"A {original.__module__}.{original.__qualname__} that convert made a {layer.__name__}.",
        "__init__": _constructor(original),
        "__constants__": list(dict.fromkeys(constants)),
        # `original` comes first among the parents, but computes nothing.
        **{method: getattr(layer, method) for method in computing_methods(family(original))},
    }
    return types.new_class(name, parents, exec_body=lambda body: body.update(namespace))


def computing_methods(base: type[_ConvNd] | None) -> tuple[str, ...]:
    """The methods of a class in `FAMILIES` that say what its layers compute."""
    assert base is not None
    return ("forward",) if base._conv_forward is _ConvNd._conv_forward else ("forward", "_conv_forward")


def _constructor(original: type) -> Callable:
    @functools.wraps(original.__init__)  # type: ignore[misc]  # for the signature, which skip_init looks at
    def __init__(self, *args, **kwargs) -> None:
        if origin(type(self)) is not original:
            raise TypeError(
                f"{type(self).__qualname__} derives from the class of a converted layer, which has no constructor "
                f"of its own: derive it from {original.__module__}.{original.__qualname__}"
            )
        self.__class__ = original
        self.__init__(*args, **kwargs)

    return __init__


def _reducer(made: Callable[[], type]) -> Callable:
    def __reduce_ex__(self, protocol) -> Any:
        """Pickles and copies a layer by the two classes that its own was made of, which are found by name."""
        cls: type = type(self)
        reduced = super(made(), self).__reduce_ex__(protocol)  # type: ignore[arg-type]
        if not origin(cls) or not isinstance(reduced, tuple) or reduced[1][:1] != (cls,):
            return reduced
        function, (_, *args), *rest = reduced
        return rebuild_layer, (*vars(cls)[_MADE_OF], function, *args), *rest

    return __reduce_ex__


def rebuild_layer(original: type, layer: type, function: Callable, *args) -> Any:
    """A converted layer from its pickle."""
    return function(converted_class(original, layer), *args)


def set_class(module: nn.Module, cls: type) -> None:
    """Gives a layer another class, below that which parametrize gave it, if there is one."""
    if parametrize.is_parametrized(module):
        # parametrize gave the layer a subclass of its own that holds its properties. Deep copies of the layer share
        # that class, so its base is not changed: the layer gets a second one like it.
        namespace = {k: v for k, v in vars(type(module)).items() if k not in ("__dict__", "__weakref__")}
        cls = type(f"Parametrized{cls.__name__}", (cls,), namespace)
    module.__class__ = cls


def added_names(base: type, layer: type) -> set[str]:
    """What layers of ours have and PyTorch's do not."""
    return {name for name in vars(layer) if not name.startswith("_") and not hasattr(base, name)}


def patched(base: type[_ConvNd]) -> str | None:
    """The method of PyTorch's class that something has put another in place of, which would be lost."""
    for name in computing_methods(base):
        if getattr(_static(base, name), "__globals__", None) is not vars(conv):
            return f"nn.{base.__name__}.{name}"
    return None


# What nn.Module's call and the forward of PyTorch's convolutions look up in a layer, beside the methods that compute;
# and what makes one. FSDP2's classes find the class to make by its place among their parents.
_CALL = (
    *("__new__", "__call__", "_call_impl", "_wrapped_call_impl", "_slow_forward"),
    *("__getattr__", "__getattribute__", "__torch_function__"),
)
_READ = (
    *("weight", "bias", "stride", "padding", "dilation", "groups", "padding_mode", "output_padding", "kernel_size"),
    *("in_channels", "out_channels", "transposed", "_reversed_padding_repeated_twice", "_output_padding"),
    *("_parameters", "_buffers", "_modules", "_compiled_call_impl"),
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"),
)


def changed_names(cls: type, *, methods: bool = True) -> list[str]:
    """Names that matter to what a layer computes and that `cls` defines other than its class in `FAMILIES`.

    Without `methods`, the methods that compute are not looked at.
    """
    base = family(cls)
    assert base is not None
    if cls is base:
        return []
    names = (*(computing_methods(base) if methods else ()), *_CALL, *_READ)
    return [name for name in names if _static(cls, name) is not _static(base, name)]


def _static(cls: type, name: str) -> Any:
    return next((vars(parent)[name] for parent in cls.__mro__ if name in vars(parent)), None)


# What parametrize, prune, weight_norm and spectral_norm add to a layer for its weight and bias.
_DERIVED = tuple(f"{of}_{what}" for of in ("weight", "bias") for what in ("orig", "mask", "g", "v", "u"))


def added_state(module: nn.Module) -> list[str]:
    """Parameters, buffers and children that a layer has beside its weight and bias and what PyTorch derives them of."""
    known = {"weight", "bias", "parametrizations", *_DERIVED}
    held = (*module._parameters, *module._buffers, *module._modules)
    return [name for name in held if name not in known]

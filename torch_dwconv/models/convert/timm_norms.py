"""What `convert` does with ``blocks=True`` to timm's BatchNormAct2d, which holds its activation as a child.

A layer gets a class made of its own and `BatchNormAct2d`, and keeps its children: whether the activation is computed
with the BatchNorm is decided at every call, so that another `act`, a `drop` or hooks of them work as before. timm is
never imported here: a model has layers of its classes only where it has been.
"""

import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...layers.batch_norm import BatchNormAct2d
from .activations import name_of

_MADE_OF = "_made_of"  # in a class made here: the class that the layer had
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_original(cls: type) -> bool:
    """Whether layers of exactly this class can be swapped."""
    return cls is _of_timm("BatchNormAct2d")


def is_frozen(module: nn.Module) -> bool:
    """Of a class of timm that is no BatchNorm to PyTorch, but computes what one in evaluation does."""
    cls = _of_timm("FrozenBatchNormAct2d")
    return cls is not None and isinstance(module, cls)


def origin(module: nn.Module) -> type | None:
    """The class that a layer had before, None if it has none that was made here."""
    return vars(type(module)).get(_MADE_OF)


def converted_class(original: type) -> type:
    """The class of layers of class `original` that compute as BatchNormAct2d does; the same one at every call."""
    # Python keeps weak references to subclasses, so this is a cache that keeps no class alive.
    cls: type
    for cls in type.__subclasses__(original):
        if vars(cls).get(_MADE_OF) is original:
            return cls
    namespace = {
        _MADE_OF: original,
        "__module__": BatchNormAct2d.__module__,
        "__qualname__": BatchNormAct2d.__qualname__,
        "__doc__": f"A {original.__module__}.{original.__qualname__} that convert gave the kernels of BatchNormAct2d.",
    }
    return types.new_class(BatchNormAct2d.__name__, (_Holder, original), exec_body=lambda body: body.update(namespace))


def _of_timm(name: str) -> Any:
    return getattr(sys.modules.get("timm.layers"), name, None)


class _Holder(BatchNormAct2d):
    """A BatchNormAct2d that computes the activation that it holds, in one pass where nothing stands between."""

    __jit_unused_properties__ = ("activation",)
    if TYPE_CHECKING:  # TorchScript takes annotations for attributes
        drop: nn.Module
        act: nn.Module

    def __init__(self, *args, **kwargs) -> None:
        """Called as a constructor the class is the one that the layer had."""
        self.__class__ = vars(type(self))[_MADE_OF]
        self.__init__(*args, **kwargs)  # type: ignore[misc]

    @property
    def activation(self) -> str | None:  # type: ignore[override]
        """What is computed with the BatchNorm."""
        if type(self.drop) is not nn.Identity or not (_is_bare(self.drop) and _is_bare(self.act)):
            return None
        return name_of(self.act)

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():
            return self.act(self.drop(self._normalised(input, None)))
        else:
            return super().forward(input)

    def _compute(self, input: Tensor) -> Tensor:
        activation = self.activation
        output = self._normalised(input, activation)
        return self.act(self.drop(output)) if activation is None else output

    def __reduce_ex__(self, protocol) -> Any:
        """Pickles and copies a layer by the class that it had, which is found by name."""
        reduced = super().__reduce_ex__(protocol)
        if not isinstance(reduced, tuple) or reduced[1][:1] != (type(self),):
            return reduced
        function, (_, *args), *rest = reduced
        return rebuild_norm, (vars(type(self))[_MADE_OF], function, *args), *rest


def rebuild_norm(original: type, function: Callable, *args) -> Any:
    """A converted layer from its pickle."""
    return function(converted_class(original), *args)


def _is_bare(child: nn.Module) -> bool:
    """Whether its call does what its class does and nothing more."""
    everywhere = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    return not everywhere and "forward" not in child.__dict__ and not any(getattr(child, name) for name in _HOOKS)

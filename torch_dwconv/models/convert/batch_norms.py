"""What `convert` does with ``blocks=True``: each BatchNorm2d computes the activation behind it as well.

The BatchNorm becomes a `BatchNormAct2d` and the activation an nn.Identity, by their classes: both stay the objects that
they were. A pair is one inside an nn.Sequential, since only its forward says what follows what. timm's BatchNormAct2d
has its activation inside (`timm_norms.py`).
"""

import itertools
from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers.batch_norm import BatchNormAct2d
from . import timm_norms
from .activations import name_of
from .code import hooked

# In a BatchNormAct2d that convert made: (the activation that it computes, the class that this had), or ().
_COMPUTES = "_computes"


def reason_to_stay(module: nn.Module) -> str | None:
    """Why a BatchNorm cannot be one of ours."""
    cls = type(module)
    if isinstance(module, BatchNormAct2d):
        return f"already a {BatchNormAct2d.__name__}"
    if cls is not nn.BatchNorm2d and not timm_norms.is_original(cls):
        return f"{cls.__module__}.{cls.__qualname__}, not nn.BatchNorm2d itself"
    if "forward" in vars(module):
        return "its forward was replaced on the instance"
    return None


class Pairs:
    """The BatchNorms of one model, each with the activation that it may compute."""

    def __init__(self, model: nn.Module) -> None:
        uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
        self.activation: dict[nn.Module, nn.Module] = {}
        for container in model.modules():
            if type(container).forward is not nn.Sequential.forward or "forward" in vars(container):
                continue
            for first, second in itertools.pairwise(container._modules.values()):
                if first is None or second is None or hooked(first) or hooked(second):
                    continue
                if uses[id(first)] == uses[id(second)] == 1 and name_of(second) is not None:
                    self.activation[first] = second

    def look(self, module: nn.Module) -> str | bool:
        """Swaps a BatchNorm: True if it did, the reason if one was left, False for any other module."""
        if timm_norms.is_frozen(module):
            return f"{type(module).__name__}, whose statistics are constants"
        if not isinstance(module, _BatchNorm) or isinstance(module, (nn.BatchNorm1d, nn.BatchNorm3d)):
            return False
        if (reason := reason_to_stay(module)) is not None:
            return reason
        if timm_norms.is_original(type(module)):
            module.__class__ = timm_norms.converted_class(type(module))
            return True
        module.__class__ = BatchNormAct2d
        vars(module)[_COMPUTES] = ()
        if (activation := self.activation.get(module)) is not None:
            cls = type(activation)
            vars(module).update({_COMPUTES: (activation, cls), "activation": name_of(activation)})
            activation.__class__ = nn.Identity
        return True


class Split:
    """One call of `revert`."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = {*model.modules()}

    def look(self, module: nn.Module) -> str | bool:
        """Undoes `Pairs.look`."""
        if not isinstance(module, BatchNormAct2d):
            return False
        former = timm_norms.origin(module)
        if former is None and type(module) is not BatchNormAct2d:
            return f"{type(module).__qualname__}, a subclass of BatchNormAct2d that may compute something else"
        if "forward" in vars(module):
            return "its forward was replaced on the instance"
        if former is not None:
            module.__class__ = former
            return True
        computes = vars(module).get(_COMPUTES, ())
        if module.activation is not None:
            if not computes or computes[0] not in self.modules or type(computes[0]) is not nn.Identity:
                return f"activation={module.activation}, which nn.BatchNorm2d does not have"
            computes[0].__class__ = computes[1]
        for name in (_COMPUTES, "activation"):
            vars(module).pop(name, None)
        module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]  # mypy narrows the class
        return True

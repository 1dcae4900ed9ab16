"""What torch.fx.symbolic_trace makes of a layer."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def leaf(layer: nn.Module, otherwise: Callable, input: torch.fx.Proxy, *rest):
    """The call of a layer as torch.fx.symbolic_trace records those of torch.nn's: a node of its own, `call_module`.

    `otherwise` is what the layer does. It is recorded where the tracer makes no leaf of PyTorch's layers either, and
    where the layer has hooks: the tracer records what they do, since it knows of torch.nn's leaves only.
    """
    tracer: Any = input.tracer
    path = getattr(tracer, "path_of_module", lambda layer: "")(layer)
    if path and tracer.is_leaf_module(_any_layer_of_torch(), path) and not _has_forward_hooks(layer):
        return tracer.create_proxy("call_module", path, (input, *rest), {})
    return otherwise(input, *rest)


@functools.cache
def _any_layer_of_torch() -> nn.Module:
    return nn.Conv2d(1, 1, 1, device="meta")


def _has_forward_hooks(layer: nn.Module) -> bool:
    everywhere = nn.modules.module._global_forward_hooks or nn.modules.module._global_forward_pre_hooks
    return bool(layer._forward_hooks or layer._forward_pre_hooks or everywhere)

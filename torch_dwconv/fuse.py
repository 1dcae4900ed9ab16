"""fuse: folds BatchNorm and the activation that follow a convolution into it, for inference.

torch.fx finds what follows what; the model itself is changed, not its graph. A folded module is replaced by
nn.Identity, so the model keeps its class, its structure and the names of everything that stays.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import parametrize

from .convert import by_reason, convert, instance_override, is_timm_same
from .converted import origin
from .modules import DepthwiseConv2d

_ACTIVATIONS = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.Hardswish: "hardswish", nn.SiLU: "silu"}
# timm's own modules, by name as in convert.
_TIMM_ACTIVATIONS = {"Swish": "silu", "HardSwish": "hardswish", "GELU": "gelu", "GELUTanh": "gelu_tanh"}
_FUNCTIONS = {"relu", "relu_", "relu6", "hardswish", "silu", "gelu"}


@dataclass
class FuseReport:
    """What `fuse` did, by layer name.

    Attributes:
        fused (dict[str, str]): convolutions that took something over, each with what it was.
        left (dict[str, str]): convolutions that have not taken all over that they might have, each with the reason.
    """

    fused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(
            [f"fused: {len(self.fused)}", *by_reason(self.fused), f"left: {len(self.left)}", *by_reason(self.left)]
        )


class _Unfit(Exception):
    """Why something is not folded."""


def fuse(model: nn.Module, *, report: Callable[[FuseReport], object] | None = None) -> nn.Module:
    """Folds BatchNorm and activations into the convolutions before them, in place, for inference.

    Depthwise layers, which are converted first (see `convert`), take over a BatchNorm and a ReLU, ReLU6, Hardswish,
    SiLU or GELU (either `approximate`); other nn.Conv2d a BatchNorm. timm's BatchNormAct2d counts as both. What they
    replace becomes nn.Identity; the weights change and cannot be restored, so keep a copy if you train on.

    Only modules are folded whose result goes nowhere else. A module that is called several times, has hooks, is
    parametrised or in training mode stays, and so does an activation that `forward` calls as a function. Parts of the
    model that torch.fx cannot trace are looked at child by child. While it traces, torch.fx replaces the calls of all
    modules of the process: no other thread may fuse or run a model meanwhile.

    Args:
        model: any module in eval mode.
        report: called once with the `FuseReport`; ``report=print`` prints it.

    Returns:
        `model`, the same object. Its outputs are the same but for rounding.

    Raises:
        RuntimeError: `model` is in training mode, where BatchNorm depends on the batch.
        TypeError: `model` is no nn.Module.

    >>> block = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6())
    >>> fuse(block.eval(), report=print)
    fused: 1
      BatchNorm2d, relu6: 0
    left: 0
    Sequential(
      (0): DepthwiseConv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), groups=8, activation=relu6)
      (1): Identity()
      (2): Identity()
    )
    """
    if isinstance(model, nn.Module) and model.training:
        raise RuntimeError("model must be in eval mode to be fused, got training=True: call model.eval() first")
    convert(model)
    done = FuseReport()
    names = {module: name for name, module in model.named_modules()}
    seen = set()
    for region, graph in _regions(model):
        for node in graph.nodes:
            conv = _called(region, node) if node.op == "call_module" else None
            if isinstance(conv, nn.Conv2d) and conv not in seen:
                seen.add(conv)
                _fuse_one(model, region, node, conv, names[conv], done)
    for module, name in names.items():
        if isinstance(module, DepthwiseConv2d) and module not in seen:
            done.left[name] = "torch.fx cannot trace the module that calls it"
    if report is not None:
        report(done)
    return model


class _Tracer(torch.fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        whole = isinstance(module, (nn.Conv2d, nn.modules.batchnorm._BatchNorm)) or _activation(module) is not None
        return whole or super().is_leaf_module(module, name)


def _regions(module: nn.Module) -> Iterator[tuple[nn.Module, torch.fx.Graph]]:
    """The largest parts of a model that trace, each with its graph."""
    try:
        graph = _Tracer().trace(module)
    except Exception:  # data-dependent control flow, in as many ways as there are models
        for child in module.children():
            yield from _regions(child)
    else:
        yield module, graph


def _called(region: nn.Module, node: torch.fx.Node) -> nn.Module:
    """The module that a node calls."""
    return region.get_submodule(str(node.target))


def _fuse_one(
    model: nn.Module, region: nn.Module, node: torch.fx.Node, conv: nn.Conv2d, name: str, done: FuseReport
) -> None:
    """Folds what follows `conv`, which `node` calls."""
    calls = Counter(_called(region, n) for n in node.graph.nodes if n.op == "call_module")
    taken: list[str] = []
    try:
        follower, module = _next(region, node)
        if isinstance(module, nn.BatchNorm2d):
            _check_conv(conv, calls, node)
            _check_norm(module, calls)
            _fold(conv, module)
            taken.append(type(module).__name__)
            rest = module.get_submodule("act") if _is_timm_norm_act(module) else nn.Identity()
            _replace(model, module, rest)
            module = rest
            if isinstance(conv, DepthwiseConv2d) and isinstance(rest, nn.Identity):
                _, module = _next(region, follower)
        if not isinstance(conv, DepthwiseConv2d):
            return  # PyTorch's own kernels take no activation
        activation = _activation(module)
        if activation is None:
            raise _Unfit(f"{type(module).__name__} follows")
        _check_conv(conv, calls, node)
        _check_module(module, calls)
        conv.activation = activation
        taken.append(activation)
        _replace(model, module, nn.Identity())
    except _Unfit as reason:
        if isinstance(conv, DepthwiseConv2d):
            done.left[name] = str(reason)
    finally:
        if taken:
            done.fused[name] = ", ".join(taken)


def _next(region: nn.Module, node: torch.fx.Node) -> tuple[torch.fx.Node, nn.Module]:
    """The node and the module that alone take a node's result."""
    if len(node.users) != 1:
        raise _Unfit(f"its result is used {len(node.users)} times")
    user = next(iter(node.users))
    if user.op == "output":
        raise _Unfit("nothing follows")
    if user.op != "call_module":
        name = getattr(user.target, "__name__", str(user.target))
        raise _Unfit(f"{name} follows" + (", a function and no module" if name in _FUNCTIONS else ""))
    return user, _called(region, user)


def _check_conv(conv: nn.Conv2d, calls: Counter, node: torch.fx.Node) -> None:
    cls = parametrize.type_before_parametrizations(conv)
    if cls not in (nn.Conv2d, DepthwiseConv2d) and not origin(cls) and not is_timm_same(cls):
        raise _Unfit(f"{cls.__module__}.{cls.__qualname__}, a subclass that may compute something else")
    if parametrize.is_parametrized(conv):
        raise _Unfit("it is parametrised")
    if any(n.op == "get_attr" and n.target.startswith(f"{node.target}.") for n in node.graph.nodes):
        raise _Unfit("its parameters are used outside of it too")
    if getattr(conv, "activation", None) is not None:
        raise _Unfit(f"it already has activation={conv.activation}")
    _check_module(conv, calls)


def _check_norm(norm: nn.BatchNorm2d, calls: Counter) -> None:
    if type(norm) is not nn.BatchNorm2d and not _is_timm_norm_act(norm):
        raise _Unfit(f"{type(norm).__name__}, a subclass of BatchNorm2d that may compute something else")
    if norm.training or norm.running_mean is None:
        raise _Unfit("its BatchNorm normalises by the batch")
    if _is_timm_norm_act(norm) and not isinstance(norm.drop, nn.Identity):
        raise _Unfit(f"its {type(norm).__name__} drops")
    _check_module(norm, calls)


def _check_module(module: nn.Module, calls: Counter) -> None:
    kind = type(module).__name__
    if calls[module] > 1:
        raise _Unfit(f"its {kind} is called {calls[module]} times")
    if _has_hooks(module):
        raise _Unfit(f"its {kind} has hooks")
    if override := instance_override(module):
        raise _Unfit(f"its {kind}: {override}")


def _activation(module: nn.Module) -> str | None:
    """What `activation` of a layer computes the same, None if there is nothing."""
    cls = type(module)
    if cls is nn.GELU:
        return "gelu" if module.approximate == "none" else "gelu_tanh"
    if cls.__module__.partition(".")[0] == "timm":
        return _TIMM_ACTIVATIONS.get(cls.__name__)
    return _ACTIVATIONS.get(cls)


def _is_timm_norm_act(norm: nn.Module) -> bool:
    return type(norm).__name__ == "BatchNormAct2d" and type(norm).__module__.partition(".")[0] == "timm"


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    return any(getattr(module, f"_{kind}") for kind in kinds)


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """conv becomes norm(conv), computed in float64 and rounded once."""
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean if conv.bias is None else conv.bias.double() - mean
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    weight = conv.weight
    folded = (weight.double() * scale[:, None, None, None]).to(weight.dtype)  # keeps the memory format
    conv.weight = nn.Parameter(folded, requires_grad=weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts `new` in place of `old` under each of its names."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)

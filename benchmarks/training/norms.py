"""BatchNorm with its activation, in training: ours against F.batch_norm and PyTorch's activation, on one thread."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from torch_dwconv import batch_norm_act
from torch_dwconv.bench.problem import LAYOUTS
from torch_dwconv.bench.timing import Options, Run, threads, time_in_turns
from torch_dwconv.operators.schemas import ACTIVATIONS

from .targets import Norm


def _ours(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None) -> Tensor:
    return batch_norm_act(x, None, None, weight, bias, True, activation=activation)


def _torch(x: Tensor, weight: Tensor, bias: Tensor, activation: str | None) -> Tensor:
    y = F.batch_norm(x, None, None, weight, bias, True)
    return ACTIVATIONS[activation](y) if activation else y


def measure(norm: Norm, layout: str, options: Options) -> dict:
    """The record of one: seconds of the forward call, with its graph, and of the backward one.

    Raises:
        AssertionError: the two differ by more than rounding.
    """
    torch.manual_seed(0)
    size = (norm.batch, norm.channels, norm.height, norm.height)
    x = torch.randn(size).to(memory_format=LAYOUTS[layout]).requires_grad_()
    weight, bias = (torch.rand(norm.channels).requires_grad_() for _ in range(2))
    leaves, v = (x, weight, bias), torch.randn(size).to(memory_format=LAYOUTS[layout])
    runs, gradients = {}, {}
    for name, function in {"ours": _ours, "torch": _torch}.items():
        output = function(*leaves, norm.activation)
        gradients[name] = torch.autograd.grad(output, leaves, v, retain_graph=True)
        runs[f"{name} forward"] = Run(partial(function, *leaves, norm.activation))
        runs[f"{name} backward"] = Run(partial(torch.autograd.grad, output, leaves, v, retain_graph=True))
    for ours, right in zip(gradients["ours"], gradients["torch"], strict=True):
        difference = ((ours - right).norm() / right.norm()).item()
        # Where rounding puts a result on the other side of a bend, a gradient comes or goes: 1e-6 of them are 1e-3 of
        # the norm. PyTorch's statistics in float32 do that in NHWC.
        assert difference < 1e-2, f"{norm} {layout}: gradients differ by {difference:.1e}"
    with threads(1):
        timings = time_in_turns(runs, options, 1)
    times = {name: timing._asdict() for name, timing in timings.items()}
    return {**norm._asdict(), "layout": layout, "times": times}

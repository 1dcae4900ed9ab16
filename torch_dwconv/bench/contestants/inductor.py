"""torch.compile of what eager.py runs; forward is a frozen module, so that Inductor may pack the weight beforehand."""

import torch
from torch import nn
from torch._inductor import config

from ..timing import Run
from . import eager
from .eager import version as version  # the same package


def runs(problem) -> dict[str, Run]:
    torch._dynamo.reset()  # graphs of earlier problems count against the limit of recompilations
    if problem.cell.operation == "forward":
        conv = nn.Conv2d(
            problem.groups,
            problem.weight.shape[0],
            problem.weight.shape[2:],
            problem.stride,
            problem.padding,
            problem.dilation,
            problem.groups,
            bias=False,
            device="meta",
        ).eval()
        conv.weight = nn.Parameter(problem.weight, requires_grad=False)
        frozen, input = torch.compile(conv, dynamic=False), problem.input
        with config.patch(freezing=True):
            frozen(input)
        return {"fresh": Run(lambda: frozen(input))}
    result = eager.GRADIENTS[problem.cell.operation]
    compiled = torch.compile(lambda *operands: eager.backward(problem, *operands)[result], dynamic=False)
    operands = problem.grad_output, problem.input, problem.weight
    compiled(*operands)
    return {"fresh": Run(lambda: compiled(*operands))}

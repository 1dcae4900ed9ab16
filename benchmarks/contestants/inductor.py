"""torch.compile of eager PyTorch's calls; forward is a frozen module, whose weight Inductor may reorder beforehand."""

import torch
from torch import nn
from torch._inductor import config

from torch_dwconv.bench.contestants import eager
from torch_dwconv.bench.contestants.eager import version as version  # the same package
from torch_dwconv.bench.timing import Run


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

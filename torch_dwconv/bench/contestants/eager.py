"""PyTorch, eager, in the cell's layout: F.conv2d, and aten's convolution_backward for one gradient at a time.

It has no reused mode: its out overloads compute a new tensor and copy it.
"""

import torch
from torch.nn import functional as F

from ..timing import Run

GRADIENTS = {"grad_input": 0, "grad_weight": 1}  # the position of each among convolution_backward's results


def version() -> str:
    return torch.__version__


def backward(problem, grad_output, input, weight):
    """The gradient that the problem is about, and None for the others."""
    wanted = [position == GRADIENTS[problem.cell.operation] for position in range(3)]
    return torch.ops.aten.convolution_backward.default(
        grad_output,
        input,
        weight,
        None,
        problem.stride,
        problem.padding,
        problem.dilation,
        False,
        (0, 0),
        problem.groups,
        wanted,
    )


def runs(problem) -> dict[str, Run]:
    input, weight, grad_output = problem.input, problem.weight, problem.grad_output
    options = problem.stride, problem.padding, problem.dilation, problem.groups
    if problem.cell.operation == "forward":
        return {"fresh": Run(lambda: F.conv2d(input, weight, None, *options))}
    result = GRADIENTS[problem.cell.operation]
    return {"fresh": Run(lambda: backward(problem, grad_output, input, weight), lambda results: results[result])}

"""This library: its public functions for fresh results, the operators' out overloads for reused buffers."""

import torch

from ... import __version__, depthwise_conv2d, grad
from ..timing import Run

_OPERATORS = torch.ops.torch_dwconv


def version() -> str:
    return __version__


def runs(problem) -> dict[str, Run]:
    return {"fresh": Run(_fresh(problem)), "reused": _reused(problem)}


def _fresh(problem):
    first, second = problem.operands
    options = problem.stride, problem.padding, problem.dilation
    if problem.cell.operation == "forward":
        return lambda: depthwise_conv2d(first, second, None, *options)
    if problem.cell.operation == "grad_input":
        size = problem.input.shape
        return lambda: grad.depthwise_conv2d_input(size, second, first, *options)
    size = problem.weight.shape
    return lambda: grad.depthwise_conv2d_weight(first, size, second, *options)


def _reused(problem) -> Run:
    # Tensors of inference mode: for others the writes are counted, by Python, which nobody else in the run pays for.
    with torch.inference_mode():
        first, second = (operand.clone() for operand in problem.operands)
        buffer = problem.result_buffer()
        no_bias = first.new_empty(0)
    geometry = (*problem.stride, *problem.padding, *problem.dilation)
    channels_last = problem.memory_format == torch.channels_last
    if problem.cell.operation == "forward":
        arguments = first, second, None, *problem.grad_output.shape[2:], *geometry, channels_last
        return Run(lambda: _OPERATORS.forward.out(*arguments, out=buffer))
    if problem.cell.operation == "grad_input":
        arguments = first, second, *problem.input.shape[1:], *geometry, channels_last
        return Run(lambda: _OPERATORS.grad_input.out(*arguments, out=buffer))
    arguments = first, second, *problem.weight.shape[2:], *geometry, False, channels_last
    return Run(lambda: _OPERATORS.grad_weight.out(*arguments, out=buffer, bias_out=no_bias), lambda results: results[0])

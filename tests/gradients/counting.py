"""What counts the operators that a backward pass runs, and the calls for it."""

import itertools
from collections import Counter

import torch

from tests.calls import Call

CALL = Call(2, 3, 2, (7, 6), (3, 3), padding=((1, 1), (1, 1)))
SIZES = 7, 6, 1, 1, 1, 1, 1, 1, False  # CALL's, as the operator takes them
NAMES = {"torch_dwconv::forward": "forward", "torch_dwconv::grad_input": "grad_input"}
NAMES |= {"torch_dwconv::grad_weight": "grad_weight", "torch_dwconv::backward": "backward", "aten::sum": "sum"}


def count(function, *args, **options) -> tuple[dict, object]:
    """The operators that `function` runs, those below autograd and on other threads too, and its result."""
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        result = function(*args, **options)
    return dict(Counter(NAMES[event.name] for event in profile.function_events if event.name in NAMES)), result


def operations(wanted) -> dict:
    """What the gradients of those of input, weight and bias cost, which are `wanted`."""
    expected = {"grad_input": 1} if 0 in wanted else {}
    if 1 in wanted:
        expected["grad_weight"] = 1
    elif 2 in wanted:
        expected["sum"] = 1
    return expected


def leaves(dtype=torch.float64):
    return [tensor.requires_grad_() for tensor in CALL.tensors(dtype)]


def subsets(count):
    return [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]


def gradients_by(entrance, output, inputs, grad_output):
    """Both of autograd's ways to want the gradients of some; the graph stays."""
    if entrance == "grad":
        return torch.autograd.grad(output, inputs, grad_output, retain_graph=True)
    for tensor in inputs:
        tensor.grad = None
    output.backward(grad_output, inputs=inputs, retain_graph=True)
    return [tensor.grad for tensor in inputs]

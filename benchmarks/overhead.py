"""What a call costs beside its arithmetic: a tiny input, ours against nn.Conv2d and F.conv2d, on one thread.

Each way of calling is timed without a gradient, as the forward pass of training, and forward and backward together.
"""

import torch
from torch import nn
from torch.nn import functional as F

from torch_dwconv import DepthwiseConv2d, depthwise_conv2d
from torch_dwconv.bench.suite import Table
from torch_dwconv.bench.timing import Options, Run, threads, time_in_turns

SIZE = (1, 8, 4, 4)
KERNEL = 3
STEPS = ("no gradient", "training forward", "forward and backward")


def measure(options: Options) -> list[dict]:
    """Records, plain data for JSON: `call` ("function", "module"), `step` (of STEPS), `times` of "torch" and "ours"."""
    with threads(1):
        runs = {
            (call, step, who): Run(step_of(step, function, leaves))
            for call, callables in calls().items()
            for who, (function, leaves) in callables.items()
            for step in STEPS
        }
        timings = time_in_turns(runs, options)
    return [
        {"call": call, "step": step, "times": {who: timings[call, step, who]._asdict() for who in ("torch", "ours")}}
        for call in dict.fromkeys(call for call, _, _ in runs)
        for step in STEPS
    ]


def calls() -> dict[str, dict]:
    """By kind of call and whose it is: a function of no arguments, and the tensors that it is differentiated by."""
    channels, padding = SIZE[1], KERNEL // 2
    plain = nn.Conv2d(channels, channels, KERNEL, padding=padding, groups=channels)
    converted = DepthwiseConv2d(channels, channels, KERNEL, padding=padding)
    input = torch.randn(SIZE, requires_grad=True)
    weight, bias = (p.detach().clone().requires_grad_() for p in plain.parameters())
    leaves = [input, weight, bias]
    return {
        "function": {
            "torch": (lambda: F.conv2d(input, weight, bias, 1, padding, 1, channels), leaves),
            "ours": (lambda: depthwise_conv2d(input, weight, bias, 1, padding, 1), leaves),
        },
        "module": {
            "torch": (lambda: plain(input), [input, *plain.parameters()]),
            "ours": (lambda: converted(input), [input, *converted.parameters()]),
        },
    }


def step_of(step: str, function, leaves):
    """`function` as the step has it."""
    if step == "training forward":
        return function
    if step == "no gradient":

        def infer():
            with torch.no_grad():
                return function()

        return infer

    grad_output = torch.ones_like(function())

    def train():
        for leaf in leaves:
            leaf.grad = None
        function().backward(grad_output)

    return train


def ratios(records: list[dict]) -> list[float]:
    """Time of ours / time of torch's; below 1 ours costs less."""
    return [record["times"]["ours"]["median"] / record["times"]["torch"]["median"] for record in records]


def table(records: list[dict]) -> Table:
    rows = []
    for record, value in zip(records, ratios(records), strict=True):
        times = (f"{record['times'][who]['median'] * 1e6:.1f}" for who in ("torch", "ours"))
        rows.append([record["call"], record["step"], *times, f"{value:.2f}"])
    title = f"A tiny call: input {SIZE}, {KERNEL}x{KERNEL}, one thread"
    return title, ["call", "step", "torch µs", "ours µs", "ours / torch"], rows

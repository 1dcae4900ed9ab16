"""Small calls that reach every CUDA kernel, and any one of them by its name, checked on integers."""

import functools
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.calls import DTYPES, FORMATS, Call, reference
from torch_dwconv import explain
from torch_dwconv.operators.schemas import BACKWARD, FORWARD, GRAD_INPUT, GRAD_WEIGHT


def same(batch: int, channels: int, side: tuple[int, int], kernel: int, stride: int) -> Call:
    """With half of the kernel as padding on every side."""
    return Call(batch, channels, 1, side, (kernel, kernel), (stride, stride), ((kernel // 2, kernel // 2),) * 2)


# `stream`: rows of whole vectors. `planes`: 64 blocks. `runs`: 128 runs of planes whose rows are no vectors.
CALLS = [
    call
    for kernel, stride in product((3, 5, 7), (1, 2))
    for call in (
        same(2, 8, (8 * stride, 16 * stride), kernel, stride),
        same(32, 64, (7 * stride, 7 * stride), kernel, stride),
        same(4, 512, (9, 9) if stride == 1 else (13, 13), kernel, stride),
    )
]
# `tiles`, `toeplitz`, and what `window` alone takes.
CALLS += [Call(2, 3, 1, (9, 17), (4, 4)), Call(2, 3, 1, (12, 20), (9, 9)), Call(2, 3, 2, (7, 9), (3, 3))]


class Reached(NamedTuple):
    """A kernel, and the operation of a call that it computes."""

    kernel: str
    operation: str
    call: Call
    dtype: torch.dtype
    memory_format: torch.memory_format

    @property
    def method(self) -> str:
        """ "stream" of forward_nchw_f32_stream_k3s1_cuda."""
        return self.kernel.split("_nchw_" if "_nchw_" in self.kernel else "_nhwc_")[1].split("_")[1]


def reached() -> dict[str, Reached]:
    """Each kernel that a call of CALLS reaches on the current CUDA device, by name; of every method one, in turn."""
    found: dict[str, Reached] = {}
    for call, dtype, memory_format in product(CALLS, DTYPES, FORMATS):
        for operation, kernel in _kernels(call, dtype, memory_format):
            found.setdefault(kernel, Reached(kernel, operation, call, dtype, memory_format))
    by_method: dict[str, list[Reached]] = {}
    for each in found.values():
        by_method.setdefault(each.method, []).append(each)
    turns = range(max(map(len, by_method.values()), default=0))
    return {group[turn].kernel: group[turn] for turn in turns for group in by_method.values() if turn < len(group)}


def _kernels(call: Call, dtype: torch.dtype, memory_format: torch.memory_format) -> Iterator[tuple[str, str]]:
    with FakeTensorMode():
        input = torch.empty((call.batch, call.channels, *call.size), dtype=dtype, device="cuda")
        weight = torch.empty((call.channels * call.multiplier, 1, *call.kernel), dtype=dtype, device="cuda")
        explanation = explain(input.to(memory_format=memory_format), weight, **call.options)
    if explanation.both_gradients:
        yield "backward", explanation.both_gradients
    for operation, choice in explanation.choices.items():
        yield operation, choice.kernel


@functools.cache
def _problem(call: Call) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Operands, integers in float64, and what F.conv2d makes of them."""
    input, weight, bias = (tensor.requires_grad_() for tensor in call.tensors(torch.float64, integers=True))
    output = reference(input, weight, bias, **call.options)
    grad_output = torch.randint(-2, 3, output.shape).double()
    grads = torch.autograd.grad(output, (input, weight, bias), grad_output)
    operands = {"input": input, "weight": weight, "bias": bias, "grad_output": grad_output}
    results = {"output": output, **dict(zip(("grad_input", "grad_weight", "grad_bias"), grads, strict=True))}
    return tuple({name: tensor.detach() for name, tensor in both.items()} for both in (operands, results))


def wrong(case: Reached, device: str) -> str | None:
    """What is wrong with the operation of a call on a device, against F.conv2d in float64; its sums are exact."""
    call, last = case.call, case.memory_format == torch.channels_last
    operands, exact = _problem(call)
    in_memory = {"input": case.memory_format, "grad_output": case.memory_format}
    x, w, b, g = (
        operands[name].to(case.dtype, memory_format=in_memory.get(name, torch.contiguous_format)).to(device)
        for name in ("input", "weight", "bias", "grad_output")
    )
    (top, _), (left, _) = call.padding
    geometry = (*call.stride, top, left, *call.dilation)
    with torch.no_grad():
        if case.operation == "forward":
            results = {"output": FORWARD(x, w, b, *g.shape[2:], *geometry, last)}
        elif case.operation == "grad_input":
            results = {"grad_input": GRAD_INPUT(g, w, *x.shape[1:], *geometry, last)}
        elif case.operation == "grad_weight":
            results = dict(
                zip(("grad_weight", "grad_bias"), GRAD_WEIGHT(x, g, *call.kernel, *geometry, True, False), strict=True)
            )
        else:
            names = ("grad_input", "grad_weight", "grad_bias")
            results = dict(zip(names, BACKWARD(g, x, w, *geometry, True, last, False), strict=True))
    for name, result in results.items():
        got, right = result.cpu(), exact[name].to(case.dtype)
        if not torch.equal(got, right):
            return f"{name}: {(got != right).sum().item()} of {right.numel()} numbers are not F.conv2d's"
    return None

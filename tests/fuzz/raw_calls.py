"""Calls the raw operators with anything at all: a result, which must be right, or a Python exception.

    python -m tests.fuzz.raw_calls SEED FIRST LAST

Call number i of a seed follows from the two alone. It runs in a process of its own: a crash or a hang ends it, and the
last line on standard output names the call that did it. Arguments begin as those of a sound call, of which some are
then replaced by nonsense: other types, other dtypes and devices, strange strides, sizes next to 2^31, 2^62 and 2^63.
"""

import contextlib
import random
import resource
import sys
import warnings
from math import prod
from pathlib import Path

import torch

from torch_dwconv.operators.schemas import DTYPES

MEMORY = 2**28  # bytes that a call may allocate: what does not fit ends in an exception
# Multiply-adds of a call that is not refused; more would be honest work that takes long. What MEMORY does not hold is
# refused before.
MOST_WORK = 2**27
HUGE = (*(2**power + step for power in (31, 32, 62) for step in (-1, 0, 1)), 2**40, 2**50, 2**58, 2**61, 2**63 - 1)
SIZES = (0, 1, 2, 3, 7, 64, *HUGE)
INTEGERS = (0, 1, 2, 3, 64, 1000, -1, -2, -(2**31), -(2**62), -(2**63), *HUGE)
NOT_INTEGERS = (None, 1.5, "3", (1, 2), [], 2**63, float("nan"), 1j, torch.tensor(3), object())
GEOMETRY = ("stride_h", "stride_w", "pad_top", "pad_left", "dilation_h", "dilation_w")

OPERANDS = ("input", "weight", "bias", "grad_output")


class Call:
    """A sound call of one operator, as its arguments by name."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.name = rng.choice(("forward", "grad_input", "grad_weight", "backward"))
        self.overload = "default" if self.name == "backward" else rng.choice(("default", "default", "out"))
        self.dtype = rng.choice(DTYPES)
        n, c, m, h, w, kh, kw, oh, ow = (rng.choice((0, 1, 1, 2, 3, 4, 5, 9)) for _ in range(9))
        kh, kw, m = max(kh, 1), max(kw, 1), max(m, 1)
        input, weight, output = (n, c, h, w), (c * m, 1, kh, kw), (n, c * m, oh, ow)
        geometry = {field: rng.randint(0 if "pad" in field else 1, 3) for field in GEOMETRY}
        end = {"channels_last": rng.random() < 0.5}
        if self.name == "forward":
            sizes = {"out_h": oh, "out_w": ow}
            operands = {"input": input, "weight": weight, "bias": (c * m,) if rng.random() < 0.5 else None}
            end["activation"], results = rng.choice((0, 0, 1, rng.randint(0, 6))), (output,)
        elif self.name == "grad_input":
            sizes = {"in_channels": c, "in_h": h, "in_w": w}
            operands, results = {"grad_output": output, "weight": weight}, (input,)
        else:
            with_bias = rng.random() < 0.5
            end, bias = {"with_bias": with_bias, **end}, (c * m if with_bias else 0,)
            if self.name == "grad_weight":
                sizes = {"kernel_h": kh, "kernel_w": kw}
                operands, results = {"input": input, "grad_output": output}, (weight, bias)
            else:
                sizes, end["weight_channels_last"] = {}, rng.random() < 0.5
                operands = {"grad_output": output, "input": input, "weight": weight}
                results = (input, weight, bias)
        tensors = {name: None if size is None else self.tensor(size) for name, size in operands.items()}
        self.arguments = {**tensors, **sizes, **geometry, **end}
        self.outs = dict(zip(("out", "bias_out"), map(self.tensor, results), strict=False))
        if self.overload == "out" and self.arguments["channels_last"] and rng.random() < 0.8:
            self.outs["out"] = self.outs["out"].to(memory_format=torch.channels_last)

    def tensor(self, size, dtype=None):
        """Small integers: sums of them are exact in every dtype."""
        return torch.randint(-2, 3, size).to(dtype or self.dtype)

    def __str__(self) -> str:
        outs = self.outs if self.overload == "out" else {}
        return f"{self.name}.{self.overload}: " + ", ".join(
            f"{n}={text(v)}" for n, v in (self.arguments | outs).items()
        )

    def spoil(self) -> None:
        """Replace one argument by something that may or may not fit."""
        rng = self.rng
        group = self.outs if self.overload == "out" and rng.random() < 0.2 else self.arguments
        name = rng.choice(list(group))
        value = group[name]
        if isinstance(value, torch.Tensor) or (value is None and rng.random() < 0.5):
            group[name] = self.spoiled_tensor(value if value is not None else self.tensor((3,)))
        elif rng.random() < 0.15:
            group[name] = rng.choice(NOT_INTEGERS)
        else:
            group[name] = rng.choice(INTEGERS)

    def spoiled_tensor(self, tensor):
        rng, size = self.rng, list(tensor.shape)
        dim = rng.randrange(len(size)) if size else 0
        kind = rng.choice(tuple(SPOILED))
        return SPOILED[kind](self, tensor, size, dim)

    def resized(self, tensor, size, dim):
        if size:
            size[dim] = self.rng.choice(SIZES)
        if 0 in size:
            return torch.empty(size, dtype=tensor.dtype)
        return torch.ones((), dtype=tensor.dtype).expand(size)

    def without_elements(self, tensor, size, dim):
        """Rows or images without end, and none of them holds anything."""
        size = [self.rng.choice((*size, *SIZES)) for _ in size]
        if size:
            size[dim] = 0
        return torch.empty(size, dtype=tensor.dtype)

    def strided(self, tensor, size, dim):
        """Any strides over a small storage, overlapping or not."""
        strides = [self.rng.choice((0, 1, 2, 5, 16)) for _ in size]
        storage = self.tensor((sum((s - 1) * stride for s, stride in zip(size, strides, strict=True) if s) + 9,))
        return storage.to(tensor.dtype).as_strided(size, strides, self.rng.randint(0, 8))


SPOILED = {
    "resized": Call.resized,
    "without_elements": Call.without_elements,
    "strided": Call.strided,
    "rank": lambda call, t, size, dim: call.rng.choice((t[None], t[0] if t.dim() and t.shape[0] else t, t.flatten())),
    "transposed": lambda call, t, size, dim: t.transpose(0, -1) if t.dim() else t,
    "channels_last": lambda call, t, size, dim: t.to(memory_format=torch.channels_last) if t.dim() == 4 else t,
    "dtype": lambda call, t, size, dim: t.to(
        call.rng.choice((*DTYPES, torch.int64, torch.bool, torch.complex64, torch.uint8, torch.float8_e4m3fn))
    ),
    "meta": lambda call, t, size, dim: t.to("meta"),
    "sparse": lambda call, t, size, dim: t.to_sparse(),
    "negated": lambda call, t, size, dim: torch._neg_view(t),
    "grad": lambda call, t, size, dim: t.requires_grad_(),
    "parameter": lambda call, t, size, dim: torch.nn.Parameter(t),
    "aliased": lambda call, t, size, dim: next(
        value for value in call.arguments.values() if isinstance(value, torch.Tensor)
    ),
    "none": lambda call, t, size, dim: None,
    "number": lambda call, t, size, dim: 3,
}


def text(value) -> str:
    """Of an argument; tensors by what they are, since some cannot be printed."""
    if not isinstance(value, torch.Tensor):
        return repr(value)
    strides = f" strides {value.stride()}" if value.layout == torch.strided else f" {value.layout}"
    return f"{value.dtype} {tuple(value.shape)}{strides} on {value.device}"


def are_integers(arguments) -> bool:
    return all(isinstance(value, int) for name, value in arguments.items() if name not in OPERANDS)


def is_long(call: Call) -> bool:
    """Whether the call might be computed and would take long: all it reads and writes fits into memory."""
    a = call.arguments
    tensors = [value for value in a.values() if isinstance(value, torch.Tensor)]
    if not are_integers(a) or len(tensors) < 2 or any(tensor.dim() != 4 for tensor in tensors[:2]):
        return False
    first, last = tensors[:2]
    images = first.shape[0]
    written, terms = {  # numbers, and multiply-adds for each
        "forward": lambda: (images * last.shape[0] * a["out_h"] * a["out_w"], prod(last.shape[2:])),
        "grad_input": lambda: (images * a["in_channels"] * a["in_h"] * a["in_w"], last.numel()),
        "grad_weight": lambda: (last.shape[1] * a["kernel_h"] * a["kernel_w"], images * prod(last.shape[2:])),
        "backward": lambda: (max(first.numel(), last.numel()), prod(tensors[-1].shape[2:])),
    }[call.name]()
    fits = max(written, *(tensor.numel() for tensor in tensors)) * first.element_size() < MEMORY
    return fits and written * max(terms, 1) > MOST_WORK


def expected(call: Call):
    """The results, tap by tap from the definition in csrc/shape.h, in float64; None where it would take long."""
    a, name = call.arguments, call.name
    if not are_integers(a) or a.get("activation", 0) > 1:
        return None
    given = {key: value.detach().double() for key, value in a.items() if isinstance(value, torch.Tensor)}
    n = next(iter(given.values())).shape[0]
    input = given.get("input")
    if input is None:
        input = torch.zeros(n, a["in_channels"], a["in_h"], a["in_w"], dtype=torch.float64)
    weight = given.get("weight")
    if weight is None:
        weight = torch.zeros(given["grad_output"].shape[1], 1, a["kernel_h"], a["kernel_w"], dtype=torch.float64)
    grad_output = given.get("grad_output")
    output_size = (n, weight.shape[0], a["out_h"], a["out_w"]) if name == "forward" else grad_output.shape
    if max(*output_size, *input.shape, *weight.shape) > 100 or weight[0:1].numel() > 200:
        return None
    input.requires_grad_(), weight.requires_grad_()
    multiplier = weight.shape[0] // max(input.shape[1], 1)
    output = torch.zeros(output_size, dtype=torch.float64)

    def reached(outputs, step, tap, dilation, pad, size):
        pairs = [(o, o * step + tap * dilation - pad) for o in range(outputs)]
        pairs = [(o, i) for o, i in pairs if 0 <= i < size]
        return torch.tensor([o for o, _ in pairs], dtype=torch.long), torch.tensor(
            [i for _, i in pairs], dtype=torch.long
        )

    repeated = input.repeat_interleave(multiplier, 1)
    for kh in range(weight.shape[2]):
        rows = reached(output_size[2], a["stride_h"], kh, a["dilation_h"], a["pad_top"], input.shape[2])
        for kw in range(weight.shape[3]):
            columns = reached(output_size[3], a["stride_w"], kw, a["dilation_w"], a["pad_left"], input.shape[3])
            seen = repeated[:, :, rows[1]][..., columns[1]] * weight[:, 0, kh, kw, None, None]
            shown = torch.zeros_like(output)
            shown[:, :, rows[0][:, None], columns[0]] = seen
            output = output + shown
    if name == "forward":
        bias = given.get("bias")
        output = output if bias is None else output + bias[:, None, None]
        return (output.detach().relu() if a.get("activation") else output.detach(),)
    gradients = torch.autograd.grad(output, (input, weight), grad_output, allow_unused=True, materialize_grads=True)
    if name == "grad_input":
        return (gradients[0],)
    of_weight = gradients[1], grad_output.sum((0, 2, 3)) if a["with_bias"] else torch.zeros(0)
    return (gradients[0], *of_weight) if name == "backward" else of_weight


def draw(seed: int, number: int) -> Call | None:
    """Call `number` of a seed; None if PyTorch has no such tensor."""
    rng = random.Random(f"{seed}/{number}")
    torch.manual_seed(rng.randrange(2**31))
    call = Call(rng)
    try:
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            call.spoil()
    except Exception:
        return None
    return call


def run(call: Call | None) -> str:
    """Make the call. What became of it: 'right', 'returned' if nobody knows better, or the exception's name."""
    if call is None:
        return "impossible"
    if is_long(call):
        return "long"
    overload = getattr(getattr(torch.ops.torch_dwconv, call.name), call.overload)
    outs = call.outs if call.overload == "out" else {}
    try:
        results = overload(*call.arguments.values(), **outs)
    except Exception as error:
        return type(error).__name__
    results = results if isinstance(results, tuple) else (results,)
    if any(result.device.type != "cpu" for result in results):
        return "returned"
    right = expected(call)
    if right is not None:
        for result, wanted in zip(results, right, strict=True):
            assert torch.equal(result.detach(), wanted.to(result.dtype)), f"wrong result of {call}"
    for result in results:
        if result.requires_grad:
            with contextlib.suppress(RuntimeError):
                result.sum().backward()
    return "returned" if right is None else "right"


def main(seed: int, first: int, last: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(2)
    torch.ones(2**20).exp().sum()  # its threads are made before memory is limited
    run(draw(seed, 0))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    for number in range(first, last):
        call = draw(seed, number)
        print(number, "impossible" if call is None else call, end=" -> ", flush=True)
        print(run(call), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

"""How far results are from the exact ones, in units in the last place, beside PyTorch's: by operation, dtype, size.

    python -m tests.accuracy              a table
    python -m tests.accuracy --markdown   the same for docs/reliability.md

An error is measured in units in the last place of the exact result or, where sums cancel to less, of the root mean
square of the exact results. Exact ones are sums in numpy's long double, whose mantissa of 64 bits is longer than that
of any dtype here.
"""

import argparse
import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.calls import DTYPES, FORMATS
from torch_dwconv import depthwise_conv2d

OPERATIONS = ("forward", "grad_input", "grad_weight")
KERNELS = (3, 5, 7, 13)
SIZE = (2, 17, 30, 33)  # N, C, H, W


class Errors(NamedTuple):
    largest: float
    mean: float


def exact(input: np.ndarray, weight: np.ndarray, grad_output: np.ndarray) -> dict[str, np.ndarray]:
    """The three operations at stride 1 and padding k//2, in long double."""
    kernel = weight.shape[-1]
    pad = kernel // 2
    height, width = input.shape[2:]
    padded = np.pad(input, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    forward, grad_padded = np.zeros_like(grad_output), np.zeros_like(padded)
    grad_weight = np.zeros_like(weight)
    for i, j in itertools.product(range(kernel), repeat=2):
        window = np.s_[:, :, i : i + height, j : j + width]
        tap = weight[:, 0, i, j][:, None, None]
        forward += padded[window] * tap
        grad_padded[window] += grad_output * tap
        grad_weight[:, 0, i, j] = (padded[window] * grad_output).sum((0, 2, 3))
    inside = slice(pad, -pad or None)
    return {"forward": forward, "grad_input": grad_padded[:, :, inside, inside], "grad_weight": grad_weight}


def errors(result: Tensor, right: np.ndarray) -> Errors:
    off = np.abs(result.detach().double().numpy().astype(np.longdouble) - right)
    typical = np.sqrt((right**2).mean())
    _, exponent = np.frexp(np.maximum(np.abs(right), typical))
    unit = np.ldexp(np.longdouble(torch.finfo(result.dtype).eps), exponent - 1)
    return Errors(float((off / unit).max()), float((off / unit).mean()))


def measure(kernel: int, dtype: torch.dtype, memory_format: torch.memory_format) -> dict[str, tuple[Errors, Errors]]:
    """By operation: our errors and PyTorch's, on the same numbers."""
    torch.manual_seed(kernel)
    input, weight, grad = torch.randn(SIZE), torch.randn(SIZE[1], 1, kernel, kernel), torch.randn(SIZE)
    input, weight, grad = (t.double().to(dtype) for t in (input, weight, grad))
    right = exact(*(t.double().numpy().astype(np.longdouble) for t in (input, weight, grad)))
    found = []
    for convolve in (
        lambda x, w: depthwise_conv2d(x, w, padding=kernel // 2),
        lambda x, w: F.conv2d(x, w, padding=kernel // 2, groups=SIZE[1]),
    ):
        x, w = input.contiguous(memory_format=memory_format).requires_grad_(), weight.clone().requires_grad_()
        output = convolve(x, w)
        results = (output, *torch.autograd.grad(output, (x, w), grad))
        found.append([errors(result, right[name]) for name, result in zip(OPERATIONS, results, strict=True)])
    return {name: (ours, theirs) for name, ours, theirs in zip(OPERATIONS, *found, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true")
    edge = "|" if parser.parse_args().markdown else " "
    heads = ("operation", "dtype", "k", "layout", "max", "torch's", "mean", "torch's")
    print(edge, f" {edge} ".join(f"{head:>12}" for head in heads), edge)
    if edge == "|":
        print("| --- " * len(heads) + "|")
    for dtype, kernel, memory_format in itertools.product(DTYPES, KERNELS, FORMATS):
        layout = "NHWC" if memory_format is torch.channels_last else "NCHW"
        for name, (ours, theirs) in measure(kernel, dtype, memory_format).items():
            cells = name, str(dtype).removeprefix("torch."), kernel, layout
            numbers = ours.largest, theirs.largest, ours.mean, theirs.mean
            texts = [*(f"{cell:>12}" for cell in cells), *(f"{number:12.3f}" for number in numbers)]
            print(edge, f" {edge} ".join(texts), edge)


if __name__ == "__main__":
    main()

"""The checks themselves: each runs kernels on one shape and says what is wrong, as lines of text.

They take the kernels to run, so that ``test_nets.py`` can show that each one catches the kernels planted for it.
"""

from collections.abc import Iterable

import torch

from tests.kernels import harness
from tests.kernels.harness import Kernel
from tests.kernels.oracle import Problem, bounded_error, convolve, exact_error, in_layout, result_of
from tests.kernels.shapes import SEED, Shape

PLACEMENTS = ("back", "front", "inside")
# Operands that are images: a poisoned pixel must reach exactly those results that read it.
IMAGES = {
    "forward": ("input",),
    "grad_input": ("grad_output",),
    "grad_weight": ("input", "grad_output"),
    "backward": ("input", "grad_output"),
}
# A power of two that takes integers from -4 to 4 to the smallest numbers of a dtype, and one near its largest.
SCALES = {
    "f32": (2.0**-149, 2.0**110),
    "f64": (2.0**-1074, 2.0**1000),
    "bf16": (2.0**-133, 2.0**110),
    "f16": (2.0**-24, 2.0**12),
}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def assert_none(failures: Iterable[str]) -> None:
    """Fail with what the nets caught, not all of it if it is much, and the seed to get it again."""
    lines = list(failures)
    shown = "\n".join(lines[:20]) + (f"\n... and {len(lines) - 20} more" if len(lines) > 20 else "")
    assert not lines, f"{len(lines)} failures (TORCH_DWCONV_TEST_SEED={SEED}):\n{shown}"


def _run(kernel: Kernel, shape: Shape, operands, failures: list[str], **how) -> dict[str, torch.Tensor]:
    """harness.run, with a fault or a damaged margin turned into a failure (and no results)."""
    try:
        return harness.run(kernel, shape, operands, **how)
    except (harness.extension().KernelFault, harness.DamagedMargin) as caught:
        failures.append(f"{caught} ({how}, {shape})")
        return {}


def exact_values(kernels: Iterable[Kernel], shape: Shape, placement: str, with_bias: bool = True) -> list[str]:
    """Integers held in floats: every result must be the right one, rounded once."""
    problem, failures = Problem(shape, "integers"), []
    for kernel in kernels:
        how = dict(placement=placement, with_bias=with_bias)
        got = _run(kernel, shape, problem.operands(kernel.dtype, kernel.layout), failures, **how)
        for name, expected in problem.expected(kernel, with_bias).items():
            if name in got and (wrong := exact_error(got[name], expected)):
                failures.append(f"{kernel.name}: {name}: {wrong} ({how}, {shape})")
    return failures


def bounded_values(
    kernels: Iterable[Kernel], shape: Shape, placement: str, data: dict[str, str] | None = None
) -> list[str]:
    """Numbers with all their digits: results within the bounds of ``oracle.bounded_error``.

    ``data`` maps a dtype to the data (``oracle.DATA``) it is tested on; a dtype that is not in it is not tested.
    """
    data = data or {"f32": "normal", "f64": "normal", "bf16": "eight_bits", "f16": "eight_bits"}
    problems = {name: Problem(shape, name) for name in set(data.values())}
    failures = []
    for kernel in kernels:
        if kernel.dtype not in data:
            continue
        problem = problems[data[kernel.dtype]]
        got = _run(kernel, shape, problem.operands(kernel.dtype, kernel.layout), failures, placement=placement)
        for name, expected in problem.expected(kernel).items():
            if name in got and (wrong := bounded_error(got[name], expected, kernel.dtype)):
                failures.append(f"{kernel.name}: {name}: {wrong} ({placement}, {shape})")
    return failures


def scaled_values(kernels: Iterable[Kernel], shape: Shape) -> list[str]:
    """The integers of ``exact_values`` scaled to subnormal numbers and to huge ones: still exact, nothing flushed."""
    problem, failures = Problem(shape, "integers"), []
    for kernel in kernels:
        for scale in SCALES[kernel.dtype]:
            operands = dict(problem.operands(kernel.dtype, kernel.layout))
            scaled = IMAGES[kernel.operation][-1]
            operands[scaled] = operands[scaled] * scale
            operands["bias"] = operands["bias"] * scale
            for name, got in _run(kernel, shape, operands, failures).items():
                if wrong := exact_error(got, problem.expected(kernel)[name] * scale):
                    failures.append(f"{kernel.name}: {name} at scale {scale}: {wrong} ({shape})")
    return failures


def partition_independence(kernels: Iterable[Kernel], shape: Shape, seed: int) -> list[str]:
    """Whatever the pieces and the order of the work, the bits of the results are those of one piece.

    This is what independence of the number of threads means for kernels, which know no threads.
    """
    problem, failures = Problem(shape, "normal"), []
    partitions = {
        "one by one": harness.one_by_one,
        "reversed": harness.reversed_items,
        "random chunks": harness.random_chunks(seed),
        "other random chunks": harness.random_chunks(seed + 1),
    }
    for kernel in kernels:
        operands = problem.operands(kernel.dtype, kernel.layout)
        once = _run(kernel, shape, operands, failures)
        for how, partition in partitions.items():
            for name, got in _run(kernel, shape, operands, failures, partition=partition).items():
                bits = BITS[got.element_size()]
                if name in once and not torch.equal(got.view(bits), once[name].view(bits)):
                    failures.append(f"{kernel.name}: {name} changes when the work is done {how} ({shape})")
    return failures


def _one_pixel_in_most_planes(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A mask like ``images`` (N, C, H, W), float64: one pixel, often at a border, set in three planes of four."""
    mask = torch.zeros_like(images)
    if images.numel():
        batch, channels, height, width = images.shape
        planes = torch.arange(batch * channels)
        rows, columns = (
            torch.where(
                torch.rand(len(planes), generator=generator) < 0.5,
                torch.randint(0, 2, planes.shape, generator=generator) * (size - 1),
                torch.randint(0, size, planes.shape, generator=generator),
            )
            for size in (height, width)
        )
        mask.view(-1, height, width)[planes, rows, columns] = (planes % 4 != 3).double()
    return mask


def poison_reach(kernels: Iterable[Kernel], shape: Shape) -> list[str]:
    """NaN and Inf in single pixels: they reach exactly the results that read those pixels, the others stay right.

    So taps in the padding are skipped, not multiplied by zero, whichever of the two factors is not finite.
    """
    problem, failures = Problem(shape, "integers"), []
    generator = torch.Generator().manual_seed(SEED)
    ones = {name: torch.ones_like(value) for name, value in problem.operands_f64.items()}
    masks = {name: _one_pixel_in_most_planes(ones[name], generator) for name in ("input", "grad_output")}
    taps = torch.randint(0, max(1, shape.KH * shape.KW), (shape.out_channels, 1), generator=generator)
    masks["weight"] = torch.zeros(shape.out_channels, shape.KH * shape.KW).double().scatter_(1, taps, 1)
    masks["weight"] = masks["weight"].view(ones["weight"].shape)
    reach = {name: convolve(shape, **(ones | {name: mask})) for name, mask in masks.items()}
    reads = harness.OPERANDS | {"grad_bias": ("grad_output",)}
    for kernel in kernels:
        for slot in harness.OPERANDS[kernel.operation]:
            if slot == "bias":
                continue
            for value in (float("nan"), float("inf")):
                operands = dict(problem.operands(kernel.dtype, kernel.layout))
                operands[slot] = operands[slot].masked_fill(in_layout(masks[slot], kernel.layout).bool(), value)
                for name, got in _run(kernel, shape, operands, failures, placement="inside").items():
                    result = result_of(kernel.operation) if name == "result" else name
                    reached = in_layout(reach[slot][result], kernel.layout) > 0
                    if slot not in reads[result]:
                        reached = torch.zeros_like(reached)
                    right = problem.expected(kernel)[name].to(got.dtype)
                    wrong = torch.where(reached, got.isfinite(), got != right)
                    if wrong.any():
                        index = tuple(wrong.nonzero()[0].tolist())
                        failures.append(
                            f"{kernel.name}: {value} in {slot}: {name}{list(index)} is {got[index]}, "
                            f"expected {value if reached[index] else right[index]} ({shape})"
                        )
    return failures

"""The README's support matrix against the registry: each combination has a vectorised kernel for every shape."""

import itertools
from pathlib import Path

import pytest
import torch

from torch_dwconv import explain, kernels

README = Path(__file__).resolve().parents[2] / "README.md"
OPERATIONS = {"output": "forward", "input gradient": "grad_input", "weight gradient": "grad_weight"}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
ISAS = {"AVX-512": "avx512", "AVX2": "avx2", "SSE2": "baseline"}
# Shapes that no kernel is made for: sizes (N, C, H, W), multiplier, kernel and options.
SHAPES = (
    ((1, 1, 1, 1), 1, (1, 1), {}),
    ((2, 5, 9, 11), 3, (2, 7), dict(stride=(3, 2), dilation=(2, 1), padding=((1, 0), (4, 2)))),
    ((1, 33, 20, 6), 1, (31, 4), dict(stride=(1, 64), padding=(20, 9))),
    ((3, 17, 5, 40), 2, (4, 1), dict(stride=2, dilation=(1, 50))),
    ((1, 3, 70, 3), 40, (9, 9), dict(padding=40, dilation=5)),
)


def row(label: str) -> str:
    """What the matrix says of operations, memory formats and so on."""
    text = README.read_text().split("checked against the registry")[1].split("<!-- end")[0]
    return next(line.split("|")[2] for line in text.splitlines() if line.startswith(f"| {label} |"))


def named(label: str, known: dict) -> list:
    """What the row names, all of which must be known."""
    words = row(label).split(";")[0].replace(" (with the bias gradient)", "").split(",")
    assert {word.strip() for word in words} == set(known)
    return [known[word.strip()] for word in words]


def test_every_combination_has_a_vectorised_kernel_for_every_shape():
    dtypes = named(
        "dtypes", {str(dtype)[6:]: dtype for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16)}
    )
    formats, operations = named("memory formats", LAYOUTS), named("operations", OPERATIONS)
    for dtype, format, (sizes, multiplier, kernel, options) in itertools.product(dtypes, formats, SHAPES):
        input = torch.empty(sizes, dtype=dtype).to(memory_format=format)
        weight = torch.empty(sizes[1] * multiplier, 1, *kernel, dtype=dtype)
        chosen = explain(input, weight, **options).choices
        assert sorted(chosen) == sorted(operations)
        assert not [choice.kernel for choice in chosen.values() if choice.kernel.endswith("_reference")]


def test_every_instruction_set_has_kernels():
    """On a lesser machine, or under a cap, those up to the best that runs."""
    assert [word.strip() for word in row("instruction sets").split(";")[0].split(",")] == list(ISAS)
    built = {kernel.isa for kernel in kernels("cpu") if not kernel.name.endswith("_reference")}
    best = next(isa for isa in ISAS.values() if isa in built)
    assert built == set(list(ISAS.values())[list(ISAS.values()).index(best) :])


@pytest.mark.parametrize("stride, reference", [(64, False), (65, True)])
def test_the_largest_stride_is_the_one_that_the_readme_gives(stride, reference):
    assert "any stride up to 64" in " ".join(README.read_text().split())
    chosen = explain(torch.empty(1, 8, 200, 200), torch.empty(8, 1, 3, 3), stride=stride).choices
    assert {choice.kernel.endswith("_reference") for choice in chosen.values()} == {reference}

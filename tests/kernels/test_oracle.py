"""The right answers are right: F.conv2d as we call it, the definition of csrc/shape.h and the checker's textbook agree.

They are three ways to the same numbers that share nothing.
"""

import itertools

import numpy as np
import pytest
import torch

from tests.kernels import harness
from tests.kernels.cases import random_cases
from tests.kernels.oracle import Problem, checkers_answers
from tests.kernels.shapes import EDGES, Shape

DATA = ("integers", "larger", "special", "special_input", "special_weight", "special_grad_output")
ANSWERS = ("output", "output_with_bias", "grad_input", "grad_weight", "grad_bias")


def definition(shape: Shape, x, w, g) -> dict[str, torch.Tensor]:
    """The trilinear form of csrc/shape.h, summed term by term into each of its three slot-gradients."""
    sums = {"output": torch.zeros_like(g), "grad_input": torch.zeros_like(x), "grad_weight": torch.zeros_like(w)}
    for n, oc, oh, ow, kh, kw in itertools.product(
        *map(range, (shape.N, shape.out_channels, shape.OH, shape.OW, shape.KH, shape.KW))
    ):
        ih = oh * shape.stride_h + kh * shape.dilation_h - shape.pad_top
        iw = ow * shape.stride_w + kw * shape.dilation_w - shape.pad_left
        if 0 <= ih < shape.H and 0 <= iw < shape.W:
            c = oc // shape.M
            sums["output"][n, oc, oh, ow] += x[n, c, ih, iw] * w[oc, kh, kw]
            sums["grad_input"][n, c, ih, iw] += g[n, oc, oh, ow] * w[oc, kh, kw]
            sums["grad_weight"][oc, kh, kw] += x[n, c, ih, iw] * g[n, oc, oh, ow]
    return sums


def test_oracle_is_the_definition():
    shapes = (*EDGES.values(), *(case.shape for case in random_cases(400, "definition")))
    small = [shape for shape in shapes if shape.work <= 700]
    assert len(small) >= 15
    for shape in small:
        problem = Problem(shape, "integers")
        x, w, g = (problem.operands_f64[name] for name in ("input", "weight", "grad_output"))
        for name, expected in definition(shape, x, w, g).items():
            assert torch.equal(problem.answers[name], expected), (name, shape)


def test_oracle_is_the_definition_where_numbers_are_not_finite():
    found = 0
    for case in random_cases(400, "special"):
        if case.shape.work <= 2000:
            problem = Problem(case.shape, "special", case.seed)
            x, w, g = (problem.operands_f64[name] for name in ("input", "weight", "grad_output"))
            for name, expected in definition(case.shape, x, w, g).items():
                np.testing.assert_array_equal(problem.answers[name].numpy(), expected.numpy(), f"{name} {case}")
                found += int(expected.isinf().any()) + int(expected.isnan().any())
    assert found >= 10


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("edge", EDGES)
def test_textbook_of_the_checker_is_the_oracle(edge, data):
    """So what the checker finds without Python is what it would find here."""
    extension, shape = harness.extension(), EDGES[edge]
    operands = extension.operands(shape, getattr(extension.Data, data), 1)
    textbook, oracle = extension.textbook(shape, operands), checkers_answers(tuple(shape), operands)
    assert textbook.keys() == oracle.keys() == set(ANSWERS)
    for name, values in textbook.items():
        np.testing.assert_array_equal(values, oracle[name], name)


@pytest.mark.parametrize("dtype", harness.DTYPES)
def test_numbers_of_the_checker_are_torchs(dtype):
    """Rounding to nearest, ties to even, subnormal numbers, overflow: as torch converts from float64."""
    torch_dtype = harness.DTYPES[dtype]
    exponents = torch.arange(-160, 130).double()
    values = torch.cat(
        [
            torch.exp2(exponents) * mantissa  # ties of both kinds, next to them, and any
            for mantissa in (1, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 2**-24, 2 - 2**-9, 2 - 2**-12, 1.2345678)
        ]
    )
    values = torch.cat([values, -values, torch.tensor([0.0, -0.0, 65519.99, 65520, float("inf"), float("nan")])])
    # Through float32 for the numbers that it holds: torch rounds float64 to 16 bits in two steps.
    values = (
        values[(values.float().double() == values) | values.isnan()] if dtype in ("bf16", "f16") else values.double()
    )
    stored = getattr(harness.extension().DType, dtype)
    got = torch.tensor([harness.extension().stored(value, stored) for value in values.tolist()], dtype=torch.float64)
    right = values.to(torch_dtype).double()
    assert torch.equal(got.nan_to_num(12345), right.nan_to_num(12345))
    assert torch.equal(got.signbit(), right.signbit())


@pytest.mark.parametrize("edge", EDGES)
def test_oracle_is_trilinear(edge):
    """<F(x, w), g> = <x, GI(g, w)> = <w, GW(x, g)>, exactly."""
    problem = Problem(EDGES[edge], "integers")
    values, results = problem.operands_f64, problem.answers
    form = (results["output"] * values["grad_output"]).sum()
    assert form == (results["grad_input"] * values["input"]).sum()
    assert form == (results["grad_weight"] * values["weight"]).sum()


def test_exact_is_one_rounding():
    differs, bf16 = harness.extension().exact_difference, harness.extension().DType.bf16
    right = [256.0, 257.0, 259.0, float("nan"), float("inf")]
    rounded = [256.0, 256.0, 260.0, float("nan"), float("inf")]  # ties to even
    assert differs(rounded, right, bf16) == ""
    for place, wrong in ((2, 258.0), (3, 0.0), (4, float("nan"))):
        got = [*rounded[:place], wrong, *rounded[place + 1 :]]
        assert f"1 of 5 are wrong, element {place} " in differs(got, right, bf16)


def test_bounded_is_one_rounding_of_a_sum():
    """Beside what the order of summation may lose: next to nothing with one term."""
    extension = harness.extension()
    right = [1 + 2**-8 + 2**-10, 1.0]
    nearest, truncated = [1 + 2**-7, 1.0], [1.0, 1.0]

    def differs(got, dtype, terms=1):
        return extension.bounded_difference(got, right, right, terms, getattr(extension.DType, dtype))

    assert differs(nearest, "bf16") == ""
    assert "element 0 " in differs(truncated, "bf16")
    assert "element 0 " in differs(truncated, "f32", terms=10_000)
    for dtype in harness.DTYPES:
        assert "element 0 " in differs([float("nan"), 1.0], dtype)
    # Each is within what the sums may lose, but not all of them in one direction.
    many = [1.0] * 1000
    off = [1 + 1e-5] * 1000
    assert "norm of the error" in extension.bounded_difference(off, many, many, 1000, extension.DType.f32)

"""The right answers are right: F.conv2d as we call it, the definition of csrc/shape.h and the checker's textbook agree.

They are three ways to the same numbers that share nothing.
"""

import itertools

import numpy as np
import pytest
import torch

from tests.causal_conv1d import reference
from tests.kernels import harness
from tests.kernels.cases import (
    Case,
    block_cases,
    block_edge_cases,
    random_cases,
    sequence_cases,
    sequence_edge_cases,
    within,
)
from tests.kernels.oracle import Problem, checkers_answers, operand_sizes
from tests.kernels.shapes import EDGES, Shape

DATA = ("integers", "larger", "special", "special_input", "special_weight", "special_grad_output")
ANSWERS = ("output", "output_with_bias", "grad_input", "grad_weight", "grad_bias")
BLOCK_ANSWERS = {
    "dense": ("dense", "dense_with_bias", "dense_with_residual", "dense_with_both"),
    "channelwise": ("layer_norm", "channel_scale", "channel_sum"),
    "batch_norm": (
        *("batch_norm_output", "batch_norm_mean", "batch_norm_variance", "batch_norm_eval_output"),
        *("batch_norm_grad_input", "batch_norm_grad_weight", "batch_norm_grad_bias", "batch_norm_eval_grad_input"),
    ),
    "pointwise": (
        *("pointwise_output", "pointwise_output_with_bias", "pointwise_grad_input", "pointwise_grad_weight"),
    ),
}

SEQUENCE_ANSWERS = (
    *("sequence_output", "sequence_grad_input", "sequence_grad_weight", "sequence_grad_bias", "sequence_grad_states"),
    *("sequence_step_output", "sequence_step_cache"),
)


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


def textbook_and_oracle(case: Case, data: str) -> tuple[dict, dict]:
    extension, (_, shape, kind) = harness.extension(), case
    operands = extension.operands(kind, shape, getattr(extension.Data, data), 1)
    return extension.textbook(kind, shape, operands), checkers_answers(kind, tuple(shape), operands)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("edge", EDGES)
def test_textbook_of_the_checker_is_the_oracle(edge, data):
    """So what the checker finds without Python is what it would find here."""
    textbook, oracle = textbook_and_oracle(Case(edge, EDGES[edge]), data)
    assert textbook.keys() == oracle.keys() == set(ANSWERS)
    for name, values in textbook.items():
        np.testing.assert_array_equal(values, oracle[name], name)


@pytest.mark.parametrize("data", ("integers", "larger", "special", "special_input", "special_weight", "offset"))
def test_textbook_of_the_checker_is_the_oracle_for_blocks(data):
    for case in block_edge_cases() + block_cases(60, "textbook", 20_000):
        textbook, oracle = textbook_and_oracle(case, data)
        assert textbook.keys() == oracle.keys() == set(BLOCK_ANSWERS[case.kind])
        for name, values in textbook.items():
            if case.kind == "batch_norm" and name != "batch_norm_eval_output":
                # Of specials no kernel is asked for more than the output of a given mean and variance.
                if not data.startswith("special"):
                    size = np.abs(oracle[name]).max(initial=1)
                    np.testing.assert_allclose(values, oracle[name], 1e-10, 1e-10 * size, err_msg=f"{name} {case}")
            elif data == "offset" or name == "layer_norm":
                np.testing.assert_allclose(values, oracle[name], 1e-12, 1e-12, err_msg=f"{name} {case}")
            else:
                np.testing.assert_array_equal(values, oracle[name], f"{name} {case}")


@pytest.mark.parametrize(("data", "silu"), [*((data, False) for data in (*DATA, "normal")), ("normal", True)])
def test_textbook_of_the_checker_is_the_oracle_for_sequences(data, silu):
    """Of specials no kernel is asked for an activation."""
    extension = harness.extension()
    for i, case in enumerate(within(1000, sequence_edge_cases()) + sequence_cases(48, "textbook", 10_000)):
        operands = extension.operands("sequence", case.shape, getattr(extension.Data, data), 1)
        operands["activation"] = np.array([float(harness.ACTIVATIONS.index("silu") if silu else 0)])
        for place, name in enumerate(("states", "reach", "rows", "begins")):
            if i >> place & 1:
                operands[name] = np.zeros(0)
        textbook = extension.textbook("sequence", case.shape, operands)
        oracle = checkers_answers("sequence", tuple(case.shape), operands)
        assert textbook.keys() == oracle.keys() == set(SEQUENCE_ANSWERS)
        for name, values in textbook.items():
            if silu or data == "normal":
                np.testing.assert_allclose(values, oracle[name], 1e-10, 1e-10, err_msg=f"{name} {case}")
            else:
                np.testing.assert_array_equal(values, oracle[name], f"{name} {case}")


@pytest.mark.parametrize("silu", [False, True])
def test_textbook_of_sequences_is_conv1d(silu):
    """And its gradients are autograd's, where several sequences share a row."""
    extension = harness.extension()
    generator = torch.Generator().manual_seed(1)
    cases = [case for case in sequence_cases(50, "conv1d", 5_000) if case.shape.dilation_w == 1]
    assert len(cases) >= 15
    for case in cases:
        shape, most = case.shape, case.shape.pad_left
        operands = extension.operands("sequence", shape, extension.Data.normal, 1)
        sizes = operand_sizes("sequence", shape)
        x, w, bias, states = leaves = [
            torch.from_numpy(operands[name]).view(sizes[name]).requires_grad_()
            for name in ("input", "weight", "bias", "states")
        ]
        new = torch.rand(shape.N, shape.W, generator=generator) < 2 / (shape.W + 1)
        numbers = new.cumsum(1)
        numbers = torch.where((numbers == 1) & (torch.arange(shape.N) % 2 == 1)[:, None], -1, numbers)
        reach = torch.zeros(shape.N, shape.W, dtype=torch.float64)
        for n, at in itertools.product(range(shape.N), range(shape.W)):
            same = at > 0 and numbers[n, at] == numbers[n, at - 1]
            reach[n, at] = most if at == 0 else min(reach[n, at - 1] + 1, most) if same else 0
        reach = torch.where(numbers < 0, -1.0, reach)
        operands["reach"] = reach.numpy().ravel()
        operands["activation"] = np.array([float(harness.ACTIVATIONS.index("silu") if silu else 0)])
        got = extension.textbook("sequence", shape, operands)
        output = reference.convolved(x, w, bias, numbers.int(), states, silu)
        grad_output = torch.from_numpy(operands["grad_output"]).view_as(output)
        grads = torch.autograd.grad(output, leaves, grad_output)
        right = [output.detach(), grads[0], grads[1], grads[2], grads[3]]
        for name, wanted in zip(SEQUENCE_ANSWERS[:5], right, strict=True):
            np.testing.assert_allclose(got[name], wanted.numpy().ravel(), 1e-10, 1e-10, err_msg=f"{name} {case}")


def test_textbook_of_dense_is_conv2d():
    """Where PyTorch takes the shape: padding and groups play no part."""
    compared = 0
    for case in block_cases(90, "conv2d", 20_000):
        extension, shape = harness.extension(), case.shape
        if case.kind != "dense" or shape.reach != (shape.H, shape.W):
            continue
        operands = extension.operands("dense", shape, extension.Data.integers, 1)
        sizes = operand_sizes("dense", shape)
        x, w, bias, residual = (
            torch.from_numpy(operands[name]).view(sizes[name]) for name in ("input", "weight", "bias", "residual")
        )
        stride, dilation = (shape.stride_h, shape.stride_w), (shape.dilation_h, shape.dilation_w)
        right = torch.nn.functional.conv2d(x, w, bias, stride, 0, dilation) + residual
        got = extension.textbook("dense", shape, operands)["dense_with_both"]
        np.testing.assert_array_equal(got, right.numpy().ravel(), str(case))
        compared += 1
    assert compared >= 15


def test_textbook_of_layer_norm_is_torchs():
    extension = harness.extension()
    for case in block_cases(30, "torch", 20_000):
        if case.kind == "channelwise":
            operands = extension.operands("channelwise", case.shape, extension.Data.normal, 1)
            x = torch.from_numpy(operands["input"]).view(operand_sizes("channelwise", case.shape)["input"])
            right = torch.nn.functional.layer_norm(x.movedim(1, -1), (case.shape.C,), eps=operands["epsilon"].item())
            got = torch.from_numpy(extension.textbook("channelwise", case.shape, operands)["layer_norm"]).view_as(x)
            torch.testing.assert_close(got, right.movedim(-1, 1), rtol=1e-12, atol=1e-12)


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

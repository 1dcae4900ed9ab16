"""The nets hold: each catches the kernels with the fault it is there for, and lets the sound one through.

The oracle is held against the definition of the problem in csrc/shape.h, term by term.
"""

import itertools

import pytest
import torch

from tests.kernels import harness, nets
from tests.kernels.harness import planted
from tests.kernels.oracle import Problem, bounded_error, exact_error
from tests.kernels.shapes import EDGES, Shape, random_shapes

# Kernel 3x3 over 7 columns in 3 channels: no vector width divides any of it, no buffer is a whole number of pages.
SHAPE = Shape(2, 3, 1, 6, 7, 3, 3, 6, 7, pad_top=1, pad_left=1)


def caught(fault: str, net, *arguments, **options) -> str:
    return "\n".join(net([planted()[fault]], SHAPE, *arguments, **options))


def test_sound_kernel_passes_every_net():
    for placement in nets.PLACEMENTS:
        for with_bias in (True, False):
            assert caught("none", nets.exact_values, placement, with_bias) == ""
        assert caught("none", nets.bounded_values, placement) == ""
    assert caught("none", nets.scaled_values) == ""
    assert caught("none", nets.partition_independence, 0) == ""
    assert caught("none", nets.poison_reach) == ""


@pytest.mark.parametrize(
    ("fault", "placement", "message"),
    [
        ("reads_after_input", "back", "0 bytes after the end of input"),
        ("reads_before_input", "front", "4 bytes before input"),
        ("reads_after_weight", "back", "0 bytes after the end of weight"),
        ("writes_after_result", "back", "0 bytes after the end of result"),
        ("writes_before_result", "front", "4 bytes before result"),
        ("writes_after_result", "inside", f"wrote to byte {2 * 3 * 6 * 7 * 4} of its result"),
        ("writes_before_result", "inside", "wrote to byte -4 of its result"),
        ("writes_weight", "inside", "a write to byte 0 of the operand weight"),
        ("reads_bias_always", "back", "a null pointer"),
    ],
)
def test_guards_catch(fault, placement, message):
    assert message in caught(fault, nets.exact_values, placement, with_bias=False)


@pytest.mark.parametrize("fault", ["uses_result_unset", "uses_workspace_unset", "skips_last_column", "wraps_rows"])
def test_exact_values_catch(fault):
    assert "differ, at" in caught(fault, nets.exact_values, "back")


@pytest.mark.parametrize("fault", ["skips_last_column", "wraps_rows"])
def test_bounded_values_catch(fault):
    assert "relative norm" in caught(fault, nets.bounded_values, "back")


def test_poison_catches_multiplied_borders():
    assert caught("multiplies_border", nets.exact_values, "back") == ""
    assert "nan in input" in caught("multiplies_border", nets.poison_reach)


def test_scaled_values_catch_flushed_subnormals():
    assert caught("flushes_subnormals", nets.exact_values, "back") == ""
    assert "at scale" in caught("flushes_subnormals", nets.scaled_values)


def test_partitions_catch():
    assert "one by one" in caught("depends_on_begin", nets.partition_independence, 0)
    assert "reversed" in caught("depends_on_order", nets.partition_independence, 0)


@pytest.mark.parametrize("items", [0, 1, 2, 7, 100])
def test_partitions_cover_every_item_once(items):
    for partition in (harness.whole, harness.one_by_one, harness.reversed_items, harness.random_chunks(3)):
        assert sorted(i for begin, end in partition(items) for i in range(begin, end)) == list(range(items))


def definition(shape: Shape, x, w, g) -> dict[str, torch.Tensor]:
    """The trilinear form of csrc/shape.h, summed term by term into each of its three slot-gradients."""
    sums = {"forward": torch.zeros_like(g), "grad_input": torch.zeros_like(x), "grad_weight": torch.zeros_like(w)}
    for n, oc, oh, ow, kh, kw in itertools.product(
        *map(range, (shape.N, shape.out_channels, shape.OH, shape.OW, shape.KH, shape.KW))
    ):
        ih = oh * shape.stride_h + kh * shape.dilation_h - shape.pad_top
        iw = ow * shape.stride_w + kw * shape.dilation_w - shape.pad_left
        if 0 <= ih < shape.H and 0 <= iw < shape.W:
            c = oc // shape.M
            sums["forward"][n, oc, oh, ow] += x[n, c, ih, iw] * w[oc, kh, kw]
            sums["grad_input"][n, c, ih, iw] += g[n, oc, oh, ow] * w[oc, kh, kw]
            sums["grad_weight"][oc, kh, kw] += x[n, c, ih, iw] * g[n, oc, oh, ow]
    return sums


def test_oracle_is_the_definition():
    small = [shape for shape in (*EDGES.values(), *random_shapes(200, "definition")) if shape.work <= 700]
    assert len(small) >= 15
    for shape in small:
        problem = Problem(shape, "integers")
        x, w, g = (problem.operands_f64[name].numpy() for name in ("input", "weight", "grad_output"))
        for name, expected in definition(shape, *map(torch.from_numpy, (x, w, g))).items():
            assert torch.equal(problem.results_f64[name], expected), (name, shape)


@pytest.mark.parametrize("edge", EDGES)
def test_textbook_of_the_checker_is_the_oracle(edge):
    """Two ways to the right answer that share nothing: the checker's loops, and F.conv2d and its gradients."""
    problem = Problem(EDGES[edge], "integers")
    slots = [problem.operands_f64[name].flatten().tolist() for name in ("input", "weight", "grad_output")]
    for name in ("forward", "grad_input", "grad_weight"):
        map_ = getattr(harness.extension().Operation, name)
        assert harness.extension().textbook(map_, EDGES[edge], *slots) == problem.results_f64[name].flatten().tolist()


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
    values, results = problem.operands_f64, problem.results_f64
    form = (results["forward"] * values["grad_output"]).sum()
    assert form == (results["grad_input"] * values["input"]).sum()
    assert form == (results["grad_weight"] * values["weight"]).sum()


def test_exact_error_is_one_rounding():
    expected = torch.tensor([256.0, 257.0, 259.0, float("nan")], dtype=torch.float64)
    rounded = torch.tensor([256.0, 256.0, 260.0, float("nan")], dtype=torch.bfloat16)  # ties to even
    assert exact_error(rounded, expected) is None
    assert "at (2,)" in exact_error(rounded - torch.tensor([0, 0, 2, 0]), expected)
    assert "at (3,)" in exact_error(rounded.nan_to_num(0), expected)


def test_bounded_error_allows_one_rounding():
    expected = torch.tensor([1 + 2**-8 + 2**-10, 1.0], dtype=torch.float64)
    nearest, truncated = torch.tensor([1 + 2**-7, 1.0]), torch.tensor([1.0, 1.0])
    assert bounded_error(nearest.bfloat16(), expected, "bf16") is None
    assert "at (0,)" in bounded_error(truncated.bfloat16(), expected, "bf16")
    assert "relative norm" in bounded_error(truncated, expected, "f32")
    for dtype in ("f32", "bf16"):
        assert bounded_error(torch.tensor([float("nan"), 1.0]).to(harness.DTYPES[dtype]), expected, dtype)

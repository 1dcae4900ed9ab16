"""The registry: complete, in order, and read the same way by everyone."""

import itertools
import os
import subprocess
import sys

import pytest

from tests.kernels import harness
from tests.kernels.blocks import dense
from tests.kernels.cases import block_cases, block_edge_cases, random_cases, sequence_cases, sequence_edge_cases
from tests.kernels.harness import DTYPES, KINDS, all_kernels, assert_none, failures
from tests.kernels.shapes import EDGES, Shape, from_layer
from tests.layers import LAYERS
from torch_dwconv.operators import native

ISAS = native.ISA_LEVELS  # ascending
GROUPS = list(itertools.product(("forward", "grad_input", "grad_weight"), DTYPES, ("nchw", "nhwc")))
# Of blocks, channels last, of BatchNorm, and of pointwise convolutions in training: without a reference, since only the
# library itself calls them.
BLOCK_GROUPS = {
    kind: list(
        itertools.product(
            operations,
            ("f32",) if kind == "pointwise" else DTYPES,
            ("nchw", "nhwc") if kind in ("batch_norm", "pointwise") else ("nhwc",),
        )
    )
    for kind, operations in KINDS.items()
    if kind not in ("depthwise", "sequence")
}
# Of sequences: also without a reference. A step takes any strides, so one layout is all.
SEQUENCE_GROUPS = [
    *itertools.product(("sequence", "sequence_backward"), DTYPES, ("nchw", "nhwc")),
    *itertools.product(("sequence_step",), DTYPES, ("nchw",)),
]


def group(kernel: harness.Kernel) -> tuple[str, str, str]:
    return kernel.operation, kernel.dtype, kernel.layout


def test_names_are_unique_and_say_what_the_kernel_is():
    names = [kernel.name for kernel in all_kernels()]
    assert len(set(names)) == len(names)
    for kernel in all_kernels():
        assert kernel.name.startswith(f"{kernel.operation}_{kernel.layout}_{kernel.dtype}_")
        assert kernel.name.endswith((f"_{kernel.isa}", "_reference"))


@pytest.mark.parametrize(
    ("operation", "dtype", "layout"), [*GROUPS, *itertools.chain(*BLOCK_GROUPS.values()), *SEQUENCE_GROUPS]
)
def test_best_first_and_reference_last(operation, dtype, layout):
    candidates = [kernel for kernel in all_kernels() if group(kernel) == (operation, dtype, layout)]
    ranks = [ISAS.index(kernel.isa) for kernel in candidates]
    assert ranks == sorted(ranks, reverse=True)
    references = [candidates[-1].name] if operation in KINDS["depthwise"] else []
    assert [v.name for v in candidates if v.name.endswith("_reference")] == references


def test_there_are_no_other_groups():
    assert {group(kernel) for kernel in all_kernels()} == {
        *GROUPS,
        *itertools.chain(*BLOCK_GROUPS.values()),
        *SEQUENCE_GROUPS,
    }


def test_every_shape_has_a_kernel_in_every_group():
    shapes = [
        *EDGES.values(),
        *(from_layer(layer, 1) for layer in LAYERS),
        *(case.shape for case in random_cases(200, "registry")),
    ]
    for shape in shapes:
        assert {group(kernel) for kernel in harness.kernels(shape)} == set(GROUPS), shape


def test_every_shape_of_a_block_has_a_kernel_of_every_isa():
    for case in (*block_edge_cases(), *block_cases(200, "registry")):
        taken = {(*group(kernel), kernel.isa) for kernel in harness.kernels(case.shape, case.kind)}
        isas = {kernel.isa for kernel in all_kernels()}
        assert taken == {(*each, isa) for each in BLOCK_GROUPS[case.kind] for isa in isas}, case


def test_every_shape_of_a_sequence_has_a_kernel_of_every_isa():
    """But a step knows no dilation."""
    isas = {kernel.isa for kernel in all_kernels()}
    for case in (*sequence_edge_cases(), *sequence_cases(200, "registry")):
        taken = {(*group(kernel), kernel.isa) for kernel in harness.kernels(case.shape, "sequence")}
        dilated = case.shape.dilation_w != 1 and case.shape.KW != 1
        groups = [each for each in SEQUENCE_GROUPS if not (dilated and each[0] == "sequence_step")]
        assert taken == {(*each, isa) for each in groups for isa in isas}, case


def test_no_stride_or_dilation_is_too_large_for_dense():
    """Only kernels that walk along a stride's residues have limits; dense has no reference behind it."""
    for shape in (
        Shape(1, 3, 17, 70, 300, 1, 2, 2, 2, 65, 100, 1, 99),
        Shape(1, 3, 17, 1, 65_538, 1, 2, 1, 1, dilation_w=65_537),
    ):
        reasons = {
            harness.refusal(index, shape) for index, kernel in enumerate(all_kernels()) if kernel.operation == "dense"
        }
        # Of `pairs` and `amx`, where the processor has not what it takes, or not fast.
        of_the_machine = (
            "supports, but: this processor multiplies pairs",
            "the machine does not multiply pairs",
            "the machine has no matrix unit",
        )
        assert None in reasons and all(reason.startswith(of_the_machine) for reason in reasons - {None}), reasons
        assert_none(failures(harness.kernels(shape, "dense"), shape, ["exact"]), shape)


def test_dense_refuses_taps_outside():
    """Before the input and past it, in either direction: blocks pad for themselves."""
    shape = Shape(2, 5, 17, 9, 11, 3, 3, 4, 5, 2, 2)  # whose last taps are the last row and the last column
    dense = [kernel for kernel in harness.kernels(shape, "dense") if kernel.operation == "dense"]
    assert {kernel.dtype for kernel in dense} == set(DTYPES)
    for field in ("pad_top", "pad_left", "OH", "OW", "stride_h", "stride_w", "dilation_h", "dilation_w"):
        other = shape._replace(**{field: getattr(shape, field) + 1})
        assert {kernel.refusal(other) for kernel in dense} == {"taps lie outside the input"}, field
    for field in ("H", "W"):
        other = shape._replace(**{field: getattr(shape, field) - 1})
        assert {kernel.refusal(other) for kernel in dense} == {"taps lie outside the input"}, field


def test_pointwise_refuses_other_geometries():
    """Each number that makes it another convolution, and the sizes of one with strides or padding."""
    shape = dense(5, 17, 9, 11, batch=2)
    of_training = [kernel for kernel in all_kernels() if kernel.operation in harness.KINDS["pointwise"]]
    assert {kernel.operation for kernel in of_training} == set(harness.KINDS["pointwise"])
    assert {kernel.refusal(shape) for kernel in of_training} == {None}
    for field in ("KH", "KW"):
        other = shape._replace(**{field: 3})
        assert {kernel.refusal(other) for kernel in of_training} == {"the filter is not 1x1"}, field
    for field in ("stride_h", "stride_w", "pad_top", "pad_left", "OH", "OW"):
        other = shape._replace(**{field: getattr(shape, field) + 1})
        refusals = {kernel.refusal(other) for kernel in of_training}
        assert refusals == {"results are not at the pixels of the input"}, field


def test_refusals_give_a_reason_and_the_exported_function_agrees():
    for shape in [*EDGES.values(), *(case.shape for case in random_cases(50, "refusals"))]:
        for index, kernel in enumerate(all_kernels()):
            reason, exported = kernel.refusal(shape), harness.refusal(index, shape)
            assert reason != "" and exported != ""
            # A kernel that could compute the shape may be passed over for another one, which the library says, too.
            assert exported == reason or reason is None


def test_no_kernel_beyond_either_end():
    lib, count = harness.library, len(all_kernels())
    for index in (-1, count):
        assert lib.dwconv_kernel(index) is None
        assert lib.dwconv_kernel_field(index, 0) is None
        assert harness.refusal(index, EDGES["one_pixel"]) is not None
    assert lib.dwconv_kernel_field(0, 5) is None


@pytest.mark.parametrize("cap", ISAS)
def test_environment_caps_the_isa(cap):
    """A fresh process, since the cap is read once."""
    code = (
        "from tests.kernels import harness as h; lib = h.library;"
        "print(lib.dwconv_isa().decode(), lib.dwconv_cpu_isa().decode(), *sorted({v.isa for v in h.all_kernels()}))"
    )
    environment = os.environ | {"TORCH_DWCONV_ISA": cap}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=environment, cwd=harness.ROOT, capture_output=True, text=True, check=True)
    in_use, of_cpu, *of_kernels = printed.stdout.split()
    best = min(cap, of_cpu, key=ISAS.index)
    assert in_use == best
    assert of_kernels == sorted(ISAS[: ISAS.index(best) + 1])

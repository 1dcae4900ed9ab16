"""The registry: complete, in order, and read the same way by everyone."""

import itertools
import os
import subprocess
import sys

import pytest

from tests.kernels import harness
from tests.kernels.harness import DTYPES, all_variants
from tests.kernels.shapes import EDGES, from_layer, random_shapes
from tests.layers import LAYERS
from torch_dwconv import _native

ISAS = _native.ISA_LEVELS  # ascending
GROUPS = list(itertools.product(("forward", "grad_input", "grad_weight"), DTYPES, ("nchw", "nhwc")))


def group(variant: harness.Variant) -> tuple[str, str, str]:
    return variant.map, variant.dtype, variant.layout


def test_names_are_unique_and_say_what_the_variant_is():
    names = [variant.name for variant in all_variants()]
    assert len(set(names)) == len(names)
    for variant in all_variants():
        assert variant.name.startswith(f"{variant.map}_{variant.layout}_{variant.dtype}_")
        assert variant.name.endswith((f"_{variant.isa}", "_reference"))


@pytest.mark.parametrize(("map_name", "dtype", "layout"), GROUPS)
def test_best_first_and_reference_last(map_name, dtype, layout):
    candidates = [variant for variant in all_variants() if group(variant) == (map_name, dtype, layout)]
    ranks = [ISAS.index(variant.isa) for variant in candidates]
    assert ranks == sorted(ranks, reverse=True)
    assert [v.name for v in candidates if v.name.endswith("_reference")] == [candidates[-1].name]


def test_every_shape_has_a_variant_in_every_group():
    shapes = [*EDGES.values(), *(from_layer(layer, 1) for layer in LAYERS), *random_shapes(200, "registry")]
    for shape in shapes:
        taken = {group(variant) for variant in all_variants() if variant.refusal(shape) is None}
        assert taken == set(GROUPS), shape


def test_refusals_give_a_reason_and_the_exported_function_agrees():
    for shape in [*EDGES.values(), *random_shapes(50, "refusals")]:
        for index, variant in enumerate(all_variants()):
            reason = variant.refusal(shape)
            assert reason != ""
            assert harness.refusal(index, shape) == reason


def test_no_variant_beyond_either_end():
    lib, count = harness.library, len(all_variants())
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
        "print(lib.dwconv_isa().decode(), lib.dwconv_cpu_isa().decode(), *sorted({v.isa for v in h.all_variants()}))"
    )
    environment = os.environ | {"TORCH_DWCONV_ISA": cap}
    command = [sys.executable, "-c", code]
    printed = subprocess.run(command, env=environment, cwd=harness.ROOT, capture_output=True, text=True, check=True)
    in_use, of_cpu, *of_variants = printed.stdout.split()
    best = min(cap, of_cpu, key=ISAS.index)
    assert in_use == best
    assert of_variants == sorted(ISAS[: ISAS.index(best) + 1])

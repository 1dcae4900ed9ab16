"""Every CUDA kernel, run on the emulator, computes the right numbers: the checks of tests/kernels on the same cases."""

import itertools

import pytest

from tests.cuda.harness import ORDERS, all_kernels, kernels, set_order
from tests.cuda.shapes import CUDA_EDGES
from tests.kernels.cases import Case, layer_cases, random_cases
from tests.kernels.days import today_or_full
from tests.kernels.harness import PLACEMENTS, Kernel, assert_none, failures
from tests.kernels.shapes import EDGES, Shape

LAYERS = {case.name: case for case in layer_cases()}
CHUNKS, PER_CHUNK = 6, 10


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    pass


def check(case: Case, checks: list[str], chosen: list[Kernel] | None = None, **options) -> None:
    chosen = kernels(case.shape) if chosen is None else chosen
    assert_none(failures(chosen, case.shape, checks, seed=case.seed, **options), case.shape)


def in_some_order(i: int) -> None:
    set_order(ORDERS[i % len(ORDERS)])


def test_the_last_kernel_of_each_map_takes_everything():
    groups = {}
    for kernel in all_kernels():
        if kernel.kernel.operation != "backward":
            groups[kernel.kernel[1:4]] = kernel
    assert len(groups) == 3 * 4 * 2
    for kernel in groups.values():
        assert kernel.compute_capability == 75
        for shape in EDGES.values():
            assert kernel.kernel.refusal(shape) is None


def test_names_say_what_a_kernel_is():
    names = [kernel.kernel.name for kernel in all_kernels()]
    assert len(set(names)) == len(names)
    for kernel in all_kernels():
        name, operation, dtype, layout, *_ = kernel.kernel
        assert name.startswith(f"{operation}_{layout}_{dtype}_") and name.endswith("_cuda")


@pytest.mark.parametrize("name", LAYERS)
def test_layers_exact(name):
    in_some_order(list(LAYERS).index(name))
    check(LAYERS[name], ["exact"], placements=["back"])


@pytest.mark.parametrize("edge", EDGES)
def test_edges_exact(edge):
    in_some_order(PLACEMENTS.index("back"))
    check(Case(edge, EDGES[edge]), ["exact"], placements=["back"])


OTHER_PLACES = itertools.product(EDGES, [place for place in PLACEMENTS if place != "back"])


@pytest.mark.parametrize("edge, placement", [today_or_full(*both, part=i, of=3) for i, both in enumerate(OTHER_PLACES)])
def test_edges_exact_elsewhere(edge, placement):
    """With buffers in the other places of PLACEMENTS."""
    in_some_order(PLACEMENTS.index(placement))
    check(Case(edge, EDGES[edge]), ["exact"], placements=[placement], with_bias=placement != "front")


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_shapes_exact(chunk):
    for i, case in enumerate(random_cases(PER_CHUNK, f"cuda-exact-{chunk}")):
        in_some_order(i // 3)
        check(case, ["exact"])


@pytest.mark.parametrize("chunk", range(CHUNKS // 3))
def test_random_shapes_bounded(chunk):
    for case in random_cases(PER_CHUNK, f"cuda-bounded-{chunk}"):
        check(case, ["bounded"])


@pytest.mark.parametrize(
    "huge", [{"stride_h": 1 << 30, "stride_w": 1 << 31}, {"dilation_h": 1 << 30, "KH": 1, "OH": 5}]
)
def test_steps_beyond_the_end_cost_nothing(huge):
    """They were once walked one by one, for hours."""
    base = {"N": 1, "C": 2, "M": 2, "H": 5, "W": 6, "KH": 2, "KW": 3, "OH": 1, "OW": 1, "stride_h": 1, "stride_w": 9}
    shape = Shape(**(base | {"dilation_h": 1, "dilation_w": 1, "pad_top": 0, "pad_left": 1} | huge))
    check(Case("huge", shape), ["exact"], placements=["back"])


def those_of(edge: str) -> list[Kernel]:
    """The kernels that an edge of CUDA_EDGES is for."""
    found = [kernel for kernel in kernels(CUDA_EDGES[edge]) if edge.split("_")[0] in kernel.name]
    assert len(found) >= 2
    return found


@pytest.mark.parametrize("edge", CUDA_EDGES)
def test_edges_of_some_kernels_exact(edge):
    i = list(CUDA_EDGES).index(edge)
    in_some_order(i)
    check(Case(edge, CUDA_EDGES[edge]), ["exact"], those_of(edge))


@pytest.mark.parametrize("edge", CUDA_EDGES)
def test_edges_of_some_kernels_with_nan_and_infinity(edge):
    """These kernels multiply padding, and mend what becomes NaN by it."""
    in_some_order(list(CUDA_EDGES).index(edge))
    check(Case(edge, CUDA_EDGES[edge]), ["special"], those_of(edge))


@pytest.mark.parametrize("stride", [1, 2])
def test_more_images_than_a_launch_takes(stride):
    """The tuned kernels for contiguous tensors have an image for each block of one dimension of the grid."""
    output = 2 // stride
    shape = Shape(65535 + 3, 1, 1, 2, 2, 3, 3, output, output, stride, stride, pad_top=1, pad_left=1)
    tuned = [v for v in kernels(shape) if f"_k3s{stride}_" in v.name and "_nchw_" in v.name and "f32" in v.name]
    assert {v.operation for v in tuned} == {"forward", "grad_input", "grad_weight"} | (
        {"backward"} if stride == 1 else set()
    )
    check(Case("images", shape), ["exact"], tuned, placements=["back"])


@pytest.mark.parametrize("kind", ["special", "scaled"])
def test_numbers_that_are_not_finite_subnormal_or_huge(kind):
    edges = [Case(edge, EDGES[edge]) for edge in ("one_channel", "tensorflow_same_stride_2")]
    for case in edges + random_cases(4, f"cuda-{kind}"):
        check(case, [kind])


def slow_or_full(chunk: int, order: str):
    """Each shape in one order of threads; the two others, three minutes of two cores, are left to `make full`."""
    mark = pytest.mark.slow if ORDERS[chunk % len(ORDERS)] == order else pytest.mark.full
    return pytest.param(chunk, order, marks=mark)


@pytest.mark.parametrize("chunk, order", [slow_or_full(*both) for both in itertools.product(range(30), ORDERS)])
def test_many_random_shapes_exact(chunk, order):
    set_order(order)
    for case in random_cases(PER_CHUNK, f"cuda-many-{chunk}"):
        check(case, ["exact"])

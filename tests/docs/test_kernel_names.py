"""The kernels that the pages name are those of the registry, and every one of the registry's is explained."""

import re

import pytest

from torch_dwconv import kernels
from torch_dwconv.operators import native

from .test_docs import KERNEL, PAGES, text_of

LEVELS = {"AVX-512": (b"avx512",), "AVX2": (b"avx512", b"avx2")}
FULL_NAME = rf"\b{KERNEL}\b"
avx512 = pytest.mark.skipif(
    native.cpu_library.dwconv_isa() != b"avx512",
    reason="some kernels are built for AVX-512 only, which this run has not",
)


def registered() -> set[tuple[str, str, str]]:
    """(method, operation, layout) of every kernel but the reference ones."""
    found = set()
    for kernel in kernels("cpu"):
        method = kernel.name.removeprefix(f"{kernel.operation}_{kernel.layout}_{kernel.dtype}_")
        if not kernel.name.endswith("_reference"):
            found.add((method.removesuffix(f"_{kernel.isa}"), kernel.operation, kernel.layout))
    return found


def explained(page: str = "docs/kernels-cpu.md") -> set[tuple[str, str, str]]:
    """The same from the page's table, without the kernels that need more than this machine has."""
    have = [isa for isa, levels in LEVELS.items() if native.cpu_library.dwconv_isa() in levels]
    found = set()
    for line in text_of(page).split("| kernel | operations | layout |")[1].split("\n\n")[0].splitlines()[2:]:
        method, operations, layout, *_, needs = (cell.strip() for cell in line.split("|")[1:-1])
        if needs == "" or needs in have:
            found |= {(method.strip("`"), operation, layout.lower()) for operation in operations.split(", ")}
    return found


def test_the_page_of_kernels_lists_the_registry():
    assert explained() == registered()


@avx512
@pytest.mark.parametrize("page", PAGES)
def test_kernels_named_in_full_exist(page):
    names = {kernel.name for kernel in kernels("cpu")}
    named = set(re.findall(FULL_NAME, text_of(page)))
    assert {name for name in named if not name.endswith("_neon")} <= names


def test_a_kernel_that_is_not_there_is_noticed():
    """Or the tests above could not fail."""
    assert re.findall(FULL_NAME, "`forward_nchw_f32_small_avx512`") == ["forward_nchw_f32_small_avx512"]
    assert len(explained()) >= 10 and len(registered()) >= 10

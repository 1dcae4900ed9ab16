"""Large results and workspaces lie in huge pages, where the system has those for who asks."""

import re
from pathlib import Path

import pytest
import torch

from tests.calls import FORMATS
from torch_dwconv import batch_norm_act, depthwise_conv2d

HUGE_PAGE = 2 << 20
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = pytest.mark.skipif(
    not SETTING.exists() or "[never]" in SETTING.read_text(), reason="the system has no huge pages"
)


def flags_at(address: int) -> set[str]:
    """What the system was told about the memory there: "hg" is for huge pages."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            found = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif found and line.startswith("VmFlags:"):
            return {*line.split()[1:]}
    raise AssertionError(f"no memory at {address:#x}")


def whole_pages(tensor: torch.Tensor) -> list[int]:
    """Where each huge page begins that is the tensor's from end to end."""
    first = -(-tensor.data_ptr() // HUGE_PAGE) * HUGE_PAGE
    return [*range(first, tensor.data_ptr() + tensor.nbytes - HUGE_PAGE + 1, HUGE_PAGE)]


@pytest.mark.parametrize("megabytes", [4, 5, 40])
@pytest.mark.parametrize("format", FORMATS)
def test_results_lie_in_huge_pages(format, megabytes):
    x = torch.randn(1, megabytes, 512, 512).to(memory_format=format).requires_grad_()  # a megabyte each
    weight = torch.randn(megabytes, 1, 3, 3)
    output = depthwise_conv2d(x, weight, padding=1)
    normalised = batch_norm_act(output, None, None, training=True)
    (grad,) = torch.autograd.grad(output, x, torch.ones_like(output))
    for tensor in (output, normalised, grad):
        assert len(whole_pages(tensor)) >= 1
        assert all("hg" in flags_at(page) for page in whole_pages(tensor))

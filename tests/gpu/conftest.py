"""Tests that need a GPU which our kernels run on: skipped with the reason where there is none. ``make gpu-check``."""

from pathlib import Path

import pytest

from torch_dwconv.operators import native

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    reason = native.cuda_refusal(0)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=f"no GPU for our kernels: {reason}"))

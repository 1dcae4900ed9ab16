"""What all tests of layers need."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    """F.conv2d in float64, the oracle here, starts its threads once a group: on a busy machine that takes seconds."""

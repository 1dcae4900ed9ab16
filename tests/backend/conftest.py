"""What all tests of the backend need."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _fresh_dynamo(one_torch_thread):
    """Graphs of earlier tests count against the limit of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()

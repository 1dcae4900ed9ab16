"""One thread: kernels know none, and on the oracle's small tensors PyTorch's would only wait for each other."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    pass

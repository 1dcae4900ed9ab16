"""One thread: kernels know none, and on the oracle's small tensors PyTorch's would only wait for each other."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="package")
def one_torch_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)

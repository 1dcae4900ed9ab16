"""Every test starts from the same random state, and compiles what it tests."""

import os

# Inductor's caches do not see a changed Python kernel. Read when torch is imported, so set before.
os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")
os.environ.setdefault("CI", "1")  # Inductor checks more there: here as well, so that a fault shows before it gets there
if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes: a thread that waits leaves its core to the others
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


@pytest.fixture
def fresh_compiler():
    """No graph compiled by an earlier test: its guards count against the limit of recompilations."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="module")
def one_torch_thread():
    """For tests on many small tensors: on a busy machine PyTorch's threads mostly wait for each other there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def image() -> torch.Tensor:
    """(2, 3, 20, 18), in float64, so that a wrong result cannot hide in rounding."""
    return torch.randn(2, 3, 20, 18, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

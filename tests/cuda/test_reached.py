"""What would run on a GPU: the tests, the smoke test and the benchmark there reach every registered kernel."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.cuda import cells
from benchmarks.cuda.measure import OnDevice
from tests.cuda.harness import all_kernels, stand_in_for_a_gpu
from tests.gpu import calls

NAMES = [kernel.kernel.name for kernel in all_kernels()]
METHODS = {"planes", "runs", "stream", "toeplitz", "tiles", "window"}


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    pass


def test_the_gpu_tests_reach_every_kernel(monkeypatch):
    stand_in_for_a_gpu(monkeypatch)
    cases = calls.reached()
    assert set(cases) == set(NAMES)
    beginning = list(cases.values())[: len(METHODS)]
    assert {case.method for case in beginning} == METHODS  # whatever the time is enough for
    for name, case in cases.items():
        assert name.startswith(f"{case.operation}_")


@pytest.mark.parametrize("capability, missing", [((7, 5), "toeplitz"), ((8, 0), None), ((12, 0), None)])
def test_on_other_devices_too(monkeypatch, capability, missing):
    stand_in_for_a_gpu(monkeypatch, capability)
    left = set(NAMES) - set(calls.reached())
    assert left == {name for name in NAMES if missing and missing in name}


def test_a_call_that_reaches_a_kernel_computes_its_operation(monkeypatch):
    """On the CPU: operands, sizes and the expected results belong together."""
    stand_in_for_a_gpu(monkeypatch)
    cases = calls.reached()
    assert {name: problem for name, case in cases.items() if (problem := calls.wrong(case, "cpu"))} == {}
    broken = next(iter(cases.values()))
    monkeypatch.setattr(calls, "_problem", lambda call: calls_with_a_fault(broken.call))
    assert "1 of " in calls.wrong(broken, "cpu")


def calls_with_a_fault(call, right=calls._problem):
    operands, results = right(call)
    results = {name: tensor.clone() for name, tensor in results.items()}
    for tensor in results.values():
        tensor.view(-1)[0] += 1
    return operands, results


def test_the_benchmark_reaches_every_kernel(monkeypatch):
    stand_in_for_a_gpu(monkeypatch)
    with FakeTensorMode():
        chosen = {OnDevice(cell, torch.device("cuda")).kernel for cell in cells.all_cells(32)}
    assert set(NAMES) <= chosen

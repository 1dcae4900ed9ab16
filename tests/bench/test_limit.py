"""The probes of the machine's limit: they move and compute what they claim, and stay inside their buffers."""

import threading

import pytest
import torch

from torch_dwconv.bench import limit
from torch_dwconv.bench.layers import parse_layer
from torch_dwconv.bench.problem import OPERATIONS, Cell, Problem

SIZES = ((0, 128), (128, 0), (64, 64), (4096, 4096), (9984, 1984), (1984, 9984), (64, 70_016), (12_800, 64))
GUARD = 64


def stream(method, read, written):
    """Source and target after one stream, the target with a guard on each side."""
    source = torch.randint(2, 256, (read + GUARD,), dtype=torch.uint8)
    source = limit._aligned_bytes(len(source)).copy_(source)
    target = limit._aligned_bytes(written + 2 * GUARD).zero_()
    pointers = target.data_ptr() + GUARD, written, source.data_ptr(), read
    limit._library.dwconv_probe_stream(method, *pointers, 1)
    return source, target


@pytest.mark.parametrize(("read", "written"), SIZES)
@pytest.mark.parametrize("method", range(len(limit.STREAMS)))
def test_a_stream_writes_all_of_its_target_and_nothing_else(method, read, written):
    _, target = stream(method, read, written)
    inside = target[GUARD : GUARD + written]
    assert target[:GUARD].count_nonzero() == target[GUARD + written :].count_nonzero() == 0
    lines = inside.view(-1, 64).count_nonzero(dim=1)
    assert (lines > 0).all()


@pytest.mark.parametrize("method", range(len(limit.STREAMS)))
def test_a_stream_of_equal_sizes_is_a_copy(method):
    source, target = stream(method, 9984, 9984)
    assert torch.equal(target[GUARD:-GUARD], source[:9984])


@pytest.mark.parametrize("dtype", [0, 1])
def test_flops_are_proportional_to_the_iterations(dtype):
    one, many = (limit._library.dwconv_probe_fma(dtype, iterations) for iterations in (1, 1000))
    assert many == 1000 * one > 0


@pytest.mark.parametrize("threads", [1, 3])
def test_every_thread_does_the_work_at_once(threads):
    together, seen = threading.Barrier(threads), []

    def work(thread, repeats):
        together.wait(timeout=10)
        seen.append((thread, repeats))

    assert limit._ThreadedRun(work, threads).seconds(5) > 0
    assert sorted(seen) == [(thread, 5) for thread in range(threads)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_probes_of_a_problem_take_time(operation):
    batch, layer = parse_layer("1,8,14,14,3,2")
    problem = Problem(Cell(layer, batch, operation, "f32", "nchw", threads=2))
    runs = [*limit.stream_runs(problem).values(), limit.fma_run(problem.dtype, 2)]
    assert len(runs) == len(limit.STREAMS) + 1
    assert all(run.seconds(3) > 0 for run in runs)

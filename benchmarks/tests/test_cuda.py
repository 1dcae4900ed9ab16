"""The benchmark of CUDA kernels, run on the CPU with a clock of the test's: its plan, its comparison, its report."""

import contextlib
import json
import sys
import weakref

import pytest
import torch

from benchmarks import items
from benchmarks.cuda import CONTESTANTS, cells, measure, report
from benchmarks.cuda import __main__ as command_line
from torch_dwconv.bench.layers import Layer, read_layers
from torch_dwconv.operators import native

CPU = torch.device("cpu")
SMALL = (Layer("a", 8, 1, 14, 14, 3, 3, 1, 1, 1, 1, 1), Layer("b", 5, 2, 9, 11, 4, 5, 2, 1, 1, 2, 1))


class Clock:
    """Times nothing: a contestant's calls take as many milliseconds as it is late in the order of asking."""

    def __init__(self):
        self.asked = 0

    def prepare(self, calls):
        for call in calls:
            call()
        self.asked += 1
        return lambda asked=self.asked: asked * 1e-3


@pytest.fixture(autouse=True)
def _cudnn_would_run(monkeypatch):
    monkeypatch.setattr(measure, "uses_cudnn", lambda problem: True)


def test_the_plan_has_every_layer_once_in_each_form():
    planned = cells.plan(read_layers(), 32)
    layers = {layer[1:-1] for layer in read_layers()}
    assert len(set(planned)) == len(planned) == len(layers) * 4 * 3 * 2
    assert {cell.layer[1:-1] for cell in planned} == layers
    beginning = {cell.layer.kernel_h for cell in planned[: len(planned) // 4]}
    assert {3, 5, 7} <= beginning


def test_names_are_unique_and_groups_are_of_a_dtype_and_a_layout():
    every = cells.all_cells(32)
    assert len({cell.name for cell in every}) == len(every)
    groups = cells.groups(every)
    assert sum(map(len, groups.values())) == len(every) and len(groups) == 8
    for name, group in groups.items():
        assert {f"{cell.dtype}-{cell.layout}" for cell in group} == {name}
        assert {cell.operation for cell in group} == {"forward", "grad_input", "grad_weight", "backward"}


@pytest.mark.parametrize("size, cache, expected", [(10, 0, 1), (10, 10, 4), (10, 15, 6), (1000, 10, 2)])
def test_copies_reach_beyond_the_cache(size, cache, expected):
    assert measure.copies(size, cache) == expected
    assert cache == 0 or (expected - 1) * size >= 3 * cache


@pytest.mark.parametrize("cell", cells.plan(SMALL, 2, dtypes=("f32", "bf16", "f64")), ids=lambda cell: cell.name)
def test_a_cell_is_compared_and_timed(cell):
    row = measure.measure(cell, CPU, 100, Clock())
    assert row["problems"] == {} and row["layer"] == cell.layer.name
    assert row["seconds"] == {"native": 1e-3, "ours": 2e-3, "cudnn": 3e-3}
    problem = measure.OnDevice(cell, CPU)
    tensors = {"input": problem.input, "weight": problem.weight, "grad_output": problem.grad_output}
    moved = {"forward": "input weight grad_output", "grad_input": "input weight grad_output"}
    moved |= {"grad_weight": "input weight grad_output", "backward": "input input weight weight grad_output"}
    assert row["bytes"] == sum(tensors[name].nbytes for name in moved[cell.operation].split())
    assert problem.input.is_contiguous(memory_format=problem.memory_format)
    kernels = row["kernel"].split(" and ")  # the CPU has none for both gradients
    wanted = ["grad_input", "grad_weight"] if cell.operation == "backward" else [cell.operation]
    assert len(kernels) == len(wanted)
    for kernel, operation in zip(kernels, wanted, strict=True):
        assert kernel.startswith(f"{operation}_{cell.layout}_{cell.dtype}_")


@pytest.mark.parametrize("operation", cells.OPERATIONS)
def test_a_wrong_result_is_not_timed(monkeypatch, operation):
    cell = cells.plan(SMALL, 2, operations=(operation,))[0]
    right = measure.call_of

    def wrong(name, problem):
        call, results = right(name, problem)
        if name != "ours":
            return call, results
        return call, lambda value: [*results(value)[:-1], results(value)[-1] * 1.01]

    monkeypatch.setattr(measure, "call_of", wrong)
    row = measure.measure(cell, CPU, 100, Clock())
    assert set(row["seconds"]) == {"native", "cudnn"}
    assert row["problems"]["ours"].startswith("WRONG: relative error 1.0e-02")


def test_what_raises_is_reported(monkeypatch):
    class Broken(Clock):
        def prepare(self, calls):
            raise RuntimeError("cannot be captured\nfor a reason")

    row = measure.measure(cells.plan(SMALL, 2)[0], CPU, 100, Broken())
    assert row["seconds"] == {} and set(row["problems"].values()) == {"RuntimeError: cannot be captured"}


def test_what_raises_while_operands_are_made_or_times_are_taken_is_reported(monkeypatch):
    class Late(Clock):
        def prepare(self, calls):
            sample = super().prepare(calls)
            return sample if self.asked == 1 else self.fail

        def fail(self):
            raise RuntimeError("an illegal memory access")

    cell = cells.plan(SMALL, 2)[0]
    row = measure.measure(cell, CPU, 100, Late())
    assert row["problems"] == {"ours": "RuntimeError: an illegal memory access"} and row["seconds"] == {"native": 1e-3}

    def randn(*size, device):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "randn", randn)
    row = measure.measure(cell, CPU, 100, Clock())
    assert row["problems"] == {"operands": "OutOfMemoryError: out of memory"} and row["seconds"] == {}


def test_cudnn_is_on_for_its_contestant_alone(monkeypatch):
    seen, flags = [], torch.backends.cudnn.flags

    def watched(**options):
        seen.append((options["enabled"], options["benchmark"], options["allow_tf32"]))
        return flags(**options)

    monkeypatch.setattr(torch.backends.cudnn, "flags", watched)
    for cell in cells.plan(SMALL, 2, dtypes=("f32",), layouts=("nchw",)):
        problem = measure.OnDevice(cell, CPU)
        for name in CONTESTANTS:
            measure.call_of(name, problem)[0]()
    assert seen == [(False, False, False), (True, True, False)] * 8


def test_cudnn_takes_part_where_pytorch_would_call_it(monkeypatch):
    problem = measure.OnDevice(cells.plan(SMALL, 2)[0], CPU)
    monkeypatch.undo()
    assert not measure.uses_cudnn(problem)  # on a CPU
    assert set(measure.measure(problem.cell, CPU, 100, Clock())["seconds"]) == {"native", "ours"}
    monkeypatch.setattr(torch._C, "_select_conv_backend", lambda *arguments: torch._C._ConvBackend.Cudnn)
    assert measure.uses_cudnn(problem)


def timed(layers=SMALL, dtypes=("f32",)):
    return [
        {"name": cell.name, "bandwidth": 1e9, **measure.measure(cell, CPU, 100, Clock())}
        for cell in cells.plan(layers, 1, dtypes=dtypes)
    ]


def test_the_table():
    rows = json.loads(json.dumps(timed()))
    lines = list(report.table(rows))
    assert len(lines) == 1 + 4 * 2 and lines[1].startswith("forward     f32   nchw       2  ")
    rows[0]["problems"]["cudnn"] = "RuntimeError: no algorithm"
    assert list(report.table(rows))[-1].endswith("RuntimeError: no algorithm")


def test_the_slowest_are_the_furthest_from_the_copy_and_each_of_another_kernel():
    rows = timed()
    for i, row in enumerate(rows):
        row |= {"kernel": f"k{i % 3}", "bytes": 1e6 * (i + 1)}
    assert [row["kernel"] for row in report.slowest(rows, 2)] == ["k0", "k1"]
    assert report.slowest(rows, 9) == rows[:3]


# A worker that measures on the CPU, and what happens to it at some cells.
WORKER = """
import os, signal, sys, time
from pathlib import Path
import torch
from benchmarks import items
from benchmarks.cuda import measure
from benchmarks.tests import test_cuda

cells = {cell.name: cell for cell in test_cuda.cells.plan(test_cuda.SMALL, 1, dtypes=("f32",))}
seen = []

def do(name):
    seen.append(name)
    if list(cells).index(name) == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return {"bandwidth": 1e9, **measure.measure(cells[name], torch.device("cpu"), 100, test_cuda.Clock())}

output = Path(sys.argv[sys.argv.index("--worker") + 1])
sys.exit(items.work(items.names_of_stdin(), output, do, lambda: True, 60))
"""


def test_a_crash_in_the_third_cell_costs_that_cell(tmp_path, capsys):
    groups = cells.groups(cells.plan(SMALL, 1, dtypes=("f32",)))
    assert command_line.supervise(groups, tmp_path, 60, [sys.executable, "-c", WORKER]) == 0
    lines = report.lines_of(tmp_path)
    rows, lost = report.rows_of(lines), [line for line in lines if "lost" in line]
    assert len(rows) == 15 and all(set(row["seconds"]) == {"native", "ours"} for row in rows)
    assert [line["lost"] for line in lost] == ["killed by SIGSEGV"] and lost[0]["name"] not in {r["name"] for r in rows}
    assert command_line.conclude(tmp_path, 0) == 1
    assert "killed by SIGSEGV" in (tmp_path / "benchmark-table.txt").read_text()
    assert command_line.supervise(groups, tmp_path, 60, ["false"]) == 0  # all is done already


def test_each_group_has_its_share_of_the_time_and_a_worker_less(tmp_path, monkeypatch):
    asked = []

    def supervised(worker, names, seconds):
        asked.append((len(names), seconds, worker.command(seconds)))
        return names[1:]

    monkeypatch.setattr(items, "supervise", supervised)
    groups = cells.groups(cells.plan(SMALL, 1, dtypes=("f32", "f16")) + cells.plan(SMALL[:1], 1, dtypes=("f64",)))
    assert command_line.supervise(groups, tmp_path, 100, ["bench"]) == 8 * 4 + 4 * 2 - 6
    weights = [names + command_line.START for names, *_ in asked]
    for i, (_, seconds, _) in enumerate(asked):
        assert 99 < seconds * sum(weights[i:]) / weights[i] <= 100
    for _, seconds, command in asked:
        assert command[:2] == ["bench", "--worker"] and float(command[command.index("--seconds") + 1]) < seconds


def test_dry_run_lists_the_plan(capsys):
    assert command_line.main(["--dry-run", "--batch", "16", "--only", "*f16*"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "N16 forward f16 nhwc" in " ".join(lines) and lines[-1].endswith("cells of ours, native, cudnn")
    assert all(" f16 " in line or " bf16 " in line for line in lines[:-1])


def test_without_a_device_the_reason_is_given(monkeypatch, capsys):
    monkeypatch.setattr(native, "cuda_refusal", lambda index: "there is none")
    assert command_line.main([]) == 2
    assert capsys.readouterr().err == "our CUDA kernels do not run here: there is none\n"


class FakeEvent:
    now = 0.0

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.at = FakeEvent.now

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return (end.at - self.at) * 1e3


class FakeGraph:
    """Remembers what is captured, and takes the calls' time again when it is replayed."""

    current = None

    def __init__(self):
        self.seconds = 0.0

    def replay(self):
        FakeEvent.now += self.seconds


@contextlib.contextmanager
def capture(graph, stream):
    start = FakeEvent.now
    yield
    graph.seconds, FakeEvent.now = FakeEvent.now - start, start


@pytest.fixture
def fake_cuda(monkeypatch):
    for name, value in (("Event", FakeEvent), ("CUDAGraph", FakeGraph), ("graph", capture)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


@pytest.mark.parametrize("seconds, calls", [(1e-5, 200), (5e-4, 6), (0.1, 1)])
def test_the_graph_timer_divides_by_what_it_captured(fake_cuda, seconds, calls):
    done = []

    def call(i):
        done.append(i)
        FakeEvent.now += seconds

    sample = measure.GraphTimer(CPU).prepare([lambda i=i: call(i) for i in range(6)])
    assert sample() == pytest.approx(seconds)
    warm_up = [*range(6), 0]
    assert done == warm_up + [i % 6 for i in range(calls)]


def test_captured_results_live_as_long_as_operands_do(fake_cuda):
    """Or each call of a graph would write where the last one did, into the L2 cache."""

    class Result:
        pass

    made, alive = [], []

    def call():
        alive.append(sum(result() is not None for result in made))
        FakeEvent.now += 1e-5
        made.append(weakref.ref(result := Result()))
        return result

    measure.GraphTimer(CPU).prepare([call] * 6)
    captured = alive[7:]  # after the calls that warm up
    assert captured == [min(i, 6) for i in range(200)]

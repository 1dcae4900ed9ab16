"""The benchmark of CUDA kernels, run on the CPU with a clock of the test's: its plan, its comparison, its report."""

import contextlib
import json

import pytest
import torch

from benchmarks import cuda
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


def test_the_plan_has_every_layer_once_in_each_form():
    cells = cuda.plan(read_layers(), 32)
    layers = {layer[1:-1] for layer in read_layers()}
    assert len(set(cells)) == len(cells) == len(layers) * 3 * 3 * 2
    assert {cell.layer[1:-1] for cell in cells} == layers
    beginning = {cell.layer.kernel_h for cell in cells[: len(cells) // 4]}
    assert {3, 5, 7} <= beginning


@pytest.mark.parametrize("size, cache, expected", [(10, 0, 1), (10, 10, 4), (10, 15, 6), (1000, 10, 2)])
def test_copies_reach_beyond_the_cache(size, cache, expected):
    assert cuda.copies(size, cache) == expected
    assert cache == 0 or (expected - 1) * size >= 3 * cache


@pytest.mark.parametrize("cell", cuda.plan(SMALL, 2, dtypes=("f32", "bf16")), ids=lambda cell: cell.name)
def test_a_cell_is_compared_and_timed(cell):
    row = cuda.measure(cell, CPU, 100, Clock())
    assert row["problems"] == {} and row["layer"] == cell.layer.name
    assert row["seconds"] == {"native": 1e-3, "ours": 2e-3, "cudnn": 3e-3}
    problem = cuda.OnDevice(cell, CPU)
    assert row["bytes"] == problem.bytes_read + problem.bytes_written
    assert problem.input.is_contiguous(memory_format=problem.memory_format)


def test_a_wrong_result_is_not_timed(monkeypatch):
    cell = cuda.plan(SMALL, 2)[0]
    right = cuda.call_of

    def wrong(name, problem):
        call, result = right(name, problem)
        return call, (lambda value: result(value) * 1.01) if name == "ours" else result

    monkeypatch.setattr(cuda, "call_of", wrong)
    row = cuda.measure(cell, CPU, 100, Clock())
    assert set(row["seconds"]) == {"native", "cudnn"}
    assert row["problems"]["ours"].startswith("WRONG: relative error 1.0e-02")


def test_what_raises_is_reported(monkeypatch):
    class Broken(Clock):
        def prepare(self, calls):
            raise RuntimeError("cannot be captured\nfor a reason")

    row = cuda.measure(cuda.plan(SMALL, 2)[0], CPU, 100, Broken())
    assert row["seconds"] == {} and set(row["problems"].values()) == {"RuntimeError: cannot be captured"}


def test_cudnn_is_on_for_its_contestant_alone(monkeypatch):
    seen, flags = [], torch.backends.cudnn.flags

    def watched(**options):
        seen.append((options["enabled"], options["benchmark"], options["allow_tf32"]))
        return flags(**options)

    monkeypatch.setattr(torch.backends.cudnn, "flags", watched)
    problem = cuda.OnDevice(cuda.plan(SMALL, 2)[0], CPU)
    for name in cuda.CONTESTANTS:
        cuda.call_of(name, problem)[0]()
    assert seen == [(False, False, False), (True, True, False)]


def test_the_whole_run_and_its_table():
    cells = cuda.plan(SMALL, 1, dtypes=("f32",))
    result = cuda.run(cells, CPU, 100, Clock(), 60)
    assert json.loads(json.dumps(result))["cells_left_out"] == 0 and len(result["rows"]) == len(cells)
    lines = list(cuda.table(result["rows"], result["bandwidth"]))
    assert len(lines) == 1 + 3 * 2 and lines[1].startswith("forward     f32   nchw       2  ")
    result["rows"][0]["problems"]["cudnn"] = "RuntimeError: no algorithm"
    assert list(cuda.table(result["rows"], 1.0))[-1].endswith("RuntimeError: no algorithm")


def test_no_cell_begins_after_the_time():
    cells = cuda.plan(SMALL, 1)
    assert cuda.run(cells, CPU, 100, Clock(), -1)["cells_left_out"] == len(cells)


def test_dry_run_lists_the_plan(capsys):
    assert cuda.main(["--dry-run", "--batch", "16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "N16 forward f16 nhwc" in " ".join(lines) and lines[-1].endswith("cells of ours, native, cudnn")


def test_without_a_device_the_reason_is_given(monkeypatch, capsys):
    monkeypatch.setattr(native, "cuda_refusal", lambda index: "there is none")
    assert cuda.main([]) == 2
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


@pytest.mark.parametrize("seconds, calls", [(1e-5, 200), (5e-4, 6), (0.1, 1)])
def test_the_graph_timer_divides_by_what_it_captured(monkeypatch, seconds, calls):
    for name, value in (("Event", FakeEvent), ("CUDAGraph", FakeGraph), ("graph", capture)):
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    done = []

    def call(i):
        done.append(i)
        FakeEvent.now += seconds

    sample = cuda.GraphTimer(CPU).prepare([lambda i=i: call(i) for i in range(6)])
    assert sample() == pytest.approx(seconds)
    warm_up = [*range(6), 0]
    assert done == warm_up + [i % 6 for i in range(calls)]

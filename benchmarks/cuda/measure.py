"""One cell: operands on the device, the contestants' calls, their comparison and their times."""

import contextlib
import math
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dwconv import explain
from torch_dwconv.bench.contestants import eager, ours
from torch_dwconv.bench.problem import Cell, Problem
from torch_dwconv.operators.schemas import BACKWARD

# Of ||result - native's|| / ||native's||: both round, and sum in another order.
TOLERANCE = {"f64": 1e-10, "f32": 1e-4, "f16": 4e-3, "bf16": 3e-2}
SAMPLES = 5
SAMPLE_SECONDS = 2e-3
MAX_CALLS = 200  # in one graph


@dataclass
class OnDevice(Problem):
    """A Problem whose tensors are made on a device."""

    device: torch.device

    def __post_init__(self):
        self.input, self.weight, self.grad_output = (
            torch.randn(size, device=self.device).to(self.dtype, memory_format=self.memory_format)
            for size in self.sizes
        )

    @property
    def operands(self) -> tuple[Tensor, ...]:
        if self.cell.operation == "backward":
            return self.grad_output, self.input, self.weight
        return super().operands

    @property
    def bytes_written(self) -> int:
        if self.cell.operation == "backward":
            return self.input.nbytes + self.weight.nbytes
        return super().bytes_written

    @property
    def kernel(self) -> str:
        """What `explain` says that ours runs."""
        found = explain(self.input, self.weight, None, self.stride, self.padding, self.dilation)
        if found.fallback is not None:
            return f"F.conv2d: {found.fallback}"
        if self.cell.operation != "backward":
            return found.choices[self.cell.operation].kernel
        both = (found.choices[name].kernel for name in ("grad_input", "grad_weight"))
        return found.both_gradients or " and ".join(both)


def copies(bytes_of_one: int, cache_bytes: int) -> int:
    """So many sets of operands that what is between two uses of one is three times the cache."""
    return max(1, math.ceil(3 * cache_bytes / bytes_of_one) + 1)


def cudnn(enabled: bool) -> contextlib.AbstractContextManager:
    return torch.backends.cudnn.flags(enabled=enabled, benchmark=enabled, deterministic=False, allow_tf32=False)


def uses_cudnn(problem: Problem) -> bool:
    """Whether PyTorch would call cuDNN by itself: its own kernel runs under both settings where it would not."""
    options = problem.stride, problem.padding, problem.dilation, False, (0, 0), problem.groups
    chosen = torch._C._select_conv_backend(problem.input, problem.weight, None, *options)
    return chosen == torch._C._ConvBackend.Cudnn  # type: ignore[attr-defined]  # the stub has another name


def call_of(name: str, problem: Problem) -> tuple[Callable[[], object], Callable[[object], Sequence[Tensor]]]:
    """What a contestant does with a problem, and the results in what that returns."""
    call, results = _both_gradients(name, problem) if problem.cell.operation == "backward" else _one(name, problem)
    if name == "ours":
        return call, results

    def with_its_setting():
        with cudnn(name == "cudnn"):
            return call()

    return with_its_setting, results


def _one(name: str, problem: Problem):
    run = (ours if name == "ours" else eager).runs(problem)["fresh"]
    return run.call, lambda value: [run.tensor(value)]


def _both_gradients(name: str, problem: Problem):
    operands = problem.operands
    if name == "ours":
        geometry = (*problem.stride, *problem.padding, *problem.dilation)
        last = problem.memory_format == torch.channels_last
        return lambda: BACKWARD(*operands, *geometry, False, last, last), lambda values: values[:2]
    options = problem.stride, problem.padding, problem.dilation, False, (0, 0), problem.groups, [True, True, False]
    backward = torch.ops.aten.convolution_backward.default
    return lambda: backward(*operands, None, *options), lambda values: values[:2]


class GraphTimer:
    """Times calls by CUDA events round the replay of a graph of them."""

    def __init__(self, device: torch.device):
        self.stream = torch.cuda.Stream(device)

    def prepare(self, calls: Sequence[Callable[[], object]]) -> Callable[[], float]:
        """Seconds a call, each time that what is returned is called.

        As many results are kept as there are calls, or the graph's pool would hand the same block out to each call, and
        what it writes would stay in the L2 cache.
        """
        torch.cuda.synchronize()  # the operands are made on another stream
        with torch.cuda.stream(self.stream):
            for call in calls:  # cuDNN chooses, lazily loaded kernels are loaded
                call()
            once = self._seconds(calls[0])
        count = min(MAX_CALLS, max(len(calls), math.ceil(SAMPLE_SECONDS / max(once, 1e-6))))
        if once > SAMPLE_SECONDS:
            count = 1
        graph, kept = torch.cuda.CUDAGraph(), deque[object](maxlen=len(calls))
        with torch.cuda.graph(graph, stream=self.stream):
            for i in range(count):
                kept.append(calls[i % len(calls)]())
        graph.replay()
        torch.cuda.synchronize()
        return lambda: self._seconds(graph.replay) / count

    @staticmethod
    def _seconds(call: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def relative_error(values: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest ||value - expected|| / ||expected||."""
    errors = [(v.float() - e.float()).norm() / e.float().norm() for v, e in zip(values, expected, strict=True)]
    return torch.stack(errors).max().item()


def alive() -> bool:
    """Whether the device still answers: after a fault each call in this process fails."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    return True


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def measure(cell: Cell, device: torch.device, cache_bytes: int, timer) -> dict:
    """One row of the result: seconds by contestant, or what was wrong with it."""
    row: dict = {**cell._asdict(), "layer": cell.layer.name, "seconds": {}, "problems": {}}
    samples: dict[str, Callable[[], float]] = {}
    times: dict[str, list[float]] = {}
    at = "operands"  # out of memory, a launch that fails, a graph that cannot be captured
    try:
        first = OnDevice(cell, device)
        row["kernel"], row["bytes"] = first.kernel, first.bytes_read + first.bytes_written
        problems = [first, *(OnDevice(cell, device) for _ in range(copies(row["bytes"], cache_bytes) - 1))]
        row["copies"] = len(problems)
        expected = None
        for name in ("native", "ours", "cudnn") if uses_cudnn(first) else ("native", "ours"):
            at = name
            try:
                calls = [call_of(name, problem) for problem in problems]
                call, results = calls[0]
                values = results(call())
                expected = values if expected is None else expected
                distance = relative_error(values, expected)
                if not distance <= TOLERANCE[cell.dtype]:
                    row["problems"][name] = f"WRONG: relative error {distance:.1e} to native"
                    continue
                samples[name] = timer.prepare([call for call, _ in calls])
                times[name] = []
            except RuntimeError as error:
                row["problems"][name] = in_a_line(error)
        for _ in range(SAMPLES):
            for at, sample in samples.items():
                times[at].append(sample())
    except RuntimeError as error:
        row["problems"][at] = in_a_line(error)
    row["seconds"] = {name: statistics.median(values) for name, values in times.items() if values}
    return row


def copy_bandwidth(device: torch.device, cache_bytes: int, timer) -> float:
    """Bytes a second of a copy, those read and those written."""
    size = max(8 * cache_bytes, 1 << 24)
    source, target = (torch.empty(size, dtype=torch.uint8, device=device).fill_(1) for _ in range(2))
    sample = timer.prepare([lambda: target.copy_(source)])
    return 2 * size / statistics.median(sample() for _ in range(SAMPLES))

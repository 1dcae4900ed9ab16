"""One cell: build the problem, check every contestant's numbers, then time all in turns."""

import copy
import math
from collections.abc import Mapping
from types import ModuleType

import torch

from . import limit
from .contestants import MODES, Refused, eager
from .problem import Cell, Problem
from .timing import Options, Run, Timing, threads, time_in_turns

# What ||theirs - ours|| / ||ours|| may be: several times the error of accumulation in float32 (grad_weight adds up to
# 10^5 products) and float64, a few roundings in bf16, and in f16 sums that are not kept in float32, as some of
# PyTorch's are not. A contestant beyond it computes something else.
TOLERANCE = {"f32": 1e-4, "f64": 1e-11, "bf16": 2e-2, "f16": 2e-2}


def measure(cell: Cell, contestants: Mapping[str, ModuleType], options: Options) -> dict:
    """Times one cell and returns its record, plain data for JSON.

    `contestants` begins with "ours". The record has `times` {contestant: {mode: Timing's fields}}, `refused`
    {contestant: reason} and `limit`; times are in seconds for one call.
    """
    with threads(cell.threads), torch.no_grad():
        return _measure(cell, contestants, options)


def _measure(cell: Cell, contestants: Mapping[str, ModuleType], options: Options) -> dict:
    problem = Problem(cell)
    runs, results, refused = _prepare(problem, contestants)
    wrong = _disagreements(problem, results)
    if "ours" in wrong:
        raise AssertionError(f"{cell.name}: {wrong['ours']}")
    refused |= wrong
    runs = {key: run for key, run in runs.items() if key[0] not in refused}
    probes = {("stream", name): run for name, run in limit.stream_runs(problem).items()}
    probes["fma", ""] = limit.fma_run(problem.dtype, cell.threads)
    timings = time_in_turns(runs | probes, options, cell.threads)
    times: dict[str, dict[str, dict]] = {name: {} for name in contestants if name not in refused}
    for name, mode in runs:
        times[name][mode] = timings[name, mode]._asdict() | {"note": runs[name, mode].note}
    return {
        "layer": cell.layer._asdict(),
        "name": cell.layer.name,
        "batch": cell.batch,
        "operation": cell.operation,
        "dtype": cell.dtype,
        "layout": cell.layout,
        "threads": cell.threads,
        "times": times,
        "refused": refused,
        "limit": _limit(problem, timings),
    }


def _prepare(problem: Problem, contestants: Mapping[str, ModuleType]) -> tuple[dict, dict, dict[str, str]]:
    """Runs and float64 results by (contestant, mode), modes together; and why a contestant has none."""
    offers: dict[str, dict[str, Run]] = {}
    results: dict[tuple[str, str], torch.Tensor] = {}
    refused: dict[str, str] = {}
    for name, contestant in contestants.items():
        try:
            offered = contestant.runs(problem)
            results |= {(name, mode): run.tensor(run.call()).double() for mode, run in offered.items()}
        except Refused as reason:
            refused[name] = str(reason)
        except Exception as error:  # somebody else's: it must not end a long run
            if name == "ours":
                raise
            refused[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
        else:
            offers[name] = offered
    runs = {(name, mode): offered[mode] for mode in MODES for name, offered in offers.items() if mode in offered}
    return runs, results, refused


def _disagreements(problem: Problem, results: Mapping[tuple[str, str], torch.Tensor]) -> dict[str, str]:
    """The contestants whose result is not ours within the dtype's tolerance, and by how much.

    Ours stands among them if its own modes differ, or if nobody agrees with it and F.conv2d in float64 neither.
    """
    tolerance = TOLERANCE[problem.cell.dtype]
    ours = results["ours", "fresh"]
    errors: dict[str, float] = {}
    for (name, _), result in results.items():
        errors[name] = max(errors.get(name, 0.0), _difference(result, ours))
    wrong = {name: _reason(error) for name, error in errors.items() if error > tolerance}
    if len(errors) > 1 and len(wrong) == len(errors) - 1:
        error = _difference(ours, _exact(problem))
        if error > tolerance:
            wrong["ours"] = _reason(error)
    return wrong


def _difference(result: torch.Tensor, right: torch.Tensor) -> float:
    """||result - right|| / ||right||; infinite for NaN and for another size."""
    if result.shape != right.shape:
        return math.inf
    error = ((result - right).norm() / right.norm()).item()
    return math.inf if math.isnan(error) else error


def _reason(error: float) -> str:
    return f"other numbers (relative norm of the difference {error:.0e})"


def _exact(problem: Problem) -> torch.Tensor:
    """PyTorch's result in float64."""
    exact = copy.copy(problem)
    exact.input, exact.weight, exact.grad_output = (
        tensor.double() for tensor in (problem.input, problem.weight, problem.grad_output)
    )
    run = eager.runs(exact)["fresh"]
    return run.tensor(run.call())


def _limit(problem: Problem, timings: Mapping[tuple[str, str], Timing]) -> dict:
    stream_seconds, method = min((timings["stream", name].median, name) for name in limit.STREAMS)
    peak = limit.fma_peak(problem.dtype, problem.cell.threads, timings["fma", ""])
    return {
        "seconds": max(stream_seconds, problem.flops / peak),
        "bound": "bytes" if stream_seconds >= problem.flops / peak else "flops",
        "stream_seconds": stream_seconds,
        "stream_method": method,
        "bytes_read": problem.bytes_read,
        "bytes_written": problem.bytes_written,
        "flops": problem.flops,
        "fma_flops_per_second": peak,
    }

"""What ``python -m benchmarks`` may be asked for: all of the package's benchmark, and what is only here."""

from torch_dwconv.bench.suite import Extra, Suite

from . import goals, overhead
from .contestants import CONTESTANTS
from .forms import FORMS
from .presets import PRESETS

SUITE = Suite(
    "python -m benchmarks",
    """examples:
  python -m benchmarks --layer 1,96,56,56,7,1 --operations forward --against torch,onednn
  python -m benchmarks --model mobilenet_v2 --forms converted,fused,frozen-fused,onnxruntime
  python -m benchmarks --overhead                                what a call costs beside its arithmetic
  python -m benchmarks --preset published --output runs/published    every kind of figure: about 15 minutes
  python -m benchmarks --preset smoke                            a little of everything, in seconds
docs/benchmark.md says how to read the result. `python -m benchmarks.cuda` times the CUDA kernels.""",
    CONTESTANTS,
    FORMS,
    PRESETS,
    {"overhead": Extra("a tiny call: what it costs beside its arithmetic", overhead.measure, overhead.table)},
    goals.table,
)

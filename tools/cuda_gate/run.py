"""A line of the CUDA registry run as the machine code that nvcc made of it, on a CPU (sass/machine.py)."""

import functools
import subprocess
from dataclasses import dataclass

import numpy as np
import torch

from tests.cuda.build import WORK, extension
from tests.cuda.harness import CudaKernel, all_kernels
from tests.kernels.harness import DTYPES, OPERANDS
from tests.kernels.oracle import Problem
from tests.kernels.shapes import Shape
from tools.cuda_gate.compile import demangled
from tools.cuda_gate.sass.machine import WARP, Launch, Machine
from tools.cuda_gate.sass.replay import Replay
from tools.cuda_gate.sass.text import Instruction, parse


@dataclass
class Ran:
    """One launch: its kernel's name, its machine after it has run, and the share of the grid that it was."""

    kernel: str
    machine: Machine
    share: float
    threads: int
    shared_bytes: int
    blocks: int
    replay: Replay

    @property
    def issued(self) -> float:
        """Instructions of all warps of the whole launch, times the lanes of a warp."""
        return float(self.machine.issued.sum()) * WARP / self.share


@functools.cache
def kernel_names() -> dict[int, str]:
    """Names of the emulated kernels by their place in the library."""
    library = WORK / "plain" / "cuda_extension.so"
    symbols = subprocess.run(["nm", str(library)], stdout=subprocess.PIPE, text=True, check=True).stdout
    places = {}
    for line in symbols.splitlines():
        place, kind, name = line.rpartition(" ")[0].partition(" ")[0], line.split()[-2], line.split()[-1]
        if kind in "tTwW" and "dwconv4cuda" in name:
            places[int(place, 16)] = name
    names = demangled(list(places.values()))
    return {place: names[name] for place, name in places.items()}


@functools.cache
def parsed(text: str) -> tuple[list[Instruction], dict[str, int]]:
    return parse(text)


class Operation:
    """A registry line with buffers for one shape: ``run`` gives its launches to the machine code.

    Without a problem the operands are zeros, which is enough to count.
    """

    def __init__(self, kernel: CudaKernel, shape: Shape, problem: Problem | None = None) -> None:
        self.kernel, self.shape, self.problem = kernel, shape, problem
        kernel = kernel.kernel
        dtype = DTYPES[kernel.dtype]
        operands = problem.operands(kernel.dtype, kernel.layout) if problem else zeros(shape, dtype, kernel.layout)
        self.buffers = {name: aligned(operands[name]) for name in OPERANDS[kernel.operation]}
        self.results = {
            name: aligned(torch.full(size, torch.nan, dtype=dtype))
            for name, size in shape.results(kernel.operation, kernel.layout, True).items()
        }
        from tests.kernels.harness import extension as cpu_extension

        workspace = cpu_extension().workspace_bytes(kernel.address, shape)
        self.buffers |= self.results
        if workspace:
            self.buffers["workspace"] = aligned(torch.full((workspace,), 0xFF, dtype=torch.uint8))

    def launches(self) -> list[tuple[str, Launch]]:
        """Kernel and launch, in their order."""
        addresses = {name: tensor.data_ptr() for name, tensor in self.buffers.items()}
        memory = [
            (tensor.data_ptr(), tensor.view(-1).view(torch.uint8).numpy())
            for tensor in self.buffers.values()
            if tensor.numel()
        ]
        recorded = extension().recorded(all_kernels().index(self.kernel), self.shape, addresses, 0)
        return [
            (kernel_names()[place], Launch(grid, block, shared, parameters, memory))
            for place, grid, block, shared, parameters in recorded
        ]

    def run(
        self,
        texts: dict[str, str],
        capability: int,
        most_blocks: int | None = None,
    ) -> list[Ran]:
        """Every launch, or of each as many blocks as ``most_blocks``, evenly spread."""
        all_ran = []
        for name, launch in self.launches():
            total = int(np.prod(launch.grid))
            blocks = np.arange(total)
            if most_blocks and total > most_blocks:
                blocks = np.unique(np.linspace(0, total - 1, most_blocks).astype(np.int64))
            threads = int(np.prod(launch.block))
            replay = Replay(-(-threads // WARP) * WARP)
            machine = Machine(*parsed(texts[name]), launch, blocks, capability, replay.add)
            machine.run()
            all_ran.append(Ran(name, machine, len(blocks) / total, threads, launch.shared_bytes, total, replay))
        return all_ran

    def wrong(self) -> str | None:
        """After all launches ran whole: which result is not the definition's, if any."""
        expected = self.problem.expected(self.kernel.kernel)
        for name, tensor in self.results.items():
            if not torch.equal(tensor.double(), expected[name].to(tensor.dtype).double().reshape(tensor.shape)):
                return name
        return None


def zeros(shape: Shape, dtype: torch.dtype, layout: str) -> dict[str, torch.Tensor]:
    sizes = {
        "input": shape.image(shape.C, shape.H, shape.W, layout),
        "weight": (shape.out_channels, shape.KH, shape.KW),
        "bias": (shape.out_channels,),
        "grad_output": shape.image(shape.out_channels, shape.OH, shape.OW, layout),
    }
    return {name: torch.zeros(size, dtype=dtype) for name, size in sizes.items()}


def aligned(tensor: torch.Tensor) -> torch.Tensor:
    """A copy at an address as PyTorch's allocator for CUDA gives them: a multiple of 512."""
    memory = torch.empty(tensor.numel() * tensor.itemsize + 512, dtype=torch.uint8)
    offset = -memory.data_ptr() % 512
    copy = memory[offset : offset + tensor.numel() * tensor.itemsize].view(tensor.dtype).view(tensor.shape)
    copy.copy_(tensor)
    return copy

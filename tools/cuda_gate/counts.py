"""Executed instructions for each output: the machine code of what the dispatch table chooses for a real layer, run on a
CPU by sass/machine.py, beside a plain kernel of one thread for each output.

A layer is written ``forward nchw f32 n8 c144 56x56 k3 s1``. Every instruction that a warp issues counts for its 32
lanes, whether their predicates let them take part or not, prologue and idle lanes included.
"""

import re
import struct
from typing import NamedTuple

import numpy as np

from tests.cuda.build import extension
from tests.cuda.harness import CudaKernel, all_kernels
from tests.kernels.harness import DTYPES
from tests.kernels.shapes import Shape, full
from tools.cuda_gate.compile import multiply_adds
from tools.cuda_gate.run import Operation, Ran, aligned, zeros
from tools.cuda_gate.sass.machine import Launch, Machine
from tools.cuda_gate.sass.replay import SECTOR, Replay
from tools.cuda_gate.sass.text import parse

MOST_BLOCKS = 24
OPERATIONS = ("forward", "grad_input", "grad_weight", "backward")
DTYPE_NAMES, LAYOUTS = ("f32", "f64", "bf16", "f16"), ("nchw", "nhwc")


class Layer(NamedTuple):
    operation: str
    layout: str
    dtype: str
    shape: Shape

    @property
    def outputs(self) -> int:
        """Results of forward, grad_input and backward; of grad_weight the elements of the output's gradient."""
        s = self.shape
        return s.N * s.C * (s.H * s.W if self.operation in ("grad_input", "backward") else s.OH * s.OW)


def layer(text: str) -> Layer:
    """A layer as it is written in budgets.txt.

    Raises:
        ValueError: it is not written so.
    """
    form = re.fullmatch(r"(\w+) (\w+) (\w+) n(\d+) c(\d+) (\d+)x(\d+) k(\d+) s(\d+)", text)
    if not form or form[1] not in OPERATIONS or form[2] not in LAYOUTS or form[3] not in DTYPE_NAMES:
        raise ValueError(f"not a layer as 'forward nchw f32 n8 c144 56x56 k3 s1': {text}")
    n, c, h, w, k, s = map(int, form.groups()[3:])
    out = [full(size, k, s, 1, k // 2, k // 2) for size in (h, w)]
    return Layer(*form.groups()[:3], Shape(n, c, 1, h, w, k, k, *out, s, s, pad_top=k // 2, pad_left=k // 2))


def loop_share(machine: Machine) -> float:
    """Of what was issued, the share of the loop with the most multiply-adds for its instructions."""
    adds = np.array([multiply_adds(i.opcode) for i in machine.instructions]) * machine.issued
    loops = []
    for at, i in enumerate(machine.instructions):
        target = machine.labels.get(i.operands[-1].text, at + 1) if i.opcode == "BRA" and i.operands else at + 1
        if target < at and machine.issued[target : at + 1].sum():
            loops.append((target, at + 1))
    if not loops:
        return 1.0
    first, end = max(loops, key=lambda r: (adds[r[0] : r[1]].sum() / machine.issued[r[0] : r[1]].sum(), r[0] - r[1]))
    return float(machine.issued[first:end].sum() / machine.issued.sum())


class Counts(NamedTuple):
    kernels: tuple[str, ...]
    instructions: float  # for each output
    loop: float
    read: float  # bytes from memory, as sass/replay.py counts them, for each that must be read
    written: float  # the same of stores; what grad_weight keeps between its launches counts as well
    share: float  # of the instructions of the kernels that it stands for: of backward, those for the two gradients
    ran: list[Ran]


def chosen(layer: Layer, capability: int) -> CudaKernel:
    """The line of the registry that such a device gets."""
    place = [OPERATIONS.index(layer.operation), DTYPE_NAMES.index(layer.dtype), LAYOUTS.index(layer.layout)]
    name = extension().selected(*place, layer.shape, 0, capability)
    return next(kernel for kernel in all_kernels() if kernel.kernel.name == name)


def compulsory(layer: Layer) -> tuple[int, int]:
    """Bytes of what is read and of what is written."""
    s, size = layer.shape, DTYPES[layer.dtype].itemsize
    x, y, w = s.N * s.C * s.H * s.W, s.N * s.C * s.OH * s.OW, s.C * s.KH * s.KW
    read, written = {
        "forward": (x + w, y),
        "grad_input": (y + w, x),
        "grad_weight": (x + y, w),
        "backward": (x + y + w, x + w),
    }[layer.operation]
    return size * read, size * written


def counts(layer: Layer, texts: dict[str, str], capability: int) -> Counts:
    """Of all launches of a call."""
    ran = Operation(chosen(layer, capability), layer.shape).run(texts, capability, MOST_BLOCKS)
    main = max(ran, key=lambda r: r.issued)
    total = sum(r.issued for r in ran) / layer.outputs
    must_read, must_write = compulsory(layer)
    read = sum(r.replay.read * SECTOR / r.share for r in ran) / must_read
    written = sum(r.replay.written * SECTOR / r.share for r in ran) / must_write
    loop = main.issued * loop_share(main.machine) / layer.outputs
    share = 1.0
    if layer.operation == "backward":
        alone = [layer._replace(operation=operation) for operation in ("grad_input", "grad_weight")]
        share = total / sum(counts(one, texts, capability).instructions for one in alone)
    return Counts(tuple(r.kernel for r in ran), total, loop, read, written, share, ran)


def plain_counts(layer: Layer, texts: dict[str, str], capability: int) -> Ran:
    """The kernel of plain.cu that does the same the plain way."""
    s, k = layer.shape, layer.shape.KH
    given = zeros(s, DTYPES[layer.dtype], layer.layout)
    gradient = layer.operation == "grad_weight"
    first, second = (given["input"], given["grad_output"]) if gradient else (given["input"], given["weight"])
    result = given["weight"] if gradient else given["grad_output"]
    tensors = [aligned(t) for t in (first, second, result)]
    count = s.N if gradient else s.N * s.C * s.OH * s.OW
    numbers = [count, s.C, s.OH, s.OW, s.H, s.W, s.pad_top, s.stride_h]
    parameters = struct.pack("<3Q8i", *(t.data_ptr() for t in tensors), *numbers)
    threads = 32 * min(s.N, 4) if gradient else 256
    grid = (s.C * k * k if gradient else -(-count // threads), 1, 1)
    memory = [(t.data_ptr(), t.view(-1).numpy().view(np.uint8)) for t in tensors]
    launch = Launch(grid, (threads, 1, 1), 4 * threads if gradient else 0, parameters, memory)
    kind = {"f32": "float", "f16": "__half", "bf16": "__nv_bfloat16"}[layer.dtype]
    nhwc = "_nhwc" if layer.layout == "nhwc" else ""
    name = f"one_block_per_tap<{kind}, {k}>" if gradient else f"one_thread_per_output{nhwc}<{kind}, {k}>"
    blocks = np.unique(np.linspace(0, grid[0] - 1, min(grid[0], MOST_BLOCKS)).astype(np.int64))
    replay = Replay(threads)
    machine = Machine(*parse(texts[name]), launch, blocks, capability, replay.add)
    machine.run()
    return Ran(name, machine, len(blocks) / grid[0], threads, launch.shared_bytes, grid[0], replay)

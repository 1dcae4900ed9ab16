"""Operands may begin at any element: every kernel, with each operand and result moved on by every number of elements.

The emulator ends a launch at the first access that is not aligned to its width, as a device does. How wide accesses are
is asked too, so that no kernel passes because it reads nothing wide.
"""

import fnmatch
import functools
import re

import pytest
import torch

from tests.cuda.build import ROOT, extension
from tests.cuda.harness import CudaKernel, all_kernels, set_order
from tests.kernels.harness import ACTIVATIONS, DTYPES, OPERANDS
from tests.kernels.harness import extension as contract
from tests.kernels.oracle import Problem
from tests.kernels.shapes import Shape

WIDEST = 16  # bytes of an access
MARGIN = 64  # elements before and after a buffer


def square(n: int, c: int, h: int, w: int, k: int, s: int) -> Shape:
    return Shape(n, c, 1, h, w, k, k, -(-h // s), -(-w // s), s, s, pad_top=k // 2, pad_left=k // 2)


# Bytes of the widest access to what a kernel reads and writes; what has no name here is taken by elements. Of the
# patterns that fit a kernel's name the first counts.
WIDE = {
    "*_window_cuda": {},
    "*_tiles_cuda": {},
    "*_toeplitz_cuda": {},
    "*_planes_*": {"input": 16, "grad_output": 16, "weight": 16, "result": 16},
    "grad_weight_nchw_*16_stream_k?s1_cuda": {"input": 8, "grad_output": 8},
    "grad_weight_nchw_*16_stream_k?s2_cuda": {"input": 16, "grad_output": 8},
    "grad_weight_nhwc_f32_stream_k3*": {"input": 16, "grad_output": 16},
    "grad_weight_nhwc_f32_*": {"input": 8, "grad_output": 8},
    "grad_weight_nhwc_*_stream_k3*": {"input": 8, "grad_output": 8},
    "grad_weight_nhwc_*": {"input": 4, "grad_output": 4},
    "grad_weight_*": {"input": 16, "grad_output": 16},
    "grad_input_nchw_*_stream_k?s2_cuda": {"grad_output": 8, "result": 16},
    "forward_nchw_*16_stream_k[57]s2_cuda": {"input": 16, "result": 8},
    "backward_nchw_*16_*": {"input": 8, "grad_output": 8, "result": 8},
    "*_nhwc_f32_stream_k[57]*": {"input": 8, "grad_output": 8, "result": 8},
    "*_nhwc_*16_stream_k3*": {"input": 8, "grad_output": 8, "result": 8},
    "*_nhwc_*16_*": {"input": 4, "grad_output": 4, "result": 4},
    "*": {"input": 16, "grad_output": 16, "result": 16},
}
# The same where rows are whole vectors of 8 bytes and not of 16.
HALF = {
    "*_nchw_f32_stream_k7s1_cuda": {},
    "grad_weight_nchw_*16_stream_k?s1_cuda": {"input": 8, "grad_output": 8},
    "grad_weight_nchw_*16_stream_k?s2_cuda": {"input": 16, "grad_output": 8},
    "grad_weight_*": {},
    "backward_nchw_f32_*": {},
    "forward_nchw_*16_stream_k[57]s2_cuda": {"input": 16, "result": 8},
    "*_stream_k?s2_cuda": {},
    "*": {"input": 8, "grad_output": 8, "result": 8},
}


def cases(kernel: CudaKernel) -> list[tuple[Shape, dict[str, dict[str, int]]]]:
    """Small shapes that reach every width of the kernel's accesses, and the table that says which."""
    _, operation, dtype, layout, *_ = kernel.kernel
    kind = re.fullmatch(rf"{operation}_{layout}_{dtype}_(.*)_cuda", kernel.kernel.name).group(1)
    if kind == "window":
        return [(Shape(2, 3, 2, 5, 7, 2, 3, 4, 7, pad_left=1), WIDE), (square(1, 4, 6, 8, 3, 2), WIDE)]
    if kind == "tiles":
        few, many = Shape(1, 2, 1, 5, 17, 3, 4, 5, 17, pad_left=1), Shape(1, 2, 1, 18, 9, 16, 3, 5, 9, pad_left=1)
        return [(few, WIDE), (many, WIDE)]
    if kind == "toeplitz":
        return [(Shape(1, 2, 1, 3, 17, 3, 9, 3, 17, pad_top=1, pad_left=4), WIDE)]
    form, k, s = re.fullmatch(r"(\w+)_k(\d)s(\d)", kind).groups()
    k, s = int(k), int(s)
    if form == "planes":
        return [(square(2, 33 if side == 7 else 17, side * s, side * s, k, s), WIDE) for side in (7, 14)[: 3 - s]]
    if form == "runs":
        return [(square(2, 33, 7 * s, 7 * s, k, s), WIDE)]
    if layout == "nhwc":
        return [(square(2, 8, 3, 5, k, s), WIDE)]
    across = s if operation != "grad_input" else 1
    return [
        (square(2, 3, 3, 16 * across, k, s), WIDE),
        (square(2, 3, 3, (6 if dtype == "f32" else 12) * across, k, s), HALF),
    ]


class Memory:
    """A buffer among NaN, that begins ``offset`` elements behind a multiple of 256 bytes."""

    def __init__(self, values: torch.Tensor, offset: int) -> None:
        before = MARGIN * 4 // values.element_size()
        size = values.numel() + 2 * before + 256 // values.element_size()
        self.all = torch.full((size,), torch.nan, dtype=values.dtype)
        self.first = before + -self.all.data_ptr() % 256 // values.element_size() + offset
        self.values = self.all[self.first : self.first + values.numel()].view(values.shape)
        self.values.copy_(values)

    @property
    def place(self) -> tuple[int, int]:
        return self.values.data_ptr(), self.values.numel() * self.values.element_size()

    def margins_are_whole(self) -> bool:
        after = self.all[self.first + self.values.numel() :]
        return bool(self.all[: self.first].isnan().all() and after.isnan().all())


class Launcher:
    """A kernel on a shape, with integers as operands."""

    def __init__(self, index: int, shape: Shape) -> None:
        self.index, self.shape = index, shape
        self.kernel = all_kernels()[index].kernel
        assert self.kernel.refusal(shape) is None
        problem, kernel = problem_of(shape), self.kernel
        operands = problem.operands(kernel.dtype, kernel.layout)
        self.operands = {name: operands[name] for name in OPERANDS[kernel.operation]}
        self.expected = problem.expected(kernel)
        self.buffers = (*self.operands, *self.expected)
        self.workspace = torch.empty(contract().workspace_bytes(kernel.address, shape) + 256, dtype=torch.uint8)

    def memory(self, offsets: dict[str, int]) -> dict[str, Memory]:
        dtype = DTYPES[self.kernel.dtype]
        results = {name: torch.full_like(value, torch.nan, dtype=dtype) for name, value in self.expected.items()}
        return {name: Memory(value, offsets.get(name, 0)) for name, value in (self.operands | results).items()}

    def _addresses(self, memory: dict[str, Memory]) -> dict[str, tuple[int, int]]:
        workspace = self.workspace.data_ptr() + -self.workspace.data_ptr() % 256
        return {name: each.place for name, each in memory.items()} | {"workspace": (workspace, 0)}

    def widths(self) -> dict[str, int]:
        """The bytes of the widest access to each buffer, all of which are aligned to 256 bytes."""
        return extension().widths(self.index, self.shape, self._addresses(self.memory({})))

    def wrong(self, offsets: dict[str, int]) -> str | None:
        """What goes wrong with buffers that begin so many elements behind a multiple of 256 bytes."""
        memory = self.memory(offsets)
        addresses = {name: address for name, (address, _) in self._addresses(memory).items()}
        if error := extension().launch(self.index, self.shape, addresses, ACTIVATIONS.index("none")):
            return error
        for name, expected in self.expected.items():
            got, right = (values.double().numpy().ravel() for values in (memory[name].values, expected))
            if error := contract().exact_difference(got, right, getattr(contract().DType, self.kernel.dtype)):
                return f"{name}: {error}"
        return next((f"{name}: written beside" for name, each in memory.items() if not each.margins_are_whole()), None)


@functools.cache
def problem_of(shape: Shape) -> Problem:
    return Problem(shape, "integers")


INDICES = range(len(all_kernels()))
NAMES = [kernel.kernel.name for kernel in all_kernels()]


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_torch_thread):
    set_order("ascending")


@pytest.mark.parametrize("index", INDICES, ids=NAMES)
def test_wide_accesses_are_reached(index):
    for shape, table in cases(all_kernels()[index]):
        launcher = Launcher(index, shape)
        widths, element = launcher.widths(), DTYPES[launcher.kernel.dtype].itemsize
        expected = next(row for pattern, row in table.items() if fnmatch.fnmatch(NAMES[index], pattern))
        assert {name: max(widths[name], element) for name in launcher.buffers} == {
            name: expected.get(name, element) for name in launcher.buffers
        }, shape


@pytest.mark.parametrize("index", INDICES, ids=NAMES)
def test_every_offset_of_every_operand(index):
    """Of one at a time, and of all together."""
    wrong = []
    for shape, _ in cases(all_kernels()[index]):
        launcher = Launcher(index, shape)
        for offset in range(WIDEST // DTYPES[launcher.kernel.dtype].itemsize):
            for moved in [*((name,) for name in launcher.buffers), launcher.buffers] if offset else [()]:
                if error := launcher.wrong(dict.fromkeys(moved, offset)):
                    wrong.append(f"{', '.join(moved)} by {offset} elements: {error}, {shape}")
    assert not wrong, "\n".join(wrong[:20])


CAST = re.compile(r"reinterpret_cast<[^;]*?\*>")
# The casts of pointers that may stand in bodies: to elements, or of what is in registers.
ALLOWED = {
    "device/device.cuh": ["reinterpret_cast<T*>", "reinterpret_cast<Word*>"],  # shared memory, and aligned() itself
    "device/address.cuh": ["reinterpret_cast<T*>"],
    "device/mma.cuh": ["reinterpret_cast<const unsigned*>"],  # the host's ldmatrix, which checks
    "nhwc/lanes.cuh": ["reinterpret_cast<const unsigned*>"],  # of a vector
    "large/toeplitz.cuh": ["reinterpret_cast<T*>", "reinterpret_cast<T*>", "reinterpret_cast<float*>"],
    "small/runs.cuh": ["reinterpret_cast<T*>", "reinterpret_cast<float*>"],
}


def test_vectors_are_made_by_what_checks_them():
    """The emulator sees only what goes through aligned() and the intrinsics."""
    for path in sorted((ROOT / "csrc/cuda").rglob("*.cuh")):
        name = str(path.relative_to(ROOT / "csrc/cuda"))
        assert CAST.findall(path.read_text()) == ALLOWED.get(name, []), name

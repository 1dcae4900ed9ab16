"""Runs NVIDIA's machine code on a CPU: what nvcc made of a kernel, on real memory, for some blocks of a launch.

All lanes of the blocks advance together as arrays. Those at the lowest address go first, so that what has diverged
meets again as it does on the device. What is found: the results, how often a warp issued each instruction, the
addresses of every access to global memory, and an error where it touches memory that it was not given. Instructions
that are not known here are an error.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tools.cuda_gate.sass.text import Instruction, Operand

WARP = 32
STACK = 1 << 12
SHARED_BASE = 1 << 10
# From which capability on constant bank 0 has the block's and the grid's size, the stack's and the parameters where.
CONSTANTS = {75: (0x0, 0xC, 0x28, 0x160), 90: (0x0, 0xC, 0x28, 0x210), 100: (0x360, 0x370, 0x37C, 0x380)}


@dataclass
class Launch:
    """What the host asked for; ``parameters`` are the bytes of the kernel's."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    parameters: bytes
    memory: list[tuple[int, np.ndarray]]  # address and bytes of what may be touched


@dataclass
class Access:
    """A load or store of global memory by all lanes that stand at one instruction."""

    instruction: int
    store: bool
    width: int  # bytes
    addresses: np.ndarray  # of each lane
    lanes: np.ndarray  # who takes part


@dataclass
class Machine:
    """Lanes of some blocks of a launch. ``run`` does all of it."""

    instructions: list[Instruction]
    labels: dict[str, int]
    launch: Launch
    blocks: np.ndarray  # linear numbers
    capability: int = 90
    on_access: Callable[[Access], None] | None = None
    issued: np.ndarray = field(init=False)  # by instruction: warps
    executed: np.ndarray = field(init=False)  # by instruction: lanes whose predicate was true

    def __post_init__(self) -> None:
        threads = int(np.prod(self.launch.block))
        self.padded = -(-threads // WARP) * WARP
        self.count = self.padded * len(self.blocks)
        linear = np.tile(np.arange(self.padded, dtype=np.uint32), len(self.blocks))
        x, y, _ = self.launch.block
        self.special = {
            "SR_TID.X": linear % x,
            "SR_TID.Y": linear // x % y,
            "SR_TID.Z": linear // x // y,
            "SR_LANEID": linear % WARP,
            "SR_CgaCtaId": np.zeros(self.count, np.uint32),
        }
        of_lane = np.repeat(self.blocks, self.padded)
        gx, gy, _ = self.launch.grid
        for axis, value in zip("XYZ", (of_lane % gx, of_lane // gx % gy, of_lane // gx // gy), strict=True):
            self.special[f"SR_CTAID.{axis}"] = value.astype(np.uint32)
        self.registers = np.zeros((256, self.count), np.uint32)
        self.uniform = np.zeros((256, self.count), np.uint32)
        self.predicates = np.zeros((8, self.count), bool)
        self.uniform_predicates = np.zeros((8, self.count), bool)
        self.zero, self.true = np.zeros(self.count, np.uint32), np.ones(self.count, bool)
        self.zero.flags.writeable = self.true.flags.writeable = False
        self.constants = np.zeros(0x1400, np.uint8)
        places = CONSTANTS[max(first for first in CONSTANTS if first <= self.capability)]
        sizes = [np.array(value, np.uint32) for value in (self.launch.block, self.launch.grid, [STACK])]
        for place, value in zip(places, [*sizes, np.frombuffer(self.launch.parameters, np.uint8)], strict=True):
            self.constants[place : place + value.nbytes] = value.view(np.uint8)
        self.local: np.ndarray | None = None
        self.shared = np.full((len(self.blocks), SHARED_BASE + self.launch.shared_bytes), 0xFF, np.uint8)
        self.issued = np.zeros(len(self.instructions), np.int64)
        self.executed = np.zeros(len(self.instructions), np.int64)
        self.alive = linear < threads

    # Operands.

    def u32(self, o: Operand) -> np.ndarray:
        """As an integer, with its sign or complement."""
        value = self.raw(o)
        if o.inverted:
            value = ~value
        return -value if o.negative else value

    def raw(self, o: Operand, word: int = 0) -> np.ndarray:
        """Word 0 or 1 of a register, constant or immediate, as its bits are."""
        if o.kind == "R":
            return self.zero if o.index < 0 else self.registers[o.index + word]
        if o.kind == "UR":
            return self.zero if o.index < 0 else self.uniform[o.index + word]
        if o.kind == "number":
            if word:
                return np.full(self.count, 0xFFFFFFFF if o.number < 0 else 0, np.uint32)
            bits = np.float32(o.number).view(np.uint32) if o.suffix else int(o.number) & 0xFFFFFFFF
            return np.full(self.count, bits, np.uint32)
        if o.kind == "const":
            return self.constant(o, 4, word)
        raise NotImplementedError(f"operand {o}")

    def constant(self, o: Operand, size: int, word: int = 0) -> np.ndarray:
        if o.suffix != "0x0":
            raise NotImplementedError(f"constant bank {o.suffix}")
        base = int(o.number) + 4 * word
        if o.base is None or o.base.index < 0:
            value = int.from_bytes(self.constants[base : base + size].tobytes(), "little")
            return np.full(self.count, value, np.uint32)
        offsets = (self.raw(o.base).astype(np.int64) + base)[:, None] + np.arange(size)
        padded = np.zeros((self.count, 4), np.uint8)
        padded[:, :size] = self.constants[offsets]
        return padded.view(np.uint32)[:, 0]

    def u64(self, o: Operand) -> np.ndarray:
        """A pair of registers, or a 32-bit immediate with its sign."""
        value = self.raw(o).astype(np.uint64) | self.raw(o, 1).astype(np.uint64) << np.uint64(32)
        if o.inverted:
            value = ~value
        return -value if o.negative else value

    def f32(self, o: Operand) -> np.ndarray:
        value = self.raw(o).view(np.float32)
        if o.absolute:
            value = np.abs(value)
        return -value if o.negative else value

    def predicate(self, o: Operand) -> np.ndarray:
        file = self.predicates if o.kind == "P" else self.uniform_predicates
        value = self.true if o.index < 0 else file[o.index]
        return ~value if o.negative else value

    def write(self, o: Operand, value: np.ndarray, lanes: np.ndarray, word: int = 0) -> None:
        if o.index >= 0:
            file = self.registers if o.kind == "R" else self.uniform
            np.copyto(file[o.index + word], value, where=lanes, casting="unsafe")

    def write64(self, o: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
        self.write(o, value & np.uint64(0xFFFFFFFF), lanes)
        self.write(o, value >> np.uint64(32), lanes, 1)

    def write_predicate(self, o: Operand, value: np.ndarray, lanes: np.ndarray) -> None:
        if o.index >= 0:
            file = self.predicates if o.kind == "P" else self.uniform_predicates
            np.copyto(file[o.index], value, where=lanes)

    # Memory.

    def address(self, o: Operand, wide: bool) -> np.ndarray:
        """Of each lane, as int64."""
        if o.base is None or o.base.index < 0:
            base = np.zeros(self.count, np.int64)
        elif wide:
            base = self.u64(o.base).astype(np.int64)
        else:
            base = self.raw(o.base).astype(np.int64) * int((o.base.suffix[2:] if "X" in o.base.suffix else "") or 1)
        if o.uniform is not None and o.uniform.index >= 0:
            extra = self.u64(o.uniform) if wide and ".64" in o.uniform.suffix else self.raw(o.uniform)
            base = base + extra.astype(np.int64)
        return base + int(o.number)

    def region(self, address: np.ndarray, size: int, lanes: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
        """The buffer that the lanes' bytes are in, and where."""
        first = int(address[lanes][0])
        for base, data in self.launch.memory:
            if base <= first < base + len(data):
                offset = address - base
                if not ((offset[lanes] >= 0) & (offset[lanes] + size <= len(data))).all():
                    raise IndexError(f"{what}: beyond the end of a buffer of {len(data)} bytes")
                if (address[lanes] % size).any():
                    raise IndexError(f"{what}: not aligned to {size} bytes")
                return data, offset
        raise IndexError(f"{what}: not in any buffer")

    def fetch(self, data: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
        """(lanes, words) of ``size`` bytes each."""
        words = np.zeros((len(offsets), max(4, size)), np.uint8)
        words[:, :size] = data[offsets[:, None] + np.arange(size)]
        return words.view(np.uint32)

    def shared_offsets(self, address: np.ndarray, size: int, lanes: np.ndarray, what: str) -> np.ndarray:
        """Into all blocks' shared memory at once. That of 7.5 to 8.9 begins at 0, in every kernel the dynamic part."""
        inside = address & 0xFFFFFF
        if self.capability < 90:
            inside = inside + SHARED_BASE
        if not ((inside[lanes] >= SHARED_BASE) & (inside[lanes] + size <= self.shared.shape[1])).all():
            raise IndexError(f"{what}: beyond shared memory")
        return inside + np.arange(self.count) // self.padded * self.shared.shape[1]

    # Control.

    def warps(self, lanes: np.ndarray) -> int:
        return int(lanes.reshape(-1, WARP).any(1).sum())

    def run(self) -> None:
        """Until every lane has ended.

        Raises:
            IndexError: an access to memory that is not of the launch.
            NotImplementedError: an instruction that is not known here.
        """
        from tools.cuda_gate.sass import floats, integers, memory

        operations = integers.OPERATIONS | floats.OPERATIONS | memory.OPERATIONS

        groups: dict[int, np.ndarray] = {0: self.alive.copy()}
        waiting: dict[int, np.ndarray] = {}  # at a barrier; where they go on

        def put(at: int, lanes: np.ndarray) -> None:
            if lanes.any():
                groups[at] = groups[at] | lanes if at in groups else lanes

        def release() -> None:
            """Blocks all of whose lanes are at a barrier or have ended go on."""
            held = np.zeros(self.count, bool)
            for lanes in waiting.values():
                held |= lanes
            open_ = ~((self.alive & ~held).reshape(-1, self.padded).any(1))
            for at in list(waiting):
                go = waiting[at] & np.repeat(open_, self.padded)
                waiting[at] &= ~go
                put(at, go)

        with np.errstate(all="ignore"):
            while groups:
                at = min(groups)
                group = groups.pop(at)
                warps = self.warps(group)
                while True:  # straight on, as long as nobody else is here
                    instruction = self.instructions[at]
                    self.issued[at] += warps
                    lanes = group if instruction.guard is None else group & self.predicate(instruction.guard)
                    opcode = instruction.opcode
                    if opcode in ("BRA", "EXIT", "BAR", "CALL", "RET"):
                        break
                    if opcode in ("FFMA", "DFMA", "FFMA2", "HFMA2"):
                        self.executed[at] += np.count_nonzero(lanes)
                    if opcode not in operations:
                        raise NotImplementedError(instruction.text)
                    if instruction.guard is None or lanes.any():
                        operations[opcode](self, instruction, lanes)
                    at += 1
                    if at in groups:
                        put(at, group)
                        group = None
                        break
                if group is None:
                    continue
                stay = group & ~lanes
                put(at + 1, stay)
                if opcode == "BRA":
                    for o in instruction.operands:
                        if o.kind in ("P", "UP"):
                            stop = lanes & ~self.predicate(o)
                            put(at + 1, stop)
                            lanes = lanes & ~stop
                    put(self.labels[instruction.operands[-1].text], lanes)
                elif opcode == "CALL":
                    put(self.labels[instruction.operands[-1].text], lanes)
                elif opcode == "RET":
                    back = self.raw(instruction.operands[0])
                    by_address = {i.address: n for n, i in enumerate(self.instructions)}
                    for address in np.unique(back[lanes]):
                        put(by_address[int(address)], lanes & (back == address))
                elif opcode == "BAR":
                    waiting[at + 1] = waiting.get(at + 1, np.zeros(self.count, bool)) | lanes
                    release()
                else:
                    self.alive &= ~lanes
                    release()

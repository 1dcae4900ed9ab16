"""What instructions between lanes and on memory do."""

import numpy as np

from tools.cuda_gate.sass.integers import I32, I64, U32, Operation, collector
from tools.cuda_gate.sass.machine import STACK, WARP, Access, Machine
from tools.cuda_gate.sass.text import Instruction, Operand

OPERATIONS: dict[str, Operation] = {}
operation = collector(OPERATIONS)


@operation("SHFL")
def shuffle(m, i, lanes):
    there, result, source, by, clamp = i.operands
    lane = m.special["SR_LANEID"].astype(I64)
    limit, step = m.u32(clamp).astype(I64), m.u32(by).astype(I64) & 31
    segment = limit >> 8 & 31
    most = (lane & segment) | (limit & 31 & ~segment)
    wanted = {"BFLY": lane ^ step, "DOWN": lane + step, "UP": lane - step, "IDX": (lane & segment) | (step & ~segment)}
    other = wanted[i.modifiers[0]]
    inside = other >= most if i.modifiers[0] == "UP" else other <= most
    base = np.arange(m.count) // WARP * WARP
    value = m.raw(source)[np.where(inside, base + other, base + lane)]
    m.write(result, value, lanes)
    m.write_predicate(there, inside, lanes)


@operation("VOTE", "VOTEU")
def vote(m, i, lanes):
    *results, source = i.operands
    said = m.predicate(source) & lanes
    by_warp = said.reshape(-1, WARP)
    bits = (by_warp.astype(U32) << np.arange(WARP, dtype=U32)).sum(1, dtype=U32)
    agreed = by_warp.any(1) if "ANY" in i.modifiers else (by_warp | ~lanes.reshape(-1, WARP)).all(1)
    for o in results:
        if o.kind in ("R", "UR"):
            m.write(o, np.repeat(bits, WARP), lanes)
        else:
            m.write_predicate(o, np.repeat(agreed, WARP), lanes)


def size_of(i: Instruction) -> int:
    sizes = {"128": 16, "64": 8, "U16": 2, "S16": 2, "U8": 1, "S8": 1}
    return next((sizes[name] for name in i.modifiers if name in sizes), 4)


def write_words(m: Machine, i: Instruction, result: Operand, words: np.ndarray, lanes: np.ndarray) -> None:
    """``words`` (lanes taking part, words) into registers."""
    for word in range(words.shape[1]):
        value = np.zeros(m.count, U32)
        value[lanes] = words[:, word]
        if "S16" in i.modifiers or "S8" in i.modifiers:
            bits = U32(16 if "S16" in i.modifiers else 24)
            value = ((value << bits).view(I32) >> I32(bits)).view(U32)
        m.write(result, value, lanes, word)


def words_of(m: Machine, source: Operand, size: int, lanes: np.ndarray) -> np.ndarray:
    """(lanes taking part, bytes) of neighbouring registers."""
    words = np.stack([m.raw(source, word)[lanes] for word in range(max(1, size // 4))], axis=1)
    return np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)[:, :size]


def memory_and_register(i: Instruction) -> tuple[Operand, Operand]:
    return next(o for o in i.operands if o.kind == "memory"), next(o for o in i.operands if o.kind == "R")


def touched(m: Machine, i: Instruction, store: bool, address: np.ndarray, size: int, lanes: np.ndarray) -> None:
    if m.on_access:
        m.on_access(Access(i.address, store, size, address[lanes], np.flatnonzero(lanes)))


@operation("LDG", "STG", "LD", "ST")
def global_memory(m, i, lanes):
    where, value = memory_and_register(i)
    lanes = lanes if i.guard is None else lanes.copy()
    for o in i.operands:
        if o.kind in ("P", "UP"):
            lanes = lanes & m.predicate(o)
    size = size_of(i)
    if not lanes.any():
        return
    address = m.address(where, wide=True)
    data, offsets = m.region(address, size, lanes, i.text)
    touched(m, i, i.opcode[0] == "S", address, size, lanes)
    if i.opcode[0] == "L":
        write_words(m, i, value, m.fetch(data, offsets[lanes], size), lanes)
    else:
        data[offsets[lanes][:, None] + np.arange(size)] = words_of(m, value, size, lanes)


@operation("LDS", "STS", "LDL", "STL")
def near_memory(m, i, lanes):
    where, value = memory_and_register(i)
    size, address = size_of(i), m.address(where, wide=False)
    if i.opcode[2] == "S":
        data, offsets = m.shared.reshape(-1), m.shared_offsets(address, size, lanes, i.text)
    else:
        if m.local is None:
            m.local = np.zeros(m.count * STACK, np.uint8)
        data, offsets = m.local, address + np.arange(m.count) * STACK
    if i.opcode in ("LDS", "LDL"):
        write_words(m, i, value, m.fetch(data, offsets[lanes], size), lanes)
    else:
        data[offsets[lanes][:, None] + np.arange(size)] = words_of(m, value, size, lanes)


@operation("LDGSTS")
def copy_to_shared(m, i, lanes):
    to, source = [o for o in i.operands if o.kind == "memory"]
    size = size_of(i)
    for o in i.operands:
        if o.kind in ("P", "UP"):
            lanes = lanes & m.predicate(o)
    if not lanes.any():
        return
    address = m.address(source, wide=True)
    data, offsets = m.region(address, size, lanes, i.text)
    touched(m, i, False, address, size, lanes)
    into = m.shared_offsets(m.address(to, wide=False), size, lanes, i.text)
    m.shared.reshape(-1)[into[lanes][:, None] + np.arange(size)] = data[offsets[lanes][:, None] + np.arange(size)]


@operation("LDSM")
def load_matrices(m, i, lanes):
    """8 x 8 matrices of 16-bit elements: lane n names row n % 8 of matrix n / 8, and gets two elements of row n / 4."""
    where, result = memory_and_register(i)
    if "M88" not in i.modifiers or not lanes.reshape(-1, WARP).any(1).repeat(WARP)[lanes].all():
        raise NotImplementedError(i.text)
    count = next((int(name) for name in i.modifiers if name in ("2", "4")), 1)
    used = lanes & (m.special["SR_LANEID"] < 8 * count)
    rows = m.shared_offsets(m.address(where, wide=False), 16, used, i.text)
    lane, base = np.arange(m.count) % WARP, np.arange(m.count) // WARP * WARP
    for matrix in range(count):
        offsets = rows[base + 8 * matrix + lane // 4] + 4 * (lane % 4)
        m.write(result, m.fetch(m.shared.reshape(-1), np.where(lanes, offsets, 0), 4)[:, 0], lanes, matrix)

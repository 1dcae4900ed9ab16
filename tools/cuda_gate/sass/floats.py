"""What instructions on floating-point numbers do. Sums and products go through a wider type, and are rounded once."""

from dataclasses import replace

import numpy as np

from tools.cuda_gate.sass.integers import I32, U32, U64, Operation, collector, split
from tools.cuda_gate.sass.machine import WARP, Machine
from tools.cuda_gate.sass.text import Operand

OPERATIONS: dict[str, Operation] = {}
operation = collector(OPERATIONS)


@operation("FFMA", "FADD", "FMUL")
def float_arithmetic(m, i, lanes):
    result, _, sources, _ = split(i)
    values = [m.f32(o).astype(np.float64) for o in sources]
    out = values[0] + values[1] if i.opcode == "FADD" else values[0] * values[1]
    if i.opcode == "FFMA":
        out = out + values[2]
    m.write(result, out.astype(np.float32).view(U32), lanes)


@operation("DFMA", "DADD", "DMUL")
def double_arithmetic(m, i, lanes):
    """A product and sum rounded once, as far as 64 bits of mantissa can."""
    result, _, sources, _ = split(i)
    values = []
    for o in sources:
        bits = m.u64(replace(o, negative=False)) if o.kind != "number" else np.full(m.count, float(o.number)).view(U64)
        value = bits.view(np.float64).astype(np.longdouble)
        value = np.abs(value) if o.absolute else value
        values.append(-value if o.negative else value)
    out = values[0] + values[1] if i.opcode == "DADD" else values[0] * values[1]
    if i.opcode == "DFMA":
        out = out + values[2]
    m.write64(result, out.astype(np.float64).view(U64), lanes)


@operation("FFMA2", "FMUL2", "FADD2")
def float_arithmetic_of_pairs(m, i, lanes):
    """Two neighbouring registers at once; each source says which of its two goes where."""
    result, _, sources, _ = split(i)
    outs = []
    for word in (0, 1):
        values = []
        for o in sources:
            swapped = "LO_HI" in o.suffix
            alone = "HI_LO" not in o.suffix and not swapped and "F32" not in o.suffix
            value = m.raw(o, 0 if alone else word ^ swapped).view(np.float32).astype(np.float64)
            values.append(-value if o.negative else value)
        out = values[0] + values[1] if i.opcode == "FADD2" else values[0] * values[1]
        outs.append((out + values[2] if i.opcode == "FFMA2" else out).astype(np.float32).view(U32))
    for word, out in enumerate(outs):
        m.write(result, out, lanes, word)


@operation("FMNMX")
def float_limit(m, i, lanes):
    result, _, (a, b), (least,) = split(i)
    x, y = m.f32(a), m.f32(b)
    low, high = (np.minimum, np.maximum) if "NAN" in i.modifiers else (np.fmin, np.fmax)
    m.write(result, np.where(m.predicate(least), low(x, y), high(x, y)).view(U32), lanes)


def half(m: Machine, o: Operand, upper: bool, bf16: bool = False) -> np.ndarray:
    """One half of an operand, as float32."""
    if o.kind == "number":
        return np.full(m.count, np.float32(o.number))
    if ".H0_H0" in o.suffix or ".H1_H1" in o.suffix:
        upper = ".H1_H1" in o.suffix
    bits = (m.raw(o) >> U32(16 if upper else 0)).astype(np.uint16)
    value = (bits.astype(U32) << U32(16)).view(np.float32) if bf16 else bits.view(np.float16).astype(np.float32)
    if o.absolute:
        value = np.abs(value)
    return -value if o.negative else value


def to_half(value: np.ndarray, bf16: bool = False) -> np.ndarray:
    """The bits, rounded to nearest even."""
    if not bf16:
        return value.astype(np.float16).view(np.uint16).astype(U32)
    bits = value.astype(np.float32).view(U32)
    rounded = (bits + U32(0x7FFF) + (bits >> U32(16) & U32(1))) >> U32(16)
    return np.where(np.isnan(value), U32(0x7FFF), rounded)


@operation("HFMA2", "HADD2", "HMUL2")
def half_arithmetic(m, i, lanes):
    result, _, sources, _ = split(i)
    bf16 = "BF16_V2" in i.modifiers
    if "F32" in i.modifiers:
        return m.write(result, (half(m, sources[0], False) + half(m, sources[1], False)).view(U32), lanes)
    pairs = [sources, sources]
    if len(sources) > {"HFMA2": 3, "HADD2": 2, "HMUL2": 2}[i.opcode]:  # an immediate is two, the upper half first
        at = next(n for n, o in enumerate(sources) if o.kind == "number")
        pairs = [sources[:at] + sources[at + 1 :], sources[: at + 1] + sources[at + 2 :]]
    out = np.zeros(m.count, U32)
    for upper, terms in enumerate(pairs):
        values = [half(m, o, bool(upper), bf16).astype(np.float64) for o in terms]
        value = values[0] + values[1] if i.opcode == "HADD2" else values[0] * values[1]
        out |= to_half(value + values[2] if i.opcode == "HFMA2" else value, bf16) << U32(16 * upper)
    m.write(result, out, lanes)


@operation("F2FP")
def pack_halves(m, i, lanes):
    result, _, (upper, lower), _ = split(i)
    bf16 = "BF16" in i.modifiers
    m.write(result, to_half(m.f32(upper), bf16) << U32(16) | to_half(m.f32(lower), bf16), lanes)


@operation("F2F")
def convert(m, i, lanes):
    result, source = i.operands
    to, of = i.modifiers[:2]
    if (to, of) == ("F16", "F32"):
        return m.write(result, to_half(m.f32(source)), lanes)
    if (to, of) == ("F32", "F16"):
        return m.write(result, half(m, source, False).view(U32), lanes)
    raise NotImplementedError(i.text)


@operation("I2F", "UI2F", "I2FP", "UI2FP")
def integer_to_float(m, i, lanes):
    result, source = i.operands
    if "U64" in i.modifiers or "S64" in i.modifiers:
        raise NotImplementedError(i.text)
    value = m.u32(source) if "U32" in i.modifiers else m.u32(source).view(I32)
    rounded = value.astype(np.float32)
    if "RP" in i.modifiers:
        rounded = np.where(rounded.astype(np.float64) < value, np.nextafter(rounded, np.float32(np.inf)), rounded)
    m.write(result, rounded.view(U32), lanes)


@operation("F2I", "F2IP", "UF2I")
def float_to_integer(m, i, lanes):
    result, source = i.operands
    if "U32" not in i.modifiers or "TRUNC" not in i.modifiers:
        raise NotImplementedError(i.text)
    value = np.nan_to_num(np.trunc(m.f32(source).astype(np.float64)), nan=0, posinf=0xFFFFFFFF)
    m.write(result, np.clip(value, 0, 0xFFFFFFFF).astype(U32), lanes)


@operation("MUFU")
def special_function(m, i, lanes):
    functions = {"RCP": np.reciprocal, "EX2": np.exp2, "RSQ": lambda v: 1 / np.sqrt(v), "LG2": np.log2, "SQRT": np.sqrt}
    if i.modifiers[0] not in functions:
        raise NotImplementedError(i.text)
    m.write(i.operands[0], functions[i.modifiers[0]](m.f32(i.operands[1])).view(U32), lanes)


@operation("HMMA")
def multiply_matrices(m, i, lanes):
    """(16 x 16) * (16 x 8) + (16 x 8) by a warp, in float32, as PTX lays out mma.m16n8k16."""
    if i.modifiers[0] != "16816" or "F32" not in i.modifiers:
        raise NotImplementedError(i.text)
    result, _, (a, b, c), _ = split(i)
    bf16, warps = "BF16" in i.modifiers, m.count // WARP
    lane = np.arange(WARP)
    left, right = np.zeros((warps, 16, 16)), np.zeros((warps, 16, 8))
    for upper in range(2):
        for word in range(4):
            values = halves(m, a, word, upper, bf16).reshape(warps, WARP)
            left[:, lane // 4 + 8 * (word % 2), 8 * (word // 2) + 2 * (lane % 4) + upper] = values
        for word in range(2):
            values = halves(m, b, word, upper, bf16).reshape(warps, WARP)
            right[:, 8 * word + 2 * (lane % 4) + upper, lane // 4] = values
    product = left @ right
    for word in range(4):
        sums = product[:, lane // 4 + 8 * (word // 2), 2 * (lane % 4) + word % 2].reshape(-1)
        total = (sums + m.raw(c, word).view(np.float32)).astype(np.float32)
        m.write(result, total.view(U32), lanes, word)


def halves(m: Machine, o: Operand, word: int, upper: int, bf16: bool) -> np.ndarray:
    bits = (m.raw(o, word) >> U32(16 * upper)).astype(np.uint16)
    return (bits.astype(U32) << U32(16)).view(np.float32) if bf16 else bits.view(np.float16).astype(np.float32)

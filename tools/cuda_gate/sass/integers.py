"""What instructions on integers and predicates do to the lanes of a Machine."""

from collections.abc import Callable

import numpy as np

from tools.cuda_gate.sass.machine import Machine
from tools.cuda_gate.sass.text import Instruction, Operand

U32, U64, I32, I64 = np.uint32, np.uint64, np.int32, np.int64
LOW = U64(0xFFFFFFFF)
Operation = Callable[[Machine, Instruction, np.ndarray], None]


def collector(operations: dict[str, Operation]) -> Callable:
    """A decorator that enters a function under names of instructions."""

    def operation(*names: str) -> Callable[[Operation], Operation]:
        def add(function: Operation) -> Operation:
            operations.update(dict.fromkeys(names, function))
            return function

        return add

    return operation


OPERATIONS: dict[str, Operation] = {}
operation = collector(OPERATIONS)


def split(i: Instruction) -> tuple[Operand, list[Operand], list[Operand], list[Operand]]:
    """Result, predicates written beside it, sources, predicates read after them."""
    result, *rest = i.operands
    written, read = [], []
    while rest and rest[0].kind in ("P", "UP"):
        written.append(rest.pop(0))
    while rest and rest[-1].kind in ("P", "UP"):
        read.insert(0, rest.pop())
    return result, written, rest, read


def carried(m: Machine, predicates: list[Operand]) -> np.ndarray:
    return sum((m.predicate(p).astype(U64) for p in predicates), start=np.zeros(m.count, U64))


def wide_term(m: Machine, o: Operand) -> np.ndarray:
    """-x as ~x + 1 without losing the carry of -0."""
    value = m.raw(o).astype(U64)
    if o.inverted:
        return ~value & LOW
    return (~value & LOW) + U64(1) if o.negative else value


@operation("NOP", "BSSY", "BSYNC", "BMOV", "BREAK", "WARPSYNC", "DEPBAR", "LDGDEPBAR", "MEMBAR", "ERRBAR", "CCTL")
@operation("FENCE", "PREEXIT", "ACQBULK")
def nothing(m: Machine, i: Instruction, lanes: np.ndarray) -> None:
    pass


@operation("MOV", "UMOV", "R2UR")
def move(m, i, lanes):
    result, _, (source, *_), _ = split(i)
    if "64" in i.modifiers:
        m.write64(result, m.u64(source), lanes)
    else:
        m.write(result, m.u32(source), lanes)


@operation("S2R", "S2UR")
def special(m, i, lanes):
    m.write(i.operands[0], m.special[i.operands[1].text], lanes)


@operation("CS2R")
def clear(m, i, lanes):
    if i.operands[1].text != "SRZ":
        raise NotImplementedError(i.text)
    m.write(i.operands[0], m.zero, lanes)
    if "32" not in i.modifiers:
        m.write(i.operands[0], m.zero, lanes, 1)


@operation("LDC", "ULDC", "LDCU")
def load_constant(m, i, lanes):
    result, source = i.operands[0], i.operands[-1]
    if "U8" in i.modifiers or "U16" in i.modifiers:
        return m.write(result, m.constant(source, 1 if "U8" in i.modifiers else 2), lanes)
    values = [m.constant(source, 4, w) for w in range(4 if "128" in i.modifiers else 2 if "64" in i.modifiers else 1)]
    for word, value in enumerate(values):
        m.write(result, value, lanes, word)


@operation("IADD3", "UIADD3", "IADD", "VIADD", "UIADD", "UVIADD")
def add(m, i, lanes):
    result, written, sources, read = split(i)
    if "64" in i.modifiers:
        return m.write64(result, sum((m.u64(o) for o in sources), start=np.zeros(m.count, U64)), lanes)
    total = sum((wide_term(m, o) for o in sources), start=carried(m, read))
    m.write(result, total & LOW, lanes)
    for least, p in enumerate(written, start=1):
        m.write_predicate(p, total >> U64(32) >= least, lanes)


@operation("IMAD", "UIMAD")
def multiply_add(m, i, lanes):
    result, written, sources, read = split(i)
    a, b, c = sources
    mods = i.modifiers
    signed = "U32" not in mods
    if "WIDE" in mods or "HI" in mods:
        kind, wide = (I32, I64) if signed else (U32, U64)
        product = m.u32(a).view(kind).astype(wide) * m.u32(b).view(kind).astype(wide)
        product, addend = product.view(U64), m.u64(c)
        total = product + addend + carried(m, read)
        if "HI" in mods:
            return m.write(result, total >> U64(32), lanes)
        m.write64(result, total, lanes)
        for p in written:
            m.write_predicate(p, (total < product) | ((total == product) & (addend != 0)), lanes)
    elif mods[:1] == ("SHL",):
        m.write(result, m.u32(a) * m.u32(b) + m.u32(c), lanes)
    else:
        m.write(result, m.u32(a) * m.u32(b) + m.u32(c) + carried(m, read).astype(U32), lanes)


@operation("LEA", "ULEA")
def lea(m, i, lanes):
    result, written, sources, read = split(i)
    mods = i.modifiers
    shift = U64(int(sources[-1].number))
    a, b = sources[0], sources[1]
    if "HI" not in mods:
        shifted = ((m.raw(a) if a.negative else m.u32(a)).astype(U64) << shift) & LOW
        if a.negative:  # as in wide_term
            shifted = (~shifted & LOW) + U64(1)
        total = shifted + wide_term(m, b)
    else:
        low = m.u32(a).astype(U64)
        if "SX32" in mods:
            high = m.u32(a).view(I32).astype(I64).view(U64) & ~LOW
        else:
            high = m.u32(sources[2]).astype(U64) << U64(32)
        total = (((high | low) << shift) >> U64(32)) + wide_term(m, b)
    total = total + carried(m, read)
    m.write(result, total & LOW, lanes)
    for p in written:
        m.write_predicate(p, total > LOW, lanes)


@operation("LOP3", "ULOP3")
def lop3(m, i, lanes):
    operands = list(i.operands)
    written = [operands.pop(0)] if operands[0].kind in ("P", "UP") else []
    result, (a, b, c, table) = operands[0], operands[1:5]
    values, out = [m.u32(o) for o in (a, b, c)], np.zeros(m.count, U32)
    for row in range(8):
        if int(table.number) >> row & 1:
            term = [v if row >> (2 - n) & 1 else ~v for n, v in enumerate(values)]
            out |= term[0] & term[1] & term[2]
    m.write(result, out, lanes)
    for p in written:
        m.write_predicate(p, (out != 0) | m.predicate(operands[5]), lanes)


@operation("PLOP3", "UPLOP3")
def plop3(m, i, lanes):
    *results, a, b, c, first, second = i.operands
    row = m.predicate(a).astype(U32) * U32(4) + m.predicate(b).astype(U32) * U32(2) + m.predicate(c).astype(U32)
    for p, table in zip(results, (first, second), strict=False):
        m.write_predicate(p, (U32(int(table.number)) >> row & U32(1)) != 0, lanes)


@operation("SHF", "USHF")
def funnel_shift(m, i, lanes):
    result, _, (a, by, c), _ = split(i)
    mods = i.modifiers
    shift = np.minimum(m.u32(by).astype(U64), U64(63 if "U64" in mods or "S64" in mods else 32))
    if "W" in mods:
        shift = m.u32(by).astype(U64) % U64(64 if "U64" in mods or "S64" in mods else 32)
    both = m.u32(c).astype(U64) << U64(32) | m.u32(a).astype(U64)
    if "L" in mods:
        value = (both << shift) >> U64(32) if "HI" in mods else m.u32(a).astype(U64) << shift
    elif "HI" in mods:
        value = m.u32(c).view(I32).astype(I64) >> shift.astype(I64) if "S32" in mods or "S64" in mods else None
        value = m.u32(c).astype(U64) >> shift if value is None else value.view(U64)
    else:
        value = (both.view(I64) >> shift.astype(I64)).view(U64) if "S64" in mods else both >> shift
    m.write(result, value & LOW, lanes)


@operation("SEL", "USEL", "FSEL")
def select(m, i, lanes):
    result, _, (a, b), (p,) = split(i)
    if "64" in i.modifiers:
        return m.write64(result, np.where(m.predicate(p), m.u64(a), m.u64(b)), lanes)
    get = (lambda o: m.f32(o).view(U32)) if i.opcode == "FSEL" else m.u32
    m.write(result, np.where(m.predicate(p), get(a), get(b)), lanes)


COMPARE = {"LT": np.less, "LE": np.less_equal, "GT": np.greater, "GE": np.greater_equal, "EQ": np.equal}


def combine(m: Machine, i: Instruction, found: np.ndarray, lanes: np.ndarray, before: Operand) -> None:
    join = {"AND": np.logical_and, "OR": np.logical_or, "XOR": np.logical_xor}
    joined = next(join[name] for name in i.modifiers if name in join)
    old = m.predicate(before).copy()
    first, second = i.operands[:2]
    m.write_predicate(first, joined(found, old), lanes)
    m.write_predicate(second, joined(~found, old), lanes)


@operation("ISETP", "UISETP")
def compare(m, i, lanes):
    a, b, before, *lower = i.operands[2:]
    kind = i.modifiers[0]
    if "S64" in i.modifiers or "U64" in i.modifiers:
        x, y = m.u64(a), m.u64(b)
        if "S64" in i.modifiers:
            x, y = x.view(I64), y.view(I64)
    else:
        x, y = m.u32(a), m.u32(b)
        if "U32" not in i.modifiers:
            x, y = x.view(I32), y.view(I32)
    if kind in ("T", "F"):
        found = np.full(m.count, kind == "T")
    elif "EX" in i.modifiers:
        low = m.predicate(lower[0])
        if kind in ("EQ", "NE"):
            found = (x == y) & low if kind == "EQ" else (x != y) | low
        else:
            found = (x < y if kind[0] == "L" else x > y) | ((x == y) & low)
    else:
        found = x != y if kind == "NE" else COMPARE[kind](x, y)
    combine(m, i, found, lanes, before)


@operation("FSETP")
def compare_floats(m, i, lanes):
    a, b, before = i.operands[2:5]
    x, y, kind = m.f32(a), m.f32(b), i.modifiers[0]
    ordered = ~(np.isnan(x) | np.isnan(y))
    if kind in ("NAN", "NUM"):
        found = ordered if kind == "NUM" else ~ordered
    elif kind in ("NE", "NEU"):
        found = (x != y) & (ordered | (kind == "NEU"))
    else:
        found = COMPARE[kind[:2]](x, y) | (~ordered if kind.endswith("U") else False)
    combine(m, i, found, lanes, before)


def limited(m: Machine, i: Instruction, a: np.ndarray, b: np.ndarray, least: Operand) -> np.ndarray:
    if "U32" not in i.modifiers and "U64" not in i.modifiers:
        signed = I64 if a.dtype == U64 else I32
        a, b = a.view(signed), b.view(signed)
    return np.where(m.predicate(least), np.minimum(a, b), np.maximum(a, b)).view(U64 if a.itemsize == 8 else U32)


@operation("IMNMX", "UIMNMX", "VIMNMX", "UVIMNMX")
def integer_limit(m, i, lanes):
    """Predicates before the sources are results of other forms; the first after them chooses."""
    result, a, b = [o for o in i.operands if o.kind not in ("P", "UP")]
    least = i.operands[max(n for n, o in enumerate(i.operands) if o is b) + 1]
    if "S64" in i.modifiers or "U64" in i.modifiers:
        return m.write64(result, limited(m, i, m.u64(a), m.u64(b), least), lanes)
    m.write(result, limited(m, i, m.u32(a), m.u32(b), least), lanes)


@operation("VIADDMNMX")
def add_limit(m, i, lanes):
    result, _, (a, b, c), read = split(i)
    m.write(result, limited(m, i, m.u32(a) + m.u32(b), m.u32(c), read[-1]), lanes)


@operation("IABS")
def absolute(m, i, lanes):
    m.write(i.operands[0], np.abs(m.u32(i.operands[1]).view(I32)).view(U32), lanes)


@operation("PRMT", "UPRMT")
def permute(m, i, lanes):
    result, _, (a, selector, c), _ = split(i)
    both, chosen = m.u32(c).astype(U64) << U64(32) | m.u32(a).astype(U64), m.u32(selector)
    out = np.zeros(m.count, U32)
    for byte in range(4):
        nibble = (chosen >> U32(4 * byte)) & U32(15)
        value = (both >> ((nibble & U32(7)).astype(U64) * U64(8))).astype(U32) & U32(255)
        sign = np.where(value & U32(128), U32(255), U32(0))
        out |= np.where(nibble & U32(8), sign, value) << U32(8 * byte)
    m.write(result, out, lanes)


def byte_of(o: Operand) -> int:
    return 8 * int(o.suffix[-1]) if ".B" in o.suffix else 0


@operation("P2R")
def predicates_to_register(m, i, lanes):
    result, _, old, mask = i.operands
    bits = sum((m.predicates[n].astype(U32) << U32(n) for n in range(7)), start=np.zeros(m.count, U32))
    of_opcode = 8 * sum(int(name[1]) for name in i.modifiers if name[0] == "B")
    mask_bits, shift = U32(int(mask.number)), U32(byte_of(result) or of_opcode)
    m.write(result, (m.u32(old) & ~(mask_bits << shift)) | ((bits & mask_bits) << shift), lanes)


@operation("R2P")
def register_to_predicates(m, i, lanes):
    _, source, mask = i.operands
    value = m.raw(source) >> U32(byte_of(source))
    for n in range(7):
        if int(mask.number) >> n & 1:
            np.copyto(m.predicates[n], (value >> U32(n) & U32(1)) != 0, where=lanes)

"""NVIDIA's machine code as nvdisasm prints it, for machine.py to run."""

import re
from dataclasses import dataclass

_INSTRUCTION = re.compile(r"\s+/\*([0-9a-f]{4,})\*/\s+(?:@(!?)(U?P[T\d])\s+)?([A-Z][A-Z0-9_.a-z]*)\s*(.*?)\s*;")
_REGISTER = re.compile(r"([-~!|]*)(UR|R|UP|P)(\d+|Z|T)((?:\.\w+)*)(\|?(?:\.\w+)*)")
_SEPARATOR = re.compile(r",(?![^\[]*\])|(?<=\w)\s+(?=[-+]?0x|`)")


@dataclass(frozen=True)
class Operand:
    """kind: R, UR, P, UP (index, -1 for the one that is always zero or true), number, const, memory, label or name."""

    kind: str
    index: int = -1
    negative: bool = False  # -, and ! of predicates
    inverted: bool = False  # ~
    absolute: bool = False
    suffix: str = ""  # .H0_H0, .64; bank of a constant
    number: float | int = 0  # of a number; offset of memory and constants
    base: "Operand | None" = None  # register of a constant or memory address
    uniform: "Operand | None" = None  # second register of an address
    text: str = ""


@dataclass(frozen=True)
class Instruction:
    """One line. ``loops`` of ``parse`` are about indices into the list of these."""

    address: int
    guard: Operand | None  # the predicate before it
    opcode: str
    modifiers: tuple[str, ...]
    operands: tuple[Operand, ...]
    text: str


def _register(match: re.Match) -> Operand:
    prefix, kind, index, suffix, _ = match.groups()
    return Operand(
        kind,
        int(index) if index.isdigit() else -1,
        negative="-" in prefix or "!" in prefix,
        inverted="~" in prefix,
        absolute="|" in prefix,
        suffix=suffix.replace(".reuse", ""),
    )


def _address(text: str) -> dict:
    """Of ``R2.64+UR4+-0x8``: base, uniform and number."""
    parts: dict = {}
    for part in filter(None, text.split("+")):
        if match := _REGISTER.fullmatch(part):
            parts["uniform" if "base" in parts else "base"] = _register(match)
        else:
            parts["number"] = parts.get("number", 0) + int(part, 16)
    return parts


def operand(text: str) -> Operand:
    """One operand.

    Raises:
        ValueError: it is of no known form.
    """
    text = text.strip()
    if match := _REGISTER.fullmatch(text):
        return _register(match)
    if match := re.fullmatch(r"(-?)(\|?)c\[(0x[0-9a-f]+)\]\[([^\]]*)\](\.\w+)*\|?", text):
        return Operand(
            "const",
            negative=match[1] == "-",
            absolute=bool(match[2]),
            suffix=match[3],
            **_address(match[4]),
            inverted=text.startswith("~"),
        )
    if match := re.fullmatch(r"~c\[(0x[0-9a-f]+)\]\[([^\]]*)\]", text):
        return Operand("const", inverted=True, suffix=match[1], **_address(match[2]))
    if match := re.fullmatch(r"(?:desc\[\w+\])?\[([^\]]*)\](\.\w+)*", text):
        return Operand("memory", **_address(match[1]))
    if re.fullmatch(r"-?0x[0-9a-f]+", text):
        return Operand("number", number=int(text, 16))
    if re.fullmatch(r"[-+]?(\d[\d.]*(e[-+]?\d+)?|INF|QNAN)( )?", text):
        return Operand(
            "number", number=float(text.strip().replace("INF", "inf").replace("QNAN", "nan")), suffix="float"
        )
    if match := re.fullmatch(r"`\((.*)\)", text):
        return Operand("label", text=match[1])
    if re.fullmatch(r"[A-Za-z_][\w.]*(=\w+)?", text):
        return Operand("name", text=text)
    raise ValueError(f"an operand of an unknown form: {text}")


def parse(body: str) -> tuple[list[Instruction], dict[str, int]]:
    """The instructions of a kernel, and what its labels mean as indices into them."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in body.splitlines():
        if match := re.match(r"([.$][\w$.]+):", line):
            labels[match[1]] = len(instructions)
        elif match := _INSTRUCTION.match(line):
            address, negated, guard, opcode, rest = match.groups()
            rest = rest.split("(*")[0]
            name, *modifiers = opcode.split(".")
            predicate = _REGISTER.fullmatch(guard) if guard else None
            instructions.append(
                Instruction(
                    int(address, 16),
                    Operand(predicate[2], int(predicate[3]) if predicate[3] != "T" else -1, negative=bool(negated))
                    if predicate
                    else None,
                    name,
                    tuple(modifiers),
                    tuple(operand(part) for part in _SEPARATOR.split(rest) if part.strip()),
                    f"{opcode} {rest}",
                )
            )
    return instructions, labels

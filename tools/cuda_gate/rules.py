"""What the static gate asks of a kernel: rules, budgets and the exceptions to them.

``budgets.txt`` says how much a kernel may need, ``exceptions.txt`` who needs more, and why.
"""

import fnmatch
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tools.cuda_gate.compile import Code

HERE = Path(__file__).parent
BUDGETS, EXCEPTIONS = HERE / "budgets.txt", HERE / "exceptions.txt"
MAX_STATIC_SHARED = 48 * 1024
# Those of plain.cu that are written for comparison keep no rules but that they are compiled.
PLAIN_KERNELS = ("one_thread_per_output*<*", "one_block_per_tap<*")


class Device(NamedTuple):
    """What a multiprocessor holds (CUDA C++ Programming Guide 13.0, specifications per compute capability)."""

    threads: int
    blocks: int


DEVICES = {
    "sm_75": Device(1024, 16),
    "sm_80": Device(2048, 32),
    "sm_86": Device(1536, 16),
    "sm_89": Device(1536, 24),
    "sm_90": Device(2048, 32),
    "sm_100": Device(2048, 32),
    "sm_120": Device(1536, 24),
}
REGISTERS, REGISTER_UNIT = 65536, 256  # of a multiprocessor, and what a warp gets a multiple of; the same on all


def occupancy(code: Code) -> int:
    """Theoretical, in percent, for blocks of as many threads as the kernel allows."""
    device, warps = DEVICES[code.arch], -(-code.threads // 32)
    of_a_warp = -(-max(1, code.registers) * 32 // REGISTER_UNIT) * REGISTER_UNIT
    # A warp belongs to one of four partitions, which have a quarter of the registers each.
    by_registers = REGISTERS // 4 // of_a_warp * 4 // warps
    blocks = min(device.threads // (warps * 32), device.blocks, by_registers)
    return blocks * warps * 32 * 100 // device.threads


class Line(NamedTuple):
    """``pattern of kernels | rule [<= number] | [architectures |] reason`` of a file."""

    kernels: str
    rule: str
    most: float
    archs: tuple[str, ...]  # none: all
    reason: str

    def fits(self, code: Code, rule: str) -> bool:
        return (
            fnmatch.fnmatch(code.name, self.kernels)
            and self.rule == rule
            and (not self.archs or code.arch in self.archs)
        )


def read(path: Path) -> list[Line]:
    """The lines of a file, without comments.

    Raises:
        ValueError: a line is not of the form above.
    """
    lines = []
    for text in path.read_text().splitlines():
        if not text or text.startswith("#"):
            continue
        parts = [part.strip() for part in text.split("|")]
        kernels, rule, *archs, reason = parts if len(parts) >= 3 else ("", "", "", "")
        form = re.fullmatch(r"([a-z' -]+?)(?: <= ([\d.]+))?", rule)
        if not (kernels and form and reason and len(archs) <= 1):
            raise ValueError(f"{path.name}: not 'kernels | rule <= number | [architectures |] reason': {text}")
        named = tuple(archs[0].split()) if archs else ()
        if unknown := set(named) - set(DEVICES):
            raise ValueError(f"{path.name}: no such architecture as {', '.join(unknown)}: {text}")
        lines.append(Line(kernels, form[1], float(form[2] or "inf"), named, reason))
    return lines


def is_wide(name: str) -> bool:
    """Whether the kernel's results are packs of 16 bytes."""
    match = re.match(r"nchw_stream<(\w+), \d, \d, (\d)>", name)
    return match is not None and int(match[2]) * (4 if match[1] == "float" else 2) == 16


def narrow_accesses(code: Code) -> str:
    """What a kernel of 16-byte packs does in less: any store, or all loads (halos are narrow)."""
    stores = {i for i in code.instructions if i.startswith("STG") and ".128" not in i}
    loads = any(i.startswith("LDG") and ".128" in i for i in code.instructions)
    return f"{', '.join(sorted(stores)) or 'no LDG.128'}" if stores or not loads else ""


def numbers(code: Code) -> dict[str, tuple[float, str]]:
    """What is limited by a number: how much there is, and its unit."""
    return {
        "registers": (code.registers, ""),
        "stack": (code.stack, " bytes"),
        "spills": (code.spills, " bytes"),
        "shared memory": (code.shared, " bytes"),
    }


LIMITS = {"stack": 0, "spills": 0, "shared memory": MAX_STATIC_SHARED}


def faults(code: Code) -> dict[str, str]:
    """What no kernel may have: rule and finding, empty if there is none."""
    opcodes = set(code.opcodes())
    in_loops = {opcode for first, last in code.loops for opcode in code.opcodes(first, last + 1)}
    main = set(code.opcodes(code.main_loop()[0], code.main_loop()[1] + 1)) if code.loops else set()

    def any_of(found: set[str], names: str) -> str:
        return " ".join(sorted(found & set(names.split())))

    return {
        "local memory": any_of(opcodes, "LDL STL"),
        "atomics": any_of(opcodes, "ATOM ATOMG RED REDG"),
        "integer division in a loop": any_of(in_loops, "I2F F2I"),
        "wide accesses": narrow_accesses(code) if code.instructions and is_wide(code.name) else "",
        "stores in grad_weight's loop": any_of(main, "STG") if "grad_weight" in code.name else "",
    }


class Judge:
    """Holds kernels to rules and budgets, and remembers which exceptions were needed."""

    def __init__(self, budgets: list[Line] | None = None, exceptions: list[Line] | None = None) -> None:
        self.budgets = read(BUDGETS) if budgets is None else budgets
        self.exceptions = read(EXCEPTIONS) if exceptions is None else exceptions
        self.needed: set[Line] = set()

    def budget(self, code: Code, rule: str) -> float | None:
        """The first that fits, without exceptions."""
        return next((line.most for line in self.budgets if line.fits(code, rule)), LIMITS.get(rule))

    def excused(self, code: Code, rule: str, value: float = 0) -> bool:
        fitting = [line for line in self.exceptions if line.fits(code, rule) and value <= line.most]
        self.needed.update(fitting)
        return bool(fitting)

    def over(self, code: Code, rule: str, value: float) -> str:
        """Empty, or how far it is over what is allowed."""
        most = self.budget(code, rule)
        if most is None or value <= most or self.excused(code, rule, value):
            return ""
        raised = [line.most for line in self.exceptions if line.fits(code, rule)]
        return f"{value:g}, {max([most, *raised]):g} allowed"

    def broken(self, code: Code) -> dict[str, str]:
        """Rule and finding of what is neither kept nor excused."""
        if any(fnmatch.fnmatch(code.name, plain) for plain in PLAIN_KERNELS):
            return {}
        over = {rule: self.over(code, rule, value) for rule, (value, _) in numbers(code).items()}
        found = {rule: text for rule, text in faults(code).items() if text and not self.excused(code, rule)}
        return {rule: text for rule, text in (over | found).items() if text}

    def unneeded(self, archs: set[str], among: Callable[[Line], bool] = lambda line: True) -> list[Line]:
        """Exceptions that nothing of these architectures needed."""
        return [
            line
            for line in self.exceptions
            if line not in self.needed and among(line) and (not line.archs or set(line.archs) & archs)
        ]

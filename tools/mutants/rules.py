"""Which mutants there are: one operator, bound, index, mask or sign of a kernel body changed, by rules over its text.

Nothing here names a line of a kernel. A mutant is a rule applied at one place of one line, and its id is a hash of the
line and the place: the same for as long as the line stays as it is, whatever moves around it and wherever it moves.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]

# (what is looked for, what it becomes)
RULES = (
    (r" < ", " <= "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" >= ", " > "),
    (r" == ", " != "),
    (r" \+ 1\b", ""),
    (r" - 1\b", ""),
    (r" \+ ", " - "),
    (r" - ", " + "),
    (r" \* ", " + "),
    (r" % ", " / "),
    (r" \+= ", " -= "),
    (r" && ", " || "),
    (r" \|\| ", " && "),
    (r"\bstd::min\b", "std::max"),
    (r"\bstd::max\b", "std::min"),
    (r"\bstride_h\b", "stride_w"),
    (r"\bstride_w\b", "stride_h"),
    (r"\bdilation_h\b", "dilation_w"),
    (r"\bpad_top\b", "pad_left"),
    (r"\bpad_left\b", "pad_top"),
)
# Lines without arithmetic of the kernel's own: declarations, reasons of refusals, hints to the machine, tuning.
NOT_MUTATED = re.compile(
    r'^\s*(#|//|template|static_assert|using)|"|prefetch|PREFETCH|[aA]head|operator|constexpr [\w:<> ]+ k[A-Z]'
)


class Mutant(NamedTuple):
    """Line `line` (from 0) of `path` (from the root), which becomes `text`."""

    id: str
    path: str
    line: int
    original: str
    text: str

    def __str__(self) -> str:
        return f"{self.id} {self.path}:{self.line + 1}: {self.original.strip()}  ->  {self.text.strip()}"

    @property
    def is_cuda(self) -> bool:
        return self.path.endswith(".cuh")

    def source(self) -> str:
        """The whole file, mutated."""
        lines = (ROOT / self.path).read_text().split("\n")
        assert lines[self.line] == self.original, f"{self.path} has changed under the mutant {self.id}"
        lines[self.line] = self.text
        return "\n".join(lines)


def emulated(lines: list[str]) -> Iterator[bool]:
    """Which lines of a CUDA body the host's compiler takes, where no device is: what is left no test runs."""
    taken: list[tuple[bool, bool]] = []  # of each #if that is open: this branch, any of its branches so far
    for line in lines:
        if line.startswith(("#if", "#elif")):
            holds = bool(re.match(r"#\w+ (defined\()?DWCONV_EMULATED\b", line))
            before = line.startswith("#elif") and taken.pop()[1]
            taken.append((holds and not before, holds or before))
        elif line.startswith("#else"):
            taken.append((not taken.pop()[1], True))
        elif line.startswith("#endif"):
            taken.pop()
        yield all(branch for branch, _ in taken)


def of_text(path: str, source: str) -> Iterator[Mutant]:
    """Every mutant of a source text. Of equal lines only the first is taken."""
    seen = set()
    lines = source.split("\n")
    runs = list(emulated(lines)) if path.endswith(".cuh") else [True] * len(lines)
    for number, line in enumerate(lines):
        code = line.split("//")[0].rstrip()
        if not runs[number] or NOT_MUTATED.search(code) or code in seen:
            continue
        seen.add(code)
        for pattern, replacement in RULES:
            for match in re.finditer(pattern, code):
                text = code[: match.start()] + replacement + code[match.end() :]
                key = f"{code.strip()}|{pattern}|{match.start()}"
                yield Mutant(hashlib.sha256(key.encode()).hexdigest()[:8], path, number, line, text)


def bodies() -> list[Path]:
    """The headers with kernel bodies, and what these are made of. Not csrc/cpu/block, which calls kernels."""
    cpu = [path for path in (ROOT / "csrc/cpu").rglob("*.h") if path.parent.name not in ("cpu", "block")]
    not_bodies = {"kernels.h", "choice.h", "target.h", "for_each_target.h", "next_target.h"}
    cuda = [path for path in (ROOT / "csrc/cuda").rglob("*.cuh") if path.name != "device.cuh"]
    return sorted(path for path in cpu + cuda if path.name not in not_bodies)

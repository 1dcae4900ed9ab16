"""Which mutants have to be killed, and a part of them that is another one every day."""

import datetime
import random
from pathlib import Path

from tools.mutants.rules import ROOT, Mutant, bodies, of_text

VERDICTS = Path(__file__).with_name("verdicts.txt")
PER_FILE = 3
PER_CUDA_FILE = 5


def verdicts() -> dict[str, str]:
    """By id, what verdicts.txt says: `killed`, perhaps as which build, or why the mutant survives and may."""
    lines = VERDICTS.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


def chosen() -> list[Mutant]:
    """Of each body all that have a verdict, and then others by the order of their ids, one of a line, up to PER_FILE.

    A line that several bodies have is mutated in the first of them only.
    """
    judged = verdicts().keys()
    mutants: dict[str, Mutant] = {}
    for path in bodies():
        wanted = PER_CUDA_FILE if path.suffix == ".cuh" else PER_FILE
        every = [m for m in of_text(str(path.relative_to(ROOT)), path.read_text()) if m.id not in mutants]
        known = [mutant for mutant in every if mutant.id in judged]
        others: dict[int, Mutant] = {}
        for mutant in sorted(every):
            others.setdefault(mutant.line, mutant)
        for mutant in known:
            others.pop(mutant.line, None)
        mutants |= {m.id: m for m in [*known, *list(others.values())[: max(0, wanted - len(known))]]}
    return list(mutants.values())


def is_killed(verdict: str) -> bool:
    return verdict == "killed" or verdict.startswith("killed as ")


def killer(mutant: Mutant) -> str | None:
    """The build that the mutant was killed as, where verdicts.txt names it."""
    return verdicts().get(mutant.id, "").partition("killed as ")[2] or None


def record(mutant: Mutant, verdict: str) -> None:
    """That it was killed, and as which build, unless there is a verdict that says as much."""
    if verdicts().get(mutant.id, "killed") != "killed":
        return
    lines = [line for line in VERDICTS.read_text().splitlines() if not line.startswith(mutant.id)]
    VERDICTS.write_text("\n".join([*lines, f"{mutant.id} {verdict}", ""]))


def needed() -> list[Mutant]:
    """All but those with a reason to survive."""
    return [mutant for mutant in chosen() if is_killed(verdicts().get(mutant.id, "killed"))]


def sampled(count: int) -> list[Mutant]:
    """Some of those that have been killed before, a third of them CUDA's: they go another way."""
    rng = random.Random(datetime.date.today().toordinal())
    killed = [mutant for mutant in chosen() if is_killed(verdicts().get(mutant.id, ""))]
    of_cuda = [mutant for mutant in killed if mutant.is_cuda]
    picked = rng.sample(of_cuda, min(count // 3, len(of_cuda)))
    others = [mutant for mutant in killed if not mutant.is_cuda]
    return picked + rng.sample(others, min(count - len(picked), len(others)))

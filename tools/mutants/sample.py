"""Which mutants have to be killed, and a part of them that is another one every day."""

import datetime
import random
from pathlib import Path

from tools.mutants.rules import Mutant, chosen

VERDICTS = Path(__file__).with_name("verdicts.txt")


def verdicts() -> dict[str, str]:
    """By id, what verdicts.txt says: `killed`, perhaps as which build, or why the mutant survives and may."""
    lines = VERDICTS.read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines if line and not line.startswith("#"))


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

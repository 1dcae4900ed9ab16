"""Who takes part: this library ("ours") and whom it is compared with.

A contestant is a module with

    version() -> str                    raises ImportError when it is not installed
    runs(problem) -> {mode: Run}        raises Refused, with the reason, for a problem that it cannot compute

A mode says where the result goes: "fresh" into memory that the call allocates, "reused" into a buffer that the call is
given. Contestants have only the modes that they really offer. A module is imported when it is asked for, no sooner.
"""

import importlib
from types import ModuleType
from typing import NamedTuple

MODES = ("fresh", "reused")


class Contestant(NamedTuple):
    """Where a contestant is, and, to estimate how long a run takes, what timing it costs.

    Attributes:
        module: the full name of its module.
        setup_seconds: what it needs for a problem beside its samples, to compile or to build a session.
        slow: it computes about as fast as eager PyTorch.
    """

    module: str
    setup_seconds: float = 0.0
    slow: bool = False


OURS = Contestant(f"{__name__}.ours")
OTHERS = {"torch": Contestant(f"{__name__}.eager", slow=True)}


class Refused(Exception):
    """A contestant does not compute a problem; the message says why, in a few words."""


def load(contestant: Contestant) -> tuple[ModuleType, str]:
    """The contestant's module and its version.

    Raises:
        ImportError: it is not installed.
    """
    module = importlib.import_module(contestant.module)
    return module, module.version()


def forward_only(problem) -> None:
    """Refuses the gradients."""
    if problem.cell.operation != "forward":
        raise Refused("no gradients")


def dtypes_only(problem, *names: str) -> None:
    """Refuses every dtype but `names`."""
    if problem.cell.dtype not in names:
        raise Refused(f"no {problem.cell.dtype}")

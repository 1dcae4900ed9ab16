"""Who takes part: this library ("ours") and the engines that it is compared with.

A contestant is a module of this package with

    version() -> str                    raises ImportError when it is not installed
    runs(problem) -> {mode: Run}        raises Refused, with the reason, for a problem that it cannot compute

A mode says where the result goes: "fresh" into memory that the call allocates, "reused" into a buffer that the call is
given. Contestants have only the modes that they really offer. A module is imported when it is asked for, no sooner.
"""

import importlib
from types import ModuleType

MODES = ("fresh", "reused")

OTHERS = {
    "torch": "eager",
    "compile": "inductor",
    "onednn": "onednn",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorflow": "tensorflow",
    "litert": "litert",
}


class Refused(Exception):
    """A contestant does not compute a problem; the message says why, in a few words."""


def load(name: str) -> tuple[ModuleType, str]:
    """A contestant and its version.

    Raises:
        ImportError: it is not installed.
    """
    module = importlib.import_module("." + ("ours" if name == "ours" else OTHERS[name]), __package__)
    return module, module.version()


def forward_only(problem) -> None:
    """Refuses the gradients."""
    if problem.cell.operation != "forward":
        raise Refused("no gradients")


def dtypes_only(problem, *names: str) -> None:
    """Refuses every dtype but `names`."""
    if problem.cell.dtype not in names:
        raise Refused(f"no {problem.cell.dtype}")

"""What must stand beside a figure: machine, versions, commit, date."""

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch

from ..operators import native
from ..version import __version__


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def _cache_sizes() -> dict[str, str]:
    """Size of each cache level of the first core, as Linux gives it: {"L1 Data": "48K", ...}."""
    sizes = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        sizes[f"L{level}" + ("" if kind == "Unified" else f" {kind}")] = size
    return sizes


def _commit() -> str | None:
    """The checkout's commit, with "+" if files differ from it; None for an installed package."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=checkout, capture_output=True, text=True, check=True).stdout.strip()
            for command in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")


# What caps the instruction sets of torch_dwconv, PyTorch, and the engines that are made of oneDNN.
_CAPS = ("TORCH_DWCONV_ISA", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")


def facts(contestants: Mapping[str, str], command: str) -> dict:
    """Machine, its load before the run, ISA, commit, date, `command`, and versions, those of `contestants` too."""
    return {
        "command": command,
        "caps": {name: os.environ[name] for name in _CAPS if name in os.environ},
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "caches": _cache_sizes(),
        "load": os.getloadavg()[0],
        "isa": native.cpu_library.dwconv_isa().decode(),
        "cpu_isa": native.cpu_library.dwconv_cpu_isa().decode(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_dwconv": __version__,
        "commit": _commit(),
        "contestants": dict(contestants),
    }

"""pytest, in several processes where pytest-xdist is installed: ``python -m tests.gpu.run_tests ARGUMENTS...``"""

import importlib.util
import os
import sys

import pytest
import torch

MOST = 8
MEMORY = 16 << 30  # of the device, that the largest test wants


def processes() -> int:
    """As many as the cores and the device's memory are enough for."""
    free, _ = torch.cuda.mem_get_info()
    return max(1, min(MOST, os.cpu_count() or 1, free // MEMORY))


if __name__ == "__main__":
    together = []
    if importlib.util.find_spec("xdist"):
        count = processes()
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
        together = ["-n", str(count), "--dist", "worksteal"]
    sys.exit(pytest.main([*together, *sys.argv[1:]]))

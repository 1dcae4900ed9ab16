"""``python -m torch_dwconv.bench``: see --help and docs/benchmark.md."""

import sys

from .runner import main
from .suite import SUITE

if __name__ == "__main__":
    sys.exit(main(SUITE))

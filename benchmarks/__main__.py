"""``python -m benchmarks``: see --help, README.md here and docs/benchmark.md."""

import sys

from torch_dwconv.bench.runner import main

from .suite import SUITE

if __name__ == "__main__":
    sys.exit(main(SUITE))

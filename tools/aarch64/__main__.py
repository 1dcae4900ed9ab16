"""``python -m tools.aarch64``: a wheel for 64-bit Arm, and the package used from it on an emulated machine."""

import argparse
import sys
from pathlib import Path

from . import check, system, wheel


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.aarch64", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("step", choices=("wheel", "check", "slice"), help="check is all of it; slice takes minutes")
    parser.add_argument("--output", type=Path, default=system.REPOSITORY / "dist" / "aarch64", metavar="DIR")
    options = parser.parse_args()
    system.make()
    made = wheel.build(options.output.resolve())
    if options.step != "wheel":
        check.run(made, whole=options.step == "check")
    return 0


if __name__ == "__main__":
    sys.exit(main())

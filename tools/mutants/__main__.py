"""Mutates kernels and says which mutants the checkers kill.

    python -m tools.mutants                all that have to be killed
    python -m tools.mutants ID...          these
    python -m tools.mutants --new          those without a verdict
    python -m tools.mutants --sample N     N of those that were killed before, others every day
    python -m tools.mutants --list         only their names

Verdicts are kept in verdicts.txt; --record adds those that were killed, and as which build, which is tried first from
then on. A survivor that computes the same, at another speed, goes there with the reason; any other one shows a hole in
the nets. The exit status is the number of survivors, up to 100.
"""

import argparse
import sys
import time

from tools.mutants.build import check
from tools.mutants.sample import chosen, is_killed, needed, record, sampled, verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    mutants = sampled(arguments.sample) if arguments.sample else needed()
    if arguments.new:
        mutants = [mutant for mutant in chosen() if mutant.id not in verdicts()]
    if arguments.ids:
        by_id = {mutant.id: mutant for mutant in chosen()}
        mutants = [by_id[id] for id in arguments.ids]
    counts: dict[str, int] = {}
    for mutant in mutants:
        if arguments.list:
            print(mutant)
            continue
        start = time.monotonic()
        verdict = check(mutant)
        kind = verdict.split(" as ")[0]
        counts[kind] = counts.get(kind, 0) + 1
        if arguments.record and is_killed(verdict):
            record(mutant, verdict)
        print(f"{verdict:40} {time.monotonic() - start:5.1f} s  {mutant}", flush=True)
    print(f"{len(mutants)} mutants: {counts}; {len(verdicts())} have a verdict in verdicts.txt")
    return min(100, counts.get("survived", 0))


if __name__ == "__main__":
    sys.exit(main())

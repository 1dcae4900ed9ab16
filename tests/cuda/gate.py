"""The static gate: what nvcc makes of the CUDA kernels, read from its resource report and the machine code.

    python -m tests.cuda.gate                           # sm_90 in full
    python -m tests.cuda.gate --arch sm_80 sm_120       # others; --arch all
    python -m tests.cuda.gate --compile-only sm_75      # that it compiles, and what its report says; others: the rest
    python -m tests.cuda.gate --only 'nchw*' --verbose  # of some sources, every kernel

Nothing runs. Every kernel must keep the rules of ``gate_rules.py`` and the budgets of ``gate_budgets.txt``;
``gate_counts.cu`` instantiates some of them beside a plain kernel of one thread for each output, and their instructions
for each output must keep budgets too. A line in ``gate_exceptions.txt`` lets a kernel break a rule or exceed a budget,
and says why. Needs nvcc 13 and nvdisasm (PyPI: nvidia-cuda-nvdisasm, or the toolkit).
"""

import argparse
import fnmatch
import json
import re
import sys
import tempfile
from pathlib import Path

from tests.cuda.gate_compile import ARCHITECTURES, ROOT, Code, compiled
from tests.cuda.gate_rules import Judge, occupancy

SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
COUNTED = Path(__file__).with_name("gate_counts.cu")
# Of gate_counts.cu: the plain kernels, and for each the one that must do with an eighth of its instructions.
PLAIN = {
    "one_thread_per_output<float, {}>": ("all", "nchw_stream<float, {}, 1, 4, 7>"),
    "one_block_per_tap<float, {}>": ("loop", "nchw_stream_grad_weight<float, {}, 1, 4>"),
}
LEAST_RATIO = 8
RULE = {"all": "instructions", "loop": "instructions of the loop"}


def counted(kernels: list[Code], judge: Judge) -> dict[str, tuple[str, float]]:
    """The part of each kernel of gate_counts.cu that is counted, and its instructions for each output."""
    counts = {}
    plain = {name.format(size): part for name, (part, _) in PLAIN.items() for size in (3, 5, 7)}
    for code in kernels:
        part = plain.get(code.name) or next((p for p, rule in RULE.items() if judge.budget(code, rule)), None)
        if part:
            counts[code.name] = (part, code.per_output(part, int(re.search(r", (\d+)", code.name)[1]) ** 2))
    return counts


def judged(code: Code, counts: dict[str, tuple[str, float]], judge: Judge) -> tuple[str, bool]:
    """What the table says of a count, and whether it breaks its budget or is not an eighth of the plain kernel's."""
    if code.name not in counts:
        return "", False
    part, count = counts[code.name]
    budget = judge.budget(code, RULE[part])
    if budget is None:
        return f"{count:.1f} ({part}), for comparison", False
    text, breach = f"{count:.1f} ({part}), budget {budget:g}", bool(judge.over(code, RULE[part], count))
    for plain, (_, ours) in PLAIN.items():
        for size in (3, 5, 7):
            if ours.format(size) == code.name:
                ratio = counts[plain.format(size)][1] / count
                text, breach = f"{text}, {ratio:.1f}x fewer than plain", breach or ratio < LEAST_RATIO
    return text, breach


def widths(kernel: Code) -> str:
    """How wide loads and stores of global memory are, in bits: ``128 32 / 128``."""

    def bits(opcode: str) -> str:
        found = {
            128 if ".128" in i else 64 if ".64" in i else 16 if ".U16" in i or ".16" in i else 32
            for i in kernel.instructions
            if i.split(".")[0] == opcode
        }
        return " ".join(map(str, sorted(found, reverse=True)))

    return f"{bits('LDG')} / {bits('STG')}"


def row(code: Code, per_output: str = "") -> str:
    return (
        f"{code.arch:7} {code.name:48} {code.registers:4} {code.spills:4} {occupancy(code):4} % "
        f"{widths(code) if code.instructions else '':20} {per_output}"
    )


def summary(kernels: list[Code]) -> list[str]:
    """A line for each template: how many kernels of it there are, and the range of what they need."""
    families: dict[str, list[Code]] = {}
    for code in kernels:
        families.setdefault(code.name.split("<")[0], []).append(code)

    def between(values: list[int]) -> str:
        return f"{min(values)}" if min(values) == max(values) else f"{min(values)}-{max(values)}"

    return [
        f"{family:40} {len(codes):4} kernels, registers {between([c.registers for c in codes])}, "
        f"spills {between([c.spills for c in codes])}, occupancy {between([occupancy(c) for c in codes])} %"
        for family, codes in sorted(families.items())
    ]


def table(arch: str, kernels: list[Code], counts: dict[str, str], verbose: bool) -> list[str]:
    """What is said of an architecture: every kernel, or a summary of what is not counted."""
    lines = [f"== {arch}"]
    if verbose:
        heading = f"{'kernel':48} {'regs':>4} {'spil':>4} {'occu':>6} {'loads / stores, bits':20}"
        lines += [f"{'':7} {heading} instructions per output"]
        lines += [row(code, counts.get(code.name, "")) for code in kernels]
    else:
        lines += summary(kernels)
        lines += [row(code, counts[code.name]) for code in kernels if code.name in counts]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="*", default=["sm_90"], help="architectures to check in full, or all")
    parser.add_argument(
        "--compile-only", nargs="*", default=[], help="architectures whose machine code is not read, or others"
    )
    parser.add_argument("--only", default="*", help="pattern of source files' names")
    parser.add_argument("--verbose", action="store_true", help="every kernel, not a summary for each architecture")
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    options = parser.parse_args()
    full = set(ARCHITECTURES if options.arch == ["all"] else options.arch)
    others = set(ARCHITECTURES if options.compile_only == ["others"] else options.compile_only) - full
    if unknown := (full | others) - set(ARCHITECTURES):
        parser.error(f"no such architecture as {', '.join(unknown)}: there are {', '.join(ARCHITECTURES)}")

    sources = [source for source in [*SOURCES, COUNTED] if fnmatch.fnmatch(source.name, options.only)]
    judge, failures = Judge(), []
    by_arch: dict[str, dict[bool, list[Code]]] = {}
    try:
        with tempfile.TemporaryDirectory() as work:
            for source, kernels in compiled(sources, full, others, Path(work)):
                for code in kernels:
                    by_arch.setdefault(code.arch, {}).setdefault(source == COUNTED, []).append(code)
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(str(error))
    for arch in sorted(by_arch, key=ARCHITECTURES.index):
        own = sorted(by_arch[arch].get(False, []), key=lambda code: code.name)
        extra = sorted(by_arch[arch].get(True, []), key=lambda code: code.name)
        counts = counted(extra, judge) if arch in full else {}
        texts = {}
        for code in extra:
            texts[code.name], breach = judged(code, counts, judge)
            if breach:
                failures.append(f"{arch} {code.name}: {texts[code.name]}")
        for code in own + extra:
            failures += [f"{arch} {code.name}: {rule}: {found}" for rule, found in judge.broken(code).items()]
        print("\n".join(table(arch, own, {}, options.verbose)))
        print("\n".join(row(code, texts[code.name]) for code in extra if texts[code.name]), flush=True)
    if options.json:
        found = [code.facts() for kinds in by_arch.values() for codes in kinds.values() for code in codes]
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.only == "*" and full == set(ARCHITECTURES):
        for line in judge.unneeded(full):
            print(f"not needed any more: {line.kernels} | {line.rule} | {' '.join(line.archs)}")
    for failure in sorted(failures):
        print(f"FAILED {failure}")
    print(f"{len(failures)} breaches")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

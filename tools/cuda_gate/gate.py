"""The static gate: what nvcc makes of the CUDA kernels, read from its resource report and the machine code.

    python -m tools.cuda_gate                           # sm_90 in full
    python -m tools.cuda_gate --arch sm_80 sm_120       # others; --arch all
    python -m tools.cuda_gate --compile-only sm_75      # that it compiles, and what its report says; others: the rest;
                                                        # today: one of the rest, another one each day
    python -m tools.cuda_gate --only 'nchw*' --verbose  # of one family, every kernel

Every kernel must keep the rules of ``rules.py`` and the budgets of ``budgets.txt``. The machine code then
runs on the CPU (``sass/machine.py``): it must compute the right numbers, and what it executes for each output of real
layers must keep budgets too, and be an eighth of a plain kernel's (``counts.py``). A line in
``exceptions.txt`` lets a kernel break a rule or exceed a budget, and says why. Needs nvcc 13 and nvdisasm (PyPI:
nvidia-cuda-nvdisasm, or the toolkit).
"""

import argparse
import datetime
import fnmatch
import json
import sys
import tempfile
from pathlib import Path

from tests.cuda.harness import all_kernels
from tests.kernels.oracle import Problem
from tests.kernels.shapes import Shape
from tools.cuda_gate import counts as layer_counts
from tools.cuda_gate.compile import ARCHITECTURES, ROOT, Code, compiled
from tools.cuda_gate.rules import Judge, occupancy
from tools.cuda_gate.run import Operation

SOURCES = sorted((ROOT / "csrc/cuda").glob("*/kernels.cu"))
PLAIN = Path(__file__).with_name("plain.cu")
LEAST_RATIO = 8  # of a plain kernel's instructions to ours, for forward and grad_weight in float32
RATIO = "an eighth of plain"
COUNTS = {
    "instructions": "instructions",
    "instructions of the loop": "loop",
    "bytes read": "read",
    "bytes written": "written",
    "share of the two kernels": "share",
}
# Small and whole, with what a kernel finds hard: rows that are packs or not, borders, several images and channels.
RUN = [
    Shape(2, 3, 1, 9, 16, k, k, 9 if s == 1 else 5, 16 // s, s, s, pad_top=k // 2, pad_left=k // 2)
    for k in (3, 5, 7, 9)
    for s in (1, 2)
] + [Shape(3, 16, 1, 7, 7, 3, 3, 7, 7, pad_top=1, pad_left=1), Shape(1, 16, 1, 6, 5, 5, 5, 4, 4, pad_top=1, pad_left=2)]
# As many small planes as their kernels want, for these only.
RUN_SMALL = [
    Shape(3, c, 1, side * s, side * s, k, k, side, side, s, s, pad_top=k // 2, pad_left=k // 2)
    for side, s, c in ((7, 1, 700), (7, 2, 700), (14, 1, 345))
    for k in (3, 5, 7)
]


def counted(arch: str, kernels: list[Code], judge: Judge) -> tuple[list[str], list[str], list[dict]]:
    """Of every layer of budgets.txt the line of the table, the breaches, and what was found as numbers."""
    texts, capability = {code.name: code.text for code in kernels}, int(arch[3:])
    budgets: dict[str, list[str]] = {}
    for line in judge.budgets:
        if line.rule in COUNTS and (not line.archs or arch in line.archs):
            budgets.setdefault(line.kernels, []).append(line.rule)
    rows, breaches, found = [], [], []
    for name, rules in budgets.items():
        layer = layer_counts.layer(name)
        count = layer_counts.counts(layer, texts, capability)
        code, said = Code(name, arch), []
        for rule in rules:
            value = round(getattr(count, COUNTS[rule]), 2)
            said.append(f"{value} {rule}, budget {judge.budget(code, rule):g}")
            if over := judge.over(code, rule, value):
                breaches.append(f"{arch} {name}: {rule}: {over}")
        ratio = None
        plain = layer.operation == "forward" or (layer.operation == "grad_weight" and layer.layout == "nchw")
        if plain and layer.dtype == "f32":
            ratio = layer_counts.plain_counts(layer, texts, capability).issued / layer.outputs / count.instructions
            said.append(f"{ratio:.1f}x fewer than plain")
            if ratio < LEAST_RATIO and not judge.excused(code, RATIO):
                breaches.append(f"{arch} {name}: {ratio:.1f}x fewer than the plain kernel, {LEAST_RATIO} wanted")
        rows.append(f"{name:44} {', '.join(said)}  [{count.kernels[0]}]")
        numbers = {rule: getattr(count, name_of) for rule, name_of in COUNTS.items()}
        found.append({"layer": name, "arch": arch, "kernels": count.kernels, "times fewer": ratio, **numbers})
    return rows, breaches, found


def computed(arch: str, kernels: list[Code]) -> list[str]:
    """Registry lines whose machine code, run on a CPU, does not compute what it should."""
    texts, wrong = {code.name: code.text for code in kernels}, []
    for kernel in all_kernels():
        for shape in RUN_SMALL if "_planes_" in kernel.kernel.name or "_runs_" in kernel.kernel.name else RUN:
            # The kernels for every shape are slow here; test_values.py runs them as compiled for the host.
            if "_window_" in kernel.kernel.name or kernel.kernel.refusal(shape):
                continue
            if int(arch[3:]) < kernel.compute_capability:
                continue
            operation = Operation(kernel, shape, Problem(shape, "integers"))
            try:
                operation.run(texts, int(arch[3:]))
                error = operation.wrong()
            except (IndexError, KeyError, NotImplementedError, ValueError) as found:
                error = f"{type(found).__name__} {found}"
            if error:
                wrong.append(f"{arch} {kernel.kernel.name}: {error}, on {shape}")
    return wrong


def family(source: Path) -> str:
    """The folder that a source stands for; ``plain`` of the kernels for comparison."""
    return "plain" if source == PLAIN else source.parent.name


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


def row(code: Code) -> str:
    return (
        f"{code.arch:7} {code.name:48} {code.registers:4} {code.spills:4} {occupancy(code):4} % "
        f"{widths(code) if code.instructions else ''}"
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


def table(arch: str, kernels: list[Code], verbose: bool) -> list[str]:
    """What is said of an architecture: every kernel, or a summary."""
    if not verbose:
        return [f"== {arch}", *summary(kernels)]
    heading = f"{'kernel':48} {'regs':>4} {'spil':>4} {'occu':>6} loads / stores, bits"
    return [f"== {arch}", f"{'':7} {heading}", *map(row, kernels)]


def compile_only(asked: list[str], full: set[str], day: datetime.date) -> list[str]:
    """The architectures that ``--compile-only`` names on a day."""
    rest = [arch for arch in ARCHITECTURES if arch not in full]
    match asked:
        case ["others"]:
            return rest
        case ["today"]:
            return [rest[day.toordinal() % len(rest)]] if rest else []
    return [arch for arch in asked if arch not in full]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="*", default=["sm_90"], help="architectures to check in full, or all")
    parser.add_argument(
        "--compile-only",
        nargs="*",
        default=[],
        help="architectures whose machine code is not read, or others, or today",
    )
    parser.add_argument("--only", default="*", help="pattern of the names of families, the folders of csrc/cuda")
    parser.add_argument("--verbose", action="store_true", help="every kernel, not a summary for each architecture")
    parser.add_argument("--json", type=Path, help="file to write what was found to")
    options = parser.parse_args()
    full = set(ARCHITECTURES if options.arch == ["all"] else options.arch)
    others = set(compile_only(options.compile_only, full, datetime.date.today()))
    if unknown := (full | others) - set(ARCHITECTURES):
        parser.error(f"no such architecture as {', '.join(unknown)}: there are {', '.join(ARCHITECTURES)}")

    sources = [source for source in [*SOURCES, PLAIN] if fnmatch.fnmatch(family(source), options.only)]
    if not sources:
        parser.error(f"--only {options.only} names no family: there are {', '.join(map(family, [*SOURCES, PLAIN]))}")
    judge, failures = Judge(), []
    by_arch: dict[str, list[Code]] = {}
    counts: list[dict] = []
    try:
        with tempfile.TemporaryDirectory() as work:
            for kernels in compiled(sources, full, others, Path(work)):
                for code in kernels:
                    by_arch.setdefault(code.arch, []).append(code)
    except (FileNotFoundError, RuntimeError) as error:
        sys.exit(str(error))
    for arch in sorted(by_arch, key=ARCHITECTURES.index):
        own = sorted(by_arch[arch], key=lambda code: code.name)
        for code in own:
            failures += [f"{arch} {code.name}: {rule}: {found}" for rule, found in judge.broken(code).items()]
        print("\n".join(table(arch, own, options.verbose)), flush=True)
        if arch in full and options.only == "*":
            rows, breaches, found = counted(arch, own, judge)
            print("\n".join(rows), flush=True)
            failures += breaches + computed(arch, own)
            counts += found
    if options.json:
        facts = {"kernels": [code.facts() for codes in by_arch.values() for code in codes], "layers": counts}
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.only == "*" and full == set(ARCHITECTURES):
        for line in judge.unneeded(full):
            print(f"not needed any more: {line.kernels} | {line.rule} | {' '.join(line.archs)}")
    for failure in sorted(failures):
        print(f"FAILED {failure}")
    print(f"{len(failures)} breaches")
    return bool(failures)

"""The static gate: what nvcc makes of the CUDA kernels, read from its resource report and the machine code.

    python -m tests.cuda.gate                       # sm_90 in full
    python -m tests.cuda.gate --arch sm_80 sm_120   # others
    python -m tests.cuda.gate --compile-only sm_75  # that it compiles, and spills nothing

Nothing runs. Every kernel must keep the rules of ``broken_rules``; ``gate_counts.cu`` instantiates some of them beside
a plain kernel of one thread for each output, and their instructions for each output must keep the budgets below. A line
in ``gate_exceptions.txt`` lets a kernel break a rule, or raises its count, and says why. Needs nvcc 13 and nvdisasm
(PyPI: nvidia-cuda-nvdisasm, or the toolkit).
"""

import argparse
import fnmatch
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "csrc/cuda").glob("*.cu"))
COUNTED = Path(__file__).with_name("gate_counts.cu")
EXCEPTIONS = Path(__file__).with_name("gate_exceptions.txt")
MAX_STATIC_SHARED = 48 * 1024
# Registers a thread, by pattern of the kernel's name, the first that fits.
REGISTER_BUDGETS = {
    "nchw_stream<*, 3, ?, ?, ?>": 64,
    "nchw_stream<*, 5, ?, ?, ?>": 64,
    "nchw_stream<*, 7, ?, ?, ?>": 72,
    "nchw_stream_grad_weight<*, 3, ?, ?>": 64,
    "nchw_stream_grad_weight<*, 5, ?, ?>": 80,
    "*": 128,
}
# Of gate_counts.cu: instructions for each output, all of the kernel's code (straight-line kernels) or of its main loop.
COUNT_BUDGETS = {
    "nchw_stream<float, 3, 1, 4, 7>": ("all", 21),
    "nchw_stream<float, 5, 1, 4, 7>": ("all", 42),
    "nchw_stream<float, 7, 1, 4, 7>": ("all", 80),
    "nchw_stream<__half, 3, 1, 8, 7>": ("all", 20),
    "nchw_stream_grad_weight<float, 3, 1, 4>": ("loop", 16),
    "nchw_stream_grad_weight<float, 5, 1, 4>": ("loop", 42),
    "nchw_stream_grad_weight<float, 7, 1, 4>": ("loop", 64),
}
# Of gate_counts.cu: the plain kernels, and for each the one that must do with an eighth of its instructions.
PLAIN = {
    "one_thread_per_output<float, {}>": ("all", "nchw_stream<float, {}, 1, 4, 7>"),
    "one_block_per_tap<float, {}>": ("loop", "nchw_stream_grad_weight<float, {}, 1, 4>"),
}
LEAST_RATIO = 8


@dataclass
class Code:
    """One kernel: its name without namespace and parameters, the resource report, and its instructions in order."""

    name: str
    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared: int = 0
    instructions: list[str] = field(default_factory=list)  # opcodes with their suffixes
    loops: list[tuple[int, int]] = field(default_factory=list)  # [first, last] of each

    def opcodes(self, start: int = 0, end: int | None = None) -> list[str]:
        return [instruction.split(".")[0] for instruction in self.instructions[start:end]]

    def main_loop(self) -> tuple[int, int]:
        """The innermost of the loops with the most multiply-adds per instruction; the whole code if there is none."""

        def share(loop: tuple[int, int]) -> float:
            opcodes = self.opcodes(loop[0], loop[1] + 1)
            return sum(map(is_multiply_add, opcodes)) / len(opcodes)

        return max(self.loops, key=share, default=(0, len(self.instructions) - 1))

    def per_output(self, part: str, taps: int) -> float:
        """Instructions for each output of ``taps`` multiply-adds, each of which is executed once for what it is for."""
        first, last = self.main_loop() if part == "loop" else (0, len(self.instructions) - 1)
        opcodes = self.opcodes(first, last + 1)
        return len(opcodes) * taps / max(1, sum(map(is_multiply_add, opcodes)))


def is_multiply_add(opcode: str) -> bool:
    return opcode in ("FFMA", "DFMA", "FFMA2")


def tool(name: str) -> str:
    """Path of nvcc or nvdisasm."""
    wheel = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin", name)
    found = str(wheel) if wheel.exists() else shutil.which(name)
    if found is None:
        sys.exit(f"the static gate needs {name}: install the CUDA 13 toolkit, or pip install nvidia-cuda-{name}")
    return found


def demangled(names: list[str]) -> dict[str, str]:
    """``nchw_stream<float, 3, 1, 4, 7>`` for each mangled name."""
    out = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout
    plain = [
        re.sub(r"^void |dwconv::cuda::|\(dwconv::\w+\)|\(anonymous namespace\)::", "", line)
        for line in out.splitlines()
    ]
    return {mangled: re.sub(r"\(.*", "", name) for mangled, name in zip(names, plain, strict=True)}


def compiled(source: Path, arch: str, work: Path) -> list[Code]:
    """Compile one file and read what came out, without the instructions."""
    cubin = work / f"{source.stem}.{arch}.cubin"
    command = [tool("nvcc"), "-std=c++20", f"-arch={arch}", f"-I{ROOT / 'csrc/cuda'}", "-cubin", "-Xptxas=-v"]
    ran = subprocess.run(
        [*command, str(source), "-o", str(cubin)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if ran.returncode:
        sys.exit(f"{source} does not compile for {arch}:\n{ran.stdout}")
    kernels, current = {}, None
    for line in ran.stdout.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            current = kernels.setdefault(match[1], Code(match[1]))
        elif current and (match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", line)):
            current.stack, current.spills = int(match[1]), int(match[2]) + int(match[3])
        elif current and (match := re.search(r"Used (\d+) registers", line)):
            current.registers = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                current.shared = int(shared[1])
    names = demangled(list(kernels))
    for mangled, kernel in kernels.items():
        kernel.name = names[mangled]
    return list(kernels.values())


def disassemble(source: Path, arch: str, work: Path, kernels: list[Code]) -> None:
    """Fill in instructions and loops."""
    command = [tool("nvdisasm"), "-c", str(work / f"{source.stem}.{arch}.cubin")]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    sections = dict(re.findall(r"^\.text\.(\S+):\n(.*?)(?=^//-----|\Z)", text, flags=re.DOTALL | re.MULTILINE))
    names, by_name = demangled(list(sections)), {kernel.name: kernel for kernel in kernels}
    for mangled, body in sections.items():
        kernel, labels = by_name[names[mangled]], {}
        for line in body.splitlines():
            if match := re.match(r"(\.L_x_\d+):", line):
                labels[match[1]] = len(kernel.instructions)
            elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)(.*)", line):
                if match[1] == "NOP":
                    continue
                target = re.search(r"`\((\.L_x_\d+)\)", match[2])
                if match[1].startswith("BRA") and target and target[1] in labels:
                    # A branch to itself is the padding after the end.
                    if labels[target[1]] == len(kernel.instructions):
                        continue
                    kernel.loops.append((labels[target[1]], len(kernel.instructions)))
                kernel.instructions.append(match[1])


def is_wide(name: str) -> bool:
    """Whether the kernel's results are packs of 16 bytes."""
    match = re.match(r"nchw_stream<(\w+), \d, \d, (\d), \d>", name)
    return match is not None and int(match[2]) * (4 if match[1] == "float" else 2) == 16


def narrow_accesses(kernel: Code) -> str | None:
    """What a kernel of 16-byte packs does in less: any store, or all loads (halos are narrow)."""
    stores = {i for i in kernel.instructions if i.startswith("STG") and ".128" not in i}
    loads = any(i.startswith("LDG") and ".128" in i for i in kernel.instructions)
    return f"{', '.join(sorted(stores)) or 'no LDG.128'}" if stores or not loads else None


def broken_rules(kernel: Code) -> dict[str, str]:
    """What no kernel may do: rule and finding."""
    opcodes = kernel.opcodes()
    most = next(limit for pattern, limit in REGISTER_BUDGETS.items() if fnmatch.fnmatch(kernel.name, pattern))
    in_loops = {opcode for first, last in kernel.loops for opcode in kernel.opcodes(first, last + 1)}
    main = kernel.opcodes(kernel.main_loop()[0], kernel.main_loop()[1] + 1) if kernel.loops else []
    findings = {
        "stack": kernel.stack and f"{kernel.stack} bytes",
        "spills": kernel.spills and f"{kernel.spills} bytes",
        "local memory": {"LDL", "STL"} & set(opcodes) and "LDL or STL",
        "shared memory": kernel.shared > MAX_STATIC_SHARED and f"{kernel.shared} bytes static",
        "registers": kernel.registers > most and f"{kernel.registers}, {most} allowed",
        "atomics": {"ATOM", "ATOMG", "RED", "REDG"} & set(opcodes) and "ATOM or RED",
        "integer division in a loop": {"I2F", "F2I"} & in_loops and "I2F or F2I",
        "wide accesses": kernel.instructions and is_wide(kernel.name) and narrow_accesses(kernel),
        "stores in grad_weight's loop": "grad_weight" in kernel.name and "STG" in main and "STG",
    }
    return {rule: str(found) for rule, found in findings.items() if found}


def exceptions() -> list[tuple[str, str]]:
    """(kernel's pattern, rule) of each line ``pattern | rule | reason``; ``instructions <= 26`` raises a budget."""
    lines = [line.strip() for line in EXCEPTIONS.read_text().splitlines()]
    parts = [line.split("|") for line in lines if line and not line.startswith("#")]
    return [(pattern.strip(), rule.strip()) for pattern, rule, _reason in parts]


def counted(kernels: list[Code]) -> dict[str, tuple[str, float]]:
    """The part of each kernel of gate_counts.cu that is counted, and its instructions for each output."""
    parts = {name: part for name, (part, _) in COUNT_BUDGETS.items()}
    for size in (3, 5, 7):
        parts |= {name.format(size): part for name, (part, _) in PLAIN.items()}
    taps = {kernel.name: int(re.search(r", (\d+)", kernel.name)[1]) ** 2 for kernel in kernels}
    return {k.name: (parts[k.name], k.per_output(parts[k.name], taps[k.name])) for k in kernels if k.name in parts}


def judged(name: str, counts: dict[str, tuple[str, float]], allowed: list[tuple[str, str]]) -> tuple[str, bool]:
    """What the table says of a count, and whether it breaks its budget or is not an eighth of the plain kernel's."""
    if name not in counts:
        return "", False
    part, count = counts[name]
    if name not in COUNT_BUDGETS:
        return f"{count:.1f} ({part}), for comparison", False
    budget = COUNT_BUDGETS[name][1]
    raised = [float(rule.split()[-1]) for pattern, rule in allowed if pattern == name and "instructions" in rule]
    text, breach = f"{count:.1f} ({part}), budget {budget}", count > max([budget, *raised])
    for plain, (_, ours) in PLAIN.items():
        for size in (3, 5, 7):
            if ours.format(size) == name:
                ratio = counts[plain.format(size)][1] / count
                text, breach = f"{text}, {ratio:.1f}x fewer than plain", breach or ratio < LEAST_RATIO
    return text, breach


def occupancy(registers: int, threads: int = 128) -> int:
    """Theoretical, in percent of 2048 threads of a multiprocessor with 65536 registers, for blocks of ``threads``."""
    per_block = -(-registers // 8) * 8 * threads
    return min(2048 // threads, 65536 // max(1, per_block)) * threads * 100 // 2048


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


def row(kernel: Code, arch: str, per_output: str = "") -> str:
    return (
        f"{arch:7} {kernel.name:48} {kernel.registers:4} {kernel.spills:4} {occupancy(kernel.registers):4} % "
        f"{widths(kernel) if kernel.instructions else '':20} {per_output}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="*", default=["sm_90"], help="architectures to check in full")
    parser.add_argument("--compile-only", nargs="*", default=[], help="architectures whose machine code is not read")
    parser.add_argument("--only", default="*", help="pattern of source files' names")
    options = parser.parse_args()
    allowed, failures = exceptions(), []
    print(
        f"{'':7} {'kernel':48} {'regs':>4} {'spil':>4} {'occu':>6} {'loads / stores, bits':20} instructions per output"
    )
    with tempfile.TemporaryDirectory() as work:
        for arch in [*options.arch, *options.compile_only]:
            full = arch in options.arch
            for source in [*SOURCES, *([COUNTED] if full else [])]:
                if not fnmatch.fnmatch(source.name, options.only):
                    continue
                kernels = compiled(source, arch, Path(work))
                if full:
                    disassemble(source, arch, Path(work), kernels)
                counts = counted(kernels) if source == COUNTED else {}
                for kernel in sorted(kernels, key=lambda kernel: kernel.name):
                    text, breach = judged(kernel.name, counts, allowed) if counts else ("", False)
                    if breach:
                        failures.append(f"{arch} {kernel.name}: {text}")
                    print(row(kernel, arch, text), flush=True)
                    # Those written for comparison keep no rules but that they are compiled.
                    rules = {} if kernel.name.startswith("one_") else broken_rules(kernel)
                    for rule, found in rules.items():
                        if not any(fnmatch.fnmatch(kernel.name, p) and rule == r for p, r in allowed):
                            failures.append(f"{arch} {kernel.name}: {rule}: {found}")
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(failures)} breaches")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

"""What nvcc makes of a CUDA source: PTX once for each group of architectures, machine code for each architecture.

The groups are those of setup_cuda.py, so that what is judged is what the library holds.
"""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

from setup_cuda import PTX_OF

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURES = tuple(f"sm_{name.replace('.', '')}" for name in PTX_OF)


@dataclass
class Code:
    """One kernel: its name without namespace and parameters, the resource report, and its instructions in order."""

    name: str
    arch: str = "sm_90"
    registers: int = 0
    stack: int = 0
    spills: int = 0
    shared: int = 0
    threads: int = 128  # of a block, at most
    instructions: list[str] = field(default_factory=list)  # opcodes with their suffixes
    loops: list[tuple[int, int]] = field(default_factory=list)  # [first, last] of each
    text: str = ""  # as disassembled

    def opcodes(self, start: int = 0, end: int | None = None) -> list[str]:
        return [instruction.split(".")[0] for instruction in self.instructions[start:end]]

    def main_loop(self) -> tuple[int, int]:
        """The innermost of the loops with the most multiply-adds per instruction; the whole code if there is none."""

        def share(loop: tuple[int, int]) -> float:
            opcodes = self.opcodes(loop[0], loop[1] + 1)
            return sum(map(multiply_adds, opcodes)) / len(opcodes)

        return max(self.loops, key=share, default=(0, len(self.instructions) - 1))

    def facts(self) -> dict:
        """All but the instructions, for JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("instructions", "loops", "text")}


def multiply_adds(opcode: str) -> int:
    """How many a lane does in one of these. HFMA2 is how ptxas writes a constant; the kernels add in float32."""
    return {"FFMA": 1, "DFMA": 1, "FFMA2": 2, "HMMA": 64}.get(opcode, 0)


def tool(name: str) -> str:
    """Path of nvcc or nvdisasm.

    Raises:
        FileNotFoundError: there is none.
    """
    wheel = Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin", name)
    found = str(wheel) if wheel.exists() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the static gate needs {name}: install the CUDA 13 toolkit, or nvidia-cuda-{name}")
    return found


def demangled(names: list[str]) -> dict[str, str]:
    """``nchw_stream<float, 3, 1, 4>`` for each mangled name."""
    out = subprocess.run(["c++filt"], input="\n".join(names), stdout=subprocess.PIPE, text=True, check=True).stdout
    plain = [
        re.sub(r"^void |dwconv::cuda::|\(dwconv::\w+\)|\(anonymous namespace\)::", "", line)
        for line in out.splitlines()
    ]
    return {mangled: re.sub(r"\(.*", "", name) for mangled, name in zip(names, plain, strict=True)}


def run(command: list[str]) -> str:
    """What the command says; an error with all of it if it fails."""
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command)}\n{ran.stdout}")
    return ran.stdout


def to_ptx(source: Path, ptx_arch: str, work: Path) -> Path:
    ptx = work / f"{source.parent.name}_{source.stem}.{ptx_arch}.ptx"
    options = ["-std=c++20", "-O2", f"-arch={ptx_arch}"]
    run([tool("nvcc"), *options, "-ptx", str(source), "-o", str(ptx)])
    return ptx


def assembled(ptx: Path, arch: str, work: Path) -> tuple[Path, list[Code]]:
    """Machine code, and the resource report of each kernel, without the instructions."""
    cubin = work / f"{ptx.name.split('.')[0]}.{arch}.cubin"
    report = run([tool("nvcc"), f"-arch={arch}", "-cubin", "-Xptxas=-v", str(ptx), "-o", str(cubin)])
    kernels = read_report(report, arch)
    threads = re.findall(r"\.entry (\w+)\((?:(?!\.entry)[^{])*?\.maxntid (\d+)", ptx.read_text())
    for mangled, most in threads:
        kernels[mangled].threads = int(most)
    names = demangled(list(kernels))
    for mangled, kernel in kernels.items():
        kernel.name = names[mangled]
    return cubin, list(kernels.values())


def read_report(report: str, arch: str) -> dict[str, Code]:
    """By mangled name, what ``ptxas -v`` says of each kernel."""
    kernels, current = {}, None
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            current = kernels.setdefault(match[1], Code(match[1], arch))
        elif current and (match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+)", line)):
            current.stack, current.spills = int(match[1]), int(match[2]) + int(match[3])
        elif current and (match := re.search(r"Used (\d+) registers", line)):
            current.registers = int(match[1])
            if shared := re.search(r"(\d+) bytes smem", line):
                current.shared = int(shared[1])
    return kernels


def disassembly(cubin: Path) -> dict[str, str]:
    """By name, the text of each kernel."""
    text = run([tool("nvdisasm"), "-c", str(cubin)])
    sections = dict(re.findall(r"^\.text\.(\S+):\n(.*?)(?=^//-----|\Z)", text, flags=re.DOTALL | re.MULTILINE))
    names = demangled(list(sections))
    return {names[mangled]: body for mangled, body in sections.items()}


def disassemble(cubin: Path, kernels: list[Code]) -> None:
    """Fill in instructions and loops."""
    texts = disassembly(cubin)
    for kernel in kernels:
        labels, kernel.text = {}, texts[kernel.name]
        for line in kernel.text.splitlines():
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
                # HFMA2 of zeros is how ptxas writes a constant into a register.
                is_move = match[1].startswith("HFMA2") and "RZ, RZ" in match[2]
                kernel.instructions.append("MOV" if is_move else match[1])


def compiled(sources: Iterable[Path], full: set[str], compile_only: set[str], work: Path) -> Iterator[list[Code]]:
    """The kernels of each source and architecture as they are done; those of ``full`` with their instructions."""
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))  # the work is in processes of their own
    groups: dict[str, list[str]] = {}
    for arch in sorted(full | compile_only, key=lambda arch: int(arch[3:])):
        groups.setdefault(PTX_OF[f"{arch[3:-1]}.{arch[-1]}"], []).append(arch)

    def assemble(ptx: Path, arch: str) -> list[Code]:
        cubin, kernels = assembled(ptx, arch, work)
        if arch in full:
            disassemble(cubin, kernels)
        return kernels

    # Large families first, so that the last to finish is small.
    by_size = sorted(sources, key=lambda source: -sum(body.stat().st_size for body in source.parent.glob("*.cuh")))
    compiling = {
        pool.submit(to_ptx, source, f"compute_{ptx.replace('.', '')}", work): archs
        for source in by_size
        for ptx, archs in groups.items()
    }
    assembling = [
        pool.submit(assemble, done.result(), arch) for done in as_completed(compiling) for arch in compiling[done]
    ]
    try:
        for done in as_completed(assembling):
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)

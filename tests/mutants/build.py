"""Builds and checks one mutant: one family, one instruction set and one dtype, without optimisation, in seconds."""

import functools
import os
import random
import re
import subprocess
from itertools import product
from pathlib import Path

from tests.cuda.test_sanitizers import shapes
from tests.kernels import split, test_checker
from tests.kernels.split import DTYPES, FAMILIES, VECTOR_BYTES, copied_tree, replaced
from tests.mutants.rules import ROOT, Mutant
from torch_dwconv import _native

WORK = ROOT / "build" / "mutants"
CUDA_FAMILIES = ("gather_any", "grad_weight_any", "nchw_packed", "nchw_stream", "nchw_stream_grad_weight")
SECONDS = 600  # for what takes 5 on an idle machine: a mutant that never ends is killed too
CUDA_FLAGS = (
    "-std=c++20 -O0 -DDWCONV_EMULATED -DEMULATOR_ASAN -fsanitize=address -w -ffp-contract=off -fno-strict-aliasing"
)


def compile(source: Path, target: Path, flags: str) -> str | None:
    """None, or what the compiler says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    command = ["c++", *flags.split(), "-c", "-x", "c++", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr[-2000:]


def must(problem: str | None) -> None:
    if problem is not None:
        raise RuntimeError(problem)


def link(target: Path, objects: list[Path], flags: str = "") -> None:
    subprocess.run(["c++", *flags.split(), *map(str, objects), "-pthread", "-o", str(target)], check=True)


def passes(command: list, input: str | None = None, **environment: str) -> bool:
    try:
        done = subprocess.run(
            list(map(str, command)),
            input=input,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env=os.environ | environment,
        )
    except subprocess.TimeoutExpired:
        return False
    # 2: not a verdict on the kernel
    if done.returncode == 2:
        raise RuntimeError(done.stderr[-2000:])
    return done.returncode == 0


# --- CPU ------------------------------------------------------------------------------------------------------------


def families_of(name: str) -> list[str]:
    """Those that compile a header of csrc/cpu: listed in one's variants, or included by what all include."""
    lists = {family: (ROOT / f"csrc/cpu/{family}_variants.h").read_text() for family in FAMILIES}
    return [family for family, text in lists.items() if f'"{name}"' in text] or list(FAMILIES)


def prepare_cpu(tree: Path, family: str, isa: str, dtype: str) -> Path:
    """Makes a copied tree build one family, ISA and dtype, and the others empty; the source to compile."""
    split.keep_dtypes(tree, [dtype])
    source = tree / "cpu/family.cpp"
    source.write_text(split.part_source(family, isa) + split.families_source([(family, isa)]))
    return source


CPU_FLAGS = "-std=c++17 -O0 -w -pthread"


@functools.cache
def sound_object(family: str, isa: str, dtype: str) -> bytes:
    """What the compiler makes of the family as it is."""
    tree = copied_tree(WORK / "sound")
    must(compile(prepare_cpu(tree, family, isa, dtype), WORK / "sound.o", CPU_FLAGS))
    return (WORK / "sound.o").read_bytes()


@functools.cache
def checker_objects() -> list[Path]:
    """The checker, the registry and the reference kernels, as they are."""
    objects = [WORK / "registry.o", WORK / "reference.o"]
    for path in objects:
        must(compile(ROOT / f"csrc/cpu/{path.stem}.cpp", path, "-std=c++17 -O1"))
    tests, plain = ROOT / "tests/kernels", ROOT / "build/checker/plain"
    parts = [plain / "planted.o", *(plain / "checker" / f"{source.stem}.o" for source in tests.glob("checker/*.cpp"))]
    command = ["make", "--silent", "-C", tests / "checker", f"-j{os.cpu_count()}", *parts]
    subprocess.run(list(map(str, command)), check=True)
    return [*objects, *parts]


def check_cpu(mutant: Mutant) -> str:
    """'killed', 'survived', or 'without effect' where no build differs from that of the sound kernel."""
    rng = random.Random(mutant.id)
    isas = [isa for isa in VECTOR_BYTES if isa in _native.ISA_LEVELS]
    isas = isas[: isas.index(_native.library.dwconv_isa().decode()) + 1]
    builds = list(product(families_of(Path(mutant.path).name), isas, DTYPES))
    rng.shuffle(builds)
    refused = None
    for family, isa, dtype in builds:
        tree = copied_tree(WORK / "mutant")
        (tree / Path(mutant.path).relative_to("csrc")).write_text(mutant.source())
        source, target = prepare_cpu(tree, family, isa, dtype), WORK / "mutant.o"
        if problem := compile(source, target, CPU_FLAGS):
            refused = problem
            continue
        if target.read_bytes() == sound_object(family, isa, dtype):
            continue
        link(WORK / "checker", [target, *checker_objects()])
        for arguments in (
            ["--named", "", "--shapes", 60, "--max-work", 20000],
            ["--shapes", 400, "--seed", 1000, "--max-work", 40000, "--edges", test_checker.edges()],
        ):
            if not passes([WORK / "checker", *arguments, "--variant", f"*_{isa}"], TORCH_DWCONV_ISA=isa):
                return "killed"
        return f"survived as {family}, {isa}, {dtype}"
    return "does not compile" if refused else "without effect"


# --- CUDA -----------------------------------------------------------------------------------------------------------


def includes(path: Path) -> set[str]:
    found = set(re.findall(r'#include "(\w+\.cuh)"', path.read_text()))
    return found.union(*(includes(path.parent / name) for name in found))


@functools.cache
def cuda_objects() -> list[Path]:
    """The checker, the emulator and the registry, as they are."""
    tests, flags = ROOT / "tests/cuda", f"{CUDA_FLAGS} -I{ROOT / 'tests/cuda'} -I{ROOT / 'csrc/cuda'}"
    sources = [ROOT / "csrc/cuda/registry.cpp", tests / "checker.cpp", tests / "planted.cu", tests / "emulator.cpp"]
    objects = [WORK / f"cuda_{source.stem}.o" for source in sources]
    for source, target in zip(sources, objects, strict=True):
        own = flags.replace("-fsanitize=address", "-O2") if source.stem == "emulator" else flags
        must(compile(source, target, own))
    return objects


def prepare_cuda(tree: Path, family: str, dtype: str) -> Path:
    line = f"DWCONV_CUDA_KERNEL(map, layout, kind, Body, {DTYPES[dtype]}, {dtype})"
    macros = "".join(f"#define DWCONV_CUDA_{name}(map, layout, kind, Body) {line}\n" for name in ("DTYPES", "FLOATS"))
    replaced(tree / "cuda/variants.h", r"// One line for each dtype.*", macros)
    others = "".join(
        f"KernelList {f}_kernels() {{ return {{nullptr, nullptr}}; }}\n" for f in CUDA_FAMILIES if f != family
    )
    source = tree / "cuda" / f"{family}.cu"
    source.write_text(source.read_text() + f"\nnamespace dwconv::cuda {{\n{others}}}\n")
    return source


@functools.cache
def sound_cuda_object(family: str, dtype: str) -> bytes:
    tree = copied_tree(WORK / "sound")
    source = prepare_cuda(tree, family, dtype)
    must(compile(source, WORK / "sound.o", f"{CUDA_FLAGS} -I{ROOT / 'tests/cuda'} -I{tree / 'cuda'}"))
    return (WORK / "sound.o").read_bytes()


def check_cuda(mutant: Mutant) -> str:
    rng = random.Random(mutant.id)
    name = Path(mutant.path).name
    families = [family for family in CUDA_FAMILIES if name in includes(ROOT / f"csrc/cuda/{family}.cu")]
    builds = [(f, d) for f, d in product(families, DTYPES) if d != "f64" or "any" in f]
    rng.shuffle(builds)
    refused = None
    for family, dtype in builds:
        tree = copied_tree(WORK / "mutant")
        (tree / "cuda" / name).write_text(mutant.source())
        source, target = prepare_cuda(tree, family, dtype), WORK / "mutant.o"
        if problem := compile(source, target, f"{CUDA_FLAGS} -I{ROOT / 'tests/cuda'} -I{tree / 'cuda'}"):
            refused = problem
            continue
        if target.read_bytes() == sound_cuda_object(family, dtype):
            continue
        link(WORK / "cuda_checker", [target, *cuda_objects()], "-fsanitize=address")
        lines = "\n".join(" ".join(map(str, shape)) for shape in shapes("asan", "mutants", 60))
        for order in ("ascending", "random"):
            if not passes([WORK / "cuda_checker", order], lines, ASAN_OPTIONS="detect_leaks=0"):
                return "killed"
        return f"survived as {family}, {dtype}"
    return "does not compile" if refused else "without effect"


def check(mutant: Mutant) -> str:
    WORK.mkdir(parents=True, exist_ok=True)
    return (check_cuda if mutant.is_cuda else check_cpu)(mutant)

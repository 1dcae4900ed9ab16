"""Builds and checks one mutant: one family, one instruction set and one dtype, without optimisation, in seconds."""

import functools
import os
import random
import re
import resource
import shutil
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeVar

from tests.cuda.build import CHECKER, EMULATOR, EMULATOR_SOURCES
from tests.cuda.shapes import CUDA_EDGES
from tests.cuda.test_sanitizers import OTHERS, shapes
from tests.kernels import parts
from tests.kernels.cases import (
    Case,
    block_cases,
    block_edge_cases,
    edge_cases,
    layer_cases,
    lines,
    random_cases,
    sequence_cases,
    sequence_edge_cases,
    within,
)
from tests.kernels.parts import DTYPES, FAMILIES
from tests.locked import one_process_at_a_time
from tools.mutants.rules import ROOT, Mutant
from tools.mutants.sample import killer

# Processes of a test run each build in a folder of their own.
WORK = ROOT / "build" / "mutants" / os.environ.get("PYTEST_XDIST_WORKER", "")
CUDA_FAMILIES = re.findall(r"Family (\w+)_family\(\)", (ROOT / "csrc/cuda/registry.h").read_text())
SECONDS = 45  # of a CPU, for what takes 2 to 20: a mutant that never ends is killed too
TRIES = 6  # builds: some lines matter to one family, dtype or instruction set only
CUDA_FLAGS = (
    "-std=c++20 -O0 -DDWCONV_EMULATED -DEMULATOR_ASAN -fsanitize=address -w -ffp-contract=off -fno-strict-aliasing "
    f"-I{EMULATOR}"
)


def copied_tree(place: Path) -> Path:
    """A copy of csrc in an empty folder; the path of the copy."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "csrc", place / "csrc")
    return place / "csrc"


def compile(source: Path, target: Path, flags: str | list[str]) -> str | None:
    """None, or what the compiler says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    words = flags.split() if isinstance(flags, str) else flags
    command = ["c++", *words, "-c", "-x", "c++", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr[-2000:]


def must(problem: str | None) -> None:
    if problem is not None:
        raise RuntimeError(problem)


def link(target: Path, objects: list[Path], flags: str = "") -> None:
    subprocess.run(["c++", *flags.split(), *map(str, objects), "-pthread", "-o", str(target)], check=True)


def passes(command: list, input: str | None = None, **environment: str) -> bool:
    done = subprocess.run(
        list(map(str, command)),
        input=input,
        capture_output=True,
        text=True,
        env=os.environ | environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
    )
    # 2: not a verdict on the kernel
    if done.returncode == 2:
        raise RuntimeError(done.stderr[-2000:])
    return done.returncode == 0


def _named_in(path: Path) -> set[Path]:
    """The files that a file includes itself; per-target headers are named as csrc/cpu/simd sees them."""
    text = path.read_text()
    found = {path.parent / name for name in re.findall(r'(?m)^#include "([\w./]+)"', text)}
    found |= {
        ROOT / "csrc/cpu/simd" / name for name in re.findall(r'(?m)^#define DWCONV_PER_TARGET "(\.[\w./]+)"', text)
    }
    return {each.resolve() for each in found if each.exists()}


@functools.cache
def includes(path: Path) -> frozenset[Path]:
    """All files of the library that a file is made of, beside itself."""
    found, new = set(), {path}
    while new:
        found |= new
        new = set().union(*map(_named_in, new)) - found
    return frozenset(found - {path})


# --- CPU ------------------------------------------------------------------------------------------------------------


def builds_of(path: Path) -> list[tuple[str, str, str]]:
    """What can be built of a file and run here, as (family, ISA, dtype); the reference kernels are all in one."""
    families = [family for family in FAMILIES if path in includes(ROOT / f"csrc/cpu/{family}/kernels.cpp")]
    builds = list(product(families, parts.isas(), DTYPES))
    reference = ROOT / "csrc/cpu/reference.cpp"
    return [("reference", "reference", "all"), *builds] if path in {reference, *includes(reference)} else builds


CPU_FLAGS = "-std=c++17 -O0 -w -pthread"


def compile_cpu(tree: Path, build: tuple[str, str, str], target: Path, flags: str) -> str | None:
    """Of one family, ISA and dtype; None, or what the compiler says."""
    family, isa, dtype = build
    if family == "reference":
        return compile(tree / "cpu/reference.cpp", target, flags)
    return compile(tree / f"cpu/{family}/kernels.cpp", target, [*flags.split(), *parts.flags([isa], [dtype])])


@functools.cache
def sound_object(family: str, isa: str, dtype: str, flags: str = CPU_FLAGS) -> Path:
    """What the compiler makes of the family as it is."""
    tree, target = copied_tree(WORK / "sound"), WORK / f"sound_{family}_{isa}_{dtype}{len(flags)}.o"
    must(compile_cpu(tree, (family, isa, dtype), target, flags))
    return target


RUNS = (
    (*random_cases(60, max_work=20000), *block_cases(60, max_work=20000), *sequence_cases(30, max_work=20000)),
    (
        *within(40000, edge_cases() + layer_cases(40000) + block_edge_cases() + sequence_edge_cases()),
        *random_cases(400, "mutants", 40000),
        *block_cases(200, "mutants", 40000),
        *sequence_cases(150, "mutants", 40000),
    ),
)
# Where nothing is to be seen from outside, and cheaper than the whole checker under sanitizers.
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
SANITIZED_RUN = tuple(
    case for some in (random_cases, block_cases, sequence_cases) for case in some(40, "sanitized", 4000)
)


def passes_checker(target: Path, isa: str, cases: tuple[Case, ...]) -> bool:
    link(WORK / "checker", [target, *others(isa)], SANITIZED if cases is SANITIZED_RUN else "")
    file = WORK / "cases.csv"
    file.write_text("".join(lines(cases)))
    cap = "baseline" if isa == "reference" else isa
    return passes([WORK / "checker", "--cases", file, "--kernel", f"*_{isa}"], TORCH_DWCONV_ISA=cap)


def others(isa: str) -> list[Path]:
    """What a program needs beside the object of one family, or of the reference kernels."""
    empty = WORK / "families.cpp"
    text = ['#include "cpu/registry.h"', "namespace dwconv {"]
    text += [f"__attribute__((weak)) KernelList {family}_kernels(Isa) {{ return {{}}; }}" for family in FAMILIES]
    empty.write_text("\n".join([*text, "}", ""]))
    must(compile(empty, WORK / "families.o", ["-std=c++17", f"-I{ROOT / 'csrc'}"]))
    rest = [path for path in checker_objects() if isa != "reference" or path.stem != "reference"]
    return [*rest, WORK / "families.o"]


@functools.cache
def must_pass_sound(family: str, isa: str, dtype: str, cases: tuple[Case, ...]) -> None:
    """So that what kills a mutant is its own fault."""
    flags = f"{CPU_FLAGS} {SANITIZED}" if cases is SANITIZED_RUN else CPU_FLAGS
    if not passes_checker(sound_object(family, isa, dtype, flags), isa, cases):
        raise RuntimeError(f"{family}, {isa}, {dtype} fails without a mutant")


@functools.cache
def checker_objects() -> list[Path]:
    """The checker, the registry and the reference kernels, as they are."""
    objects = [WORK / "registry.o", WORK / "reference.o"]
    for path in objects:
        must(compile(ROOT / f"csrc/cpu/{path.stem}.cpp", path, "-std=c++17 -O1"))
    tests, plain = ROOT / "tests/kernels", ROOT / "build/checker/plain"
    sources = [*tests.glob("calls/*.cpp"), *tests.glob("checker/*.cpp")]
    checker = [plain / source.relative_to(tests).with_suffix(".o") for source in sources if source.stem != "extension"]
    command = ["make", "--silent", "-C", tests / "checker", f"-j{os.cpu_count()}", *checker]
    with one_process_at_a_time("checker"):
        subprocess.run(list(map(str, command)), check=True)
    return [*objects, *checker]


Build = TypeVar("Build", bound=tuple[str, ...])


def in_turns(builds: list[Build], rng: random.Random, last: Callable[[str], object]) -> list[Build]:
    """In any order, but families by turns; of those of a turn the ones for which ``last`` is largest come last."""
    rng.shuffle(builds)
    turns: dict[str, list[Build]] = {}
    for build in builds:
        turns.setdefault(build[0], []).append(build)
    return sorted(builds, key=lambda build: (turns[build[0]].index(build), last(build[0])))


def before_all(first: str | None, builds: list[Build]) -> list[Build]:
    """The same, but the build of this name, if it is there, comes first."""
    return sorted(builds, key=lambda build: " ".join(build) != first)


def kills(target: Path, build: tuple[str, str, str], runs=RUNS) -> bool:
    for cases in runs:
        if not passes_checker(target, build[1], cases):
            must_pass_sound(*build, cases)
            return True
    return False


def check_cpu(mutant: Mutant) -> str:
    """'killed' or, in TRIES builds, 'survived', and as what; 'without effect' where none differs from the sound one."""
    refused, survived, target = None, [], WORK / "mutant.o"
    builds = builds_of(ROOT / mutant.path)
    builds = in_turns(builds, random.Random(mutant.id), lambda family: family != "reference")
    for build in before_all(killer(mutant), builds):
        tree = copied_tree(WORK / "mutant")
        (tree / Path(mutant.path).relative_to("csrc")).write_text(mutant.source())
        if problem := compile_cpu(tree, build, target, CPU_FLAGS):
            refused = problem
            continue
        if target.read_bytes() == sound_object(*build).read_bytes():
            continue
        if kills(target, build):
            return f"killed as {' '.join(build)}"
        survived.append(" ".join(build))
        if len(survived) == 1:
            must(compile_cpu(tree, build, target, f"{CPU_FLAGS} {SANITIZED}"))
            if kills(target, build, (SANITIZED_RUN,)):
                return f"killed as {' '.join(build)}"
        if len(survived) == TRIES:
            break
    if survived:
        return "survived as " + ", ".join(survived)
    return "does not compile" if refused else "without effect"


# --- CUDA -----------------------------------------------------------------------------------------------------------


@functools.cache
def cuda_objects() -> list[Path]:
    """The checker, the emulator and the registry, as they are."""
    flags = f"{CUDA_FLAGS} -I{ROOT / 'csrc'} -I{ROOT / 'tests/kernels/checker'}"
    sources = [ROOT / "csrc/cuda/registry.cpp", *(EMULATOR / name for name in CHECKER), *EMULATOR_SOURCES]
    objects = [WORK / f"cuda_{source.stem}.o" for source in sources]
    for source, target in zip(sources, objects, strict=True):
        own = flags.replace("-fsanitize=address", "-O2") if source in EMULATOR_SOURCES else flags
        must(compile(source, target, own))
    return objects


def prepare_cuda(tree: Path, family: str, dtype: str) -> Path:
    """Makes a copied tree build one family and dtype, and the others empty; the source to compile."""
    macros = ""
    for name in ("DTYPES", "FLOATS", "HALVES"):
        one = "bf16" if name == "HALVES" and dtype not in ("bf16", "f16") else dtype
        line = f"DWCONV_CUDA_KERNEL(operation, layout, method, sizes, {DTYPES[one]}, {one}, __VA_ARGS__)"
        macros += f"#define DWCONV_CUDA_{name}(operation, layout, method, sizes, ...) {line}\n"
    header = tree / "cuda/kernel_list.h"
    text, count = re.subn(r"// One line for each dtype.*", lambda _: macros, header.read_text(), flags=re.DOTALL)
    assert count == 1, f"{header} has no lines for each dtype any more"
    header.write_text(text)
    others = "".join(f"Family {f}_family() {{ return {{}}; }}\n" for f in CUDA_FAMILIES if f != family)
    source = tree / "cuda" / family / "kernels.cu"
    source.write_text(source.read_text() + f"\nnamespace dwconv::cuda {{\n{others}}}\n")
    return source


@functools.cache
def sound_cuda_object(family: str, dtype: str) -> Path:
    tree, target = copied_tree(WORK / "sound"), WORK / f"sound_{family}_{dtype}.o"
    must(compile(prepare_cuda(tree, family, dtype), target, CUDA_FLAGS))
    return target


def passes_cuda_checker(target: Path, order: str) -> bool:
    link(WORK / "cuda_checker", [target, *cuda_objects()], "-fsanitize=address")
    # Some families take none of the first.
    own = [CUDA_EDGES[edge] for edges in OTHERS.values() for edge in edges]
    lines = "\n".join(" ".join(map(str, shape)) for shape in [*shapes("asan", "mutants", 60), *own])
    return passes([WORK / "cuda_checker", order], lines, ASAN_OPTIONS="detect_leaks=0")


@functools.cache
def must_pass_sound_cuda(family: str, dtype: str, order: str) -> None:
    if not passes_cuda_checker(sound_cuda_object(family, dtype), order):
        raise RuntimeError(f"{family}, {dtype} fails without a mutant")


def check_cuda(mutant: Mutant) -> str:
    path = ROOT / mutant.path
    families = [family for family in CUDA_FAMILIES if path in includes(ROOT / f"csrc/cuda/{family}/kernels.cu")]
    builds = [(f, d) for f, d in product(families, DTYPES) if d != "f64" or f == "any"]
    # What takes any shape and activation first.
    builds = in_turns(builds, random.Random(mutant.id), lambda family: family != "any")
    builds = before_all(killer(mutant), builds)
    refused, survived = None, []
    for family, dtype in builds:
        tree = copied_tree(WORK / "mutant")
        (tree / Path(mutant.path).relative_to("csrc")).write_text(mutant.source())
        source, target = prepare_cuda(tree, family, dtype), WORK / "mutant.o"
        if problem := compile(source, target, CUDA_FLAGS):
            refused = problem
            continue
        if target.read_bytes() == sound_cuda_object(family, dtype).read_bytes():
            continue
        for order in ("ascending", "random"):
            if not passes_cuda_checker(target, order):
                must_pass_sound_cuda(family, dtype, order)
                return f"killed as {family} {dtype}"
        survived.append(f"{family} {dtype}")
        if len(survived) == TRIES:
            break
    if survived:
        return "survived as " + ", ".join(survived)
    return "does not compile" if refused else "without effect"


def check(mutant: Mutant) -> str:
    WORK.mkdir(parents=True, exist_ok=True)
    return (check_cuda if mutant.is_cuda else check_cpu)(mutant)

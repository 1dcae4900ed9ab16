"""Builds and checks one mutant: one family, one instruction set and one dtype, without optimisation, in seconds."""

import functools
import os
import random
import re
import resource
import subprocess
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import TypeVar

from tests.cuda.build import CHECKER, EMULATOR, EMULATOR_SOURCES
from tests.cuda.shapes import CUDA_EDGES
from tests.cuda.test_sanitizers import OTHERS, shapes
from tests.kernels import split, test_checker
from tests.kernels.split import DTYPES, FAMILIES, copied_tree, replaced
from tests.locked import one_process_at_a_time
from tools.mutants.rules import ROOT, Mutant
from tools.mutants.sample import killer

# Processes of a test run each build in a folder of their own.
WORK = ROOT / "build" / "mutants" / os.environ.get("PYTEST_XDIST_WORKER", "")
CUDA_FAMILIES = re.findall(r"Family (\w+)_family\(\)", (ROOT / "csrc/cuda/registry.h").read_text())
SECONDS = 45  # of a CPU, for what takes 2 to 20: a mutant that never ends is killed too
TRIES = 6  # builds: some lines matter to one family, dtype or instruction set only
REFERENCE_HEADERS = {"activation.h", "float16.h"}  # that reference.cpp computes with
CUDA_FLAGS = (
    "-std=c++20 -O0 -DDWCONV_EMULATED -DEMULATOR_ASAN -fsanitize=address -w -ffp-contract=off -fno-strict-aliasing "
    f"-I{EMULATOR}"
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


# --- CPU ------------------------------------------------------------------------------------------------------------


def families_of(name: str) -> list[str]:
    """Those that compile a header of csrc/cpu: listed in one's kernels, or included by what all include."""
    lists = {family: (ROOT / f"csrc/cpu/{family}_variants.h").read_text() for family in FAMILIES}
    return [family for family, text in lists.items() if f'"{name}"' in text] or list(FAMILIES)


def builds_of(name: str) -> list[tuple[str, str, str]]:
    """What can be built of a header and run here, as (family, ISA, dtype); the reference kernels are all in one."""
    builds = list(product(families_of(name), split.isas(), DTYPES))
    return [("reference", "reference", "all"), *builds] if name in REFERENCE_HEADERS else builds


def prepare_cpu(tree: Path, family: str, isa: str, dtype: str) -> Path:
    """Makes a copied tree build one family, ISA and dtype, and the others empty; the source to compile."""
    source = tree / "cpu/family.cpp"
    if family == "reference":
        source.write_text((tree / "cpu/reference.cpp").read_text() + split.families_source([]))
        return source
    split.keep_dtypes(tree, [dtype])
    source.write_text(split.part_source(family, isa) + split.families_source([(family, isa)]))
    return source


CPU_FLAGS = "-std=c++17 -O0 -w -pthread"


@functools.cache
def sound_object(family: str, isa: str, dtype: str, flags: str = CPU_FLAGS) -> Path:
    """What the compiler makes of the family as it is."""
    tree, target = copied_tree(WORK / "sound"), WORK / f"sound_{family}_{isa}_{dtype}{len(flags)}.o"
    must(compile(prepare_cpu(tree, family, isa, dtype), target, flags))
    return target


RUNS = (
    ("--named", "", "--shapes", 60, "--max-work", 20000),
    ("--shapes", 400, "--seed", 1000, "--max-work", 40000, "--edges", test_checker.edges()),
)


# Where nothing is to be seen from outside, and cheaper than the whole checker under sanitizers.
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
SANITIZED_RUN = ("--named", "", "--shapes", 40, "--max-work", 4000)


def passes_checker(target: Path, isa: str, arguments: tuple) -> bool:
    others = [path for path in checker_objects() if isa != "reference" or path.stem != "reference"]
    link(WORK / "checker", [target, *others], SANITIZED if arguments is SANITIZED_RUN else "")
    cap = "baseline" if isa == "reference" else isa
    return passes([WORK / "checker", *arguments, "--kernel", f"*_{isa}"], TORCH_DWCONV_ISA=cap)


@functools.cache
def must_pass_sound(family: str, isa: str, dtype: str, arguments: tuple) -> None:
    """So that what kills a mutant is its own fault."""
    flags = f"{CPU_FLAGS} {SANITIZED}" if arguments is SANITIZED_RUN else CPU_FLAGS
    if not passes_checker(sound_object(family, isa, dtype, flags), isa, arguments):
        raise RuntimeError(f"{family}, {isa}, {dtype} fails without a mutant")


@functools.cache
def checker_objects() -> list[Path]:
    """The checker, the registry and the reference kernels, as they are."""
    objects = [WORK / "registry.o", WORK / "reference.o"]
    for path in objects:
        must(compile(ROOT / f"csrc/cpu/{path.stem}.cpp", path, "-std=c++17 -O1"))
    tests, plain = ROOT / "tests/kernels", ROOT / "build/checker/plain"
    parts = [plain / "planted.o", *(plain / "checker" / f"{source.stem}.o" for source in tests.glob("checker/*.cpp"))]
    command = ["make", "--silent", "-C", tests / "checker", f"-j{os.cpu_count()}", *parts]
    with one_process_at_a_time("checker"):
        subprocess.run(list(map(str, command)), check=True)
    return [*objects, *parts]


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
    for arguments in runs:
        if not passes_checker(target, build[1], arguments):
            must_pass_sound(*build, arguments)
            return True
    return False


def check_cpu(mutant: Mutant) -> str:
    """'killed' or, in TRIES builds, 'survived', and as what; 'without effect' where none differs from the sound one."""
    refused, survived, target = None, [], WORK / "mutant.o"
    builds = builds_of(Path(mutant.path).name)
    builds = in_turns(builds, random.Random(mutant.id), lambda family: family != "reference")
    for build in before_all(killer(mutant), builds):
        tree = copied_tree(WORK / "mutant")
        (tree / Path(mutant.path).relative_to("csrc")).write_text(mutant.source())
        source = prepare_cpu(tree, *build)
        if problem := compile(source, target, CPU_FLAGS):
            refused = problem
            continue
        if target.read_bytes() == sound_object(*build).read_bytes():
            continue
        if kills(target, build):
            return f"killed as {' '.join(build)}"
        survived.append(" ".join(build))
        if len(survived) == 1:
            must(compile(source, target, f"{CPU_FLAGS} {SANITIZED}"))
            if kills(target, build, (SANITIZED_RUN,)):
                return f"killed as {' '.join(build)}"
        if len(survived) == TRIES:
            break
    if survived:
        return "survived as " + ", ".join(survived)
    return "does not compile" if refused else "without effect"


# --- CUDA -----------------------------------------------------------------------------------------------------------


def includes(path: Path) -> set[Path]:
    """All files of the library that a file is made of."""
    found = {
        (path.parent / name).resolve() for name in re.findall(r'#include "([\w./]+\.(?:cuh|h))"', path.read_text())
    }
    found = {each for each in found if each.exists()}
    return found.union(*map(includes, found))


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
    replaced(tree / "cuda/kernel_list.h", r"// One line for each dtype.*", macros)
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

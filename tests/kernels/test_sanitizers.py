"""The checker with the kernels under AddressSanitizer and UBSan, under ThreadSanitizer, and under valgrind's memcheck.

Kernels are compiled in parts (split.py) without optimisation, so that nothing is optimised away before it is looked at.
"""

import datetime
import functools
import hashlib
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from tests.kernels import harness, split
from tests.kernels.shapes import SEED
from tests.kernels.test_checker import edges

ROOT = harness.ROOT
FLAGS = {
    "asan": "-g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer",
    "tsan": "-g1 -fsanitize=thread",
    "memcheck": "-g1 -DDWCONV_MEMCHECK",
}
RUNNER = {"memcheck": ("valgrind", "--quiet", "--error-exitcode=9")}
SOME = {  # arguments of the checker, for work of a minute or two
    "asan": ("--shapes", 60, "--max-work", 4000),
    "tsan": ("--checks", "threads", "--shapes", 40, "--max-work", 20000, "--named", ""),
    "memcheck": ("--shapes", 3, "--max-work", 1500, "--named", "", "--checks", "special,partitions"),
}
FEW = ("--shapes", 30, "--max-work", 3000, "--named", "")
MANY = {
    "asan": ("--shapes", 150, "--max-work", 8000),
    "tsan": ("--checks", "threads", "--shapes", 200, "--max-work", 40000, "--named", ""),
    "memcheck": ("--shapes", 20, "--max-work", 3000, "--named", "", "--checks", "special,bounded,partitions"),
}
# What this machine has.
ISAS = split.isas()
# valgrind 3.19 does not know AVX-512.
ALL_ISAS = {"asan": ISAS, "tsan": ISAS[-1:], "memcheck": ISAS[:2]}


def compiled(source: Path, target: Path, flags: str, tree: Path) -> Path:
    command = [
        "c++",
        "-std=c++17",
        "-O0",
        "-w",
        "-pthread",
        *flags.split(),
        f"-I{tree}/cpu",
        "-c",
        source,
        "-o",
        target,
    ]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    return target


@functools.cache
def program(kind: str, isas: tuple[str, ...], dtypes: tuple[str, ...]) -> Path:
    """The checker of a kind with the kernels of some ISAs and dtypes; built again when a source has changed."""
    sources = [
        *sorted((ROOT / "csrc/cpu").glob("*")),
        *(ROOT / "tests/kernels").glob("**/*.[ch]"),
        *(ROOT / "tests/kernels").glob("**/*.cpp"),
    ]
    text = "\0".join([FLAGS[kind], *isas, *dtypes, *(path.read_text() for path in sources if path.is_file())])
    place = ROOT / "build/checker" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not (place / "program").exists():
        tree = split.copied_tree(place)
        split.keep_dtypes(tree, dtypes)
        parts = list(product(split.FAMILIES, isas))
        files = {f"{family}_{isa}": split.part_source(family, isa) for family, isa in parts}
        files["families"] = split.families_source(parts)
        for name, content in files.items():
            (tree / "cpu" / f"{name}.cpp").write_text(content)
        names = [*files, "registry", "reference"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [
                pool.submit(compiled, tree / "cpu" / f"{name}.cpp", place / f"{name}.o", FLAGS[kind], tree)
                for name in names
            ]
            objects = [job.result() for job in jobs]
        command = ["make", "--no-print-directory", "-C", ROOT / "tests/kernels/checker", f"-j{os.cpu_count()}"]
        command += [f"KIND={kind}", f"BUILD={place}", "KERNELS=" + " ".join(map(str, objects))]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout[-5000:]
    return place / "program"


def run(kind: str, isas, dtypes, arguments) -> subprocess.CompletedProcess:
    command = [*RUNNER.get(kind, ()), program(kind, tuple(isas), tuple(dtypes)), "--seed", SEED, *arguments]
    if "--named" not in arguments:
        command += ["--edges", edges(), "--layers", "/dev/null"]
    environment = os.environ | {"TORCH_DWCONV_ISA": isas[-1], "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    return subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def clean(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stdout[-5000:]
    assert "\npassed: " in "\n" + done.stdout


@pytest.mark.slow
def test_todays_are_clean():
    """One instruction set and one dtype under AddressSanitizer and UBSan, others every day: about a minute."""
    parts = list(product(split.DTYPES, ISAS))
    dtype, isa = parts[datetime.date.today().toordinal() % len(parts)]
    clean(run("asan", [isa], [dtype], FEW))


@pytest.mark.full
@pytest.mark.parametrize(("kind", "dtypes"), [("asan", ("f32",)), ("tsan", ("f32",)), ("memcheck", ("f32",))])
def test_clean(kind, dtypes):
    clean(run(kind, ALL_ISAS[kind][-1:], dtypes, SOME[kind]))


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "dtypes", "fault", "report"),
    [
        ("asan", ("f32",), "reads_after_weight", "after the end of weight|use-after-poison|overflow"),
        ("memcheck", ("f32",), "uses_workspace_unset", "uninitialised|nan, not"),
    ],
)
def test_planted_faults_are_caught(kind, dtypes, fault, report):
    arguments = ("--planted", "--kernel", fault, "--shapes", 3, "--named", "", "--max-work", 2000)
    done = run(kind, ALL_ISAS[kind][-1:], dtypes, arguments)
    assert done.returncode != 0
    assert any(word in done.stdout for word in report.split("|")), done.stdout[-3000:]


@pytest.mark.full
@pytest.mark.parametrize("dtype", split.DTYPES)
@pytest.mark.parametrize(("kind", "isa"), [(kind, isa) for kind, isas in ALL_ISAS.items() for isa in isas])
def test_all_are_clean(kind, isa, dtype):
    clean(run(kind, [isa], [dtype], MANY[kind]))

"""The checker with the kernels under AddressSanitizer and UBSan, under ThreadSanitizer, and under valgrind's memcheck.

The cases are those of cases.py, small ones. Kernels are compiled in parts (parts.py) without optimisation, so that
nothing is optimised away before it is looked at.
"""

import datetime
import os
import subprocess
from itertools import product
from pathlib import Path

import pytest

from tests.kernels import harness, parts
from tests.kernels.cases import (
    Case,
    block_cases,
    block_edge_cases,
    edge_cases,
    lines,
    random_cases,
    sequence_cases,
    sequence_edge_cases,
    within,
)
from tests.kernels.test_checker import made, passed

ROOT = harness.ROOT
RUNNER = {"memcheck": ("valgrind", "--quiet", "--error-exitcode=9")}


def drawn(count: int, max_work: int) -> list[Case]:
    """So many for depthwise kernels, as many for those of blocks, and for those of sequences."""
    return [case for some in (random_cases, block_cases, sequence_cases) for case in some(count, max_work=max_work)]


def edges(max_work: int) -> list[Case]:
    return within(max_work, edge_cases() + block_edge_cases() + sequence_edge_cases())


# What takes a minute or two, and what `make full` asks: cases, and arguments of the checker.
SOME = {
    "asan": (edges(4000) + drawn(60, 4000), ()),
    "tsan": (drawn(40, 20000), ("--checks", "threads")),
    "memcheck": (drawn(3, 1500), ("--checks", "special,partitions")),
}
FEW = drawn(30, 3000)
MANY = {
    "asan": (edges(8000) + drawn(150, 8000), ()),
    "tsan": (drawn(200, 40000), ("--checks", "threads")),
    "memcheck": (drawn(20, 3000), ("--checks", "special,bounded,partitions")),
}
# What this machine has.
ISAS = parts.isas()
# valgrind 3.19 does not know AVX-512.
ALL_ISAS = {"asan": ISAS, "tsan": ISAS[-1:], "memcheck": ISAS[:2]}


def program(kind: str, isa: str, dtypes: tuple[str, ...]) -> Path:
    """The checker of a kind with the kernels of an ISA and some dtypes."""
    build = ROOT / "build/checker" / "-".join((kind, isa, *dtypes))
    return made(kind, f"BUILD={build}", f"KERNEL_FLAGS=-O0 {parts.shell_flags([isa], dtypes)}")


def run(
    kind: str, isa: str, dtypes: tuple[str, ...], cases: list[Case], arguments: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    command = [*RUNNER.get(kind, ()), program(kind, isa, dtypes), "--cases", "/dev/stdin", *arguments]
    environment = os.environ | {"TORCH_DWCONV_ISA": isa, "TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    return subprocess.run(
        list(map(str, command)),
        input="".join(lines(cases)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


@pytest.mark.slow
def test_todays_are_clean():
    """One instruction set and one dtype under AddressSanitizer and UBSan, others every day: about a minute."""
    turns = list(product(parts.DTYPES, ISAS))
    dtype, isa = turns[datetime.date.today().toordinal() % len(turns)]
    passed(run("asan", isa, (dtype,), FEW))


@pytest.mark.full
@pytest.mark.parametrize(("kind", "dtypes"), [("asan", ("f32",)), ("tsan", ("f32",)), ("memcheck", ("f32",))])
def test_clean(kind, dtypes):
    passed(run(kind, ALL_ISAS[kind][-1], dtypes, *SOME[kind]))


@pytest.mark.full
@pytest.mark.parametrize(
    ("kind", "dtypes", "fault", "report"),
    [
        ("asan", ("f32",), "reads_after_weight", "after the end of weight|use-after-poison|overflow"),
        ("memcheck", ("f32",), "uses_workspace_unset", "uninitialised|nan, not"),
    ],
)
def test_planted_faults_are_caught(kind, dtypes, fault, report):
    arguments = ("--planted", "--kernel", fault)
    done = run(kind, ALL_ISAS[kind][-1], dtypes, random_cases(3, max_work=2000), arguments)
    assert done.returncode != 0
    assert any(word in done.stdout for word in report.split("|")), done.stdout[-3000:]


@pytest.mark.full
@pytest.mark.parametrize("dtype", parts.DTYPES)
@pytest.mark.parametrize(("kind", "isa"), [(kind, isa) for kind, isas in ALL_ISAS.items() for isa in isas])
def test_all_are_clean(kind, isa, dtype):
    passed(run(kind, isa, (dtype,), *MANY[kind]))

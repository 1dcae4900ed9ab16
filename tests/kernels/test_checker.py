"""The torch-free checker (checker/): it passes every kernel of this machine, and catches each planted fault.

It is built by its own Makefile. Plain, it is linked with the very objects that the library was linked from, if those
are here.
"""

import functools
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.kernels import harness
from tests.kernels.shapes import SEED, edges_csv
from tests.locked import one_process_at_a_time

ROOT = harness.ROOT
# What the planted kernel of each name must be caught with, on a plain build.
CAUGHT = {
    "reads_after_input": "0 bytes after the end of input",
    "reads_before_input": "4 bytes before input",
    "reads_after_weight": "0 bytes after the end of weight",
    "writes_after_result": "0 bytes after the end of result",
    "writes_before_result": "wrote to byte -4 of its result",
    "writes_weight": "a write to byte 0 of the operand weight",
    "reads_bias_always": "a null pointer",
    "uses_result_unset": "nan, not",
    "uses_workspace_unset": "nan, not",
    "skips_last_column": "are wrong",
    "wraps_rows": "are wrong",
    "multiplies_border": "special: result:",
    "flushes_subnormals": "scaled: result:",
    "depends_on_begin": "partitions: result changes when run one by one",
    "depends_on_order": "partitions: result changes when run reversed",
}


def library_objects() -> list[Path]:
    """The objects of csrc/cpu from the last build of the library in this checkout; none if it was built elsewhere."""
    registries = (ROOT / "build").glob("torch-*/csrc/cpu/registry.o")
    newest = max(registries, key=lambda path: path.stat().st_mtime, default=None)
    sources = sorted((ROOT / "csrc" / "cpu").glob("*.cpp"))
    return [newest.with_name(source.stem + ".o") for source in sources] if newest else []


@functools.cache
def program(kind: str) -> Path:
    """The checker of a kind (see its Makefile), built if need be."""
    command = [
        "make",
        "--no-print-directory",
        "-C",
        ROOT / "tests/kernels/checker",
        f"-j{os.cpu_count()}",
        f"KIND={kind}",
    ]
    if kind == "plain" and (objects := library_objects()):
        command.append("KERNELS=" + " ".join(map(str, objects)))
    with one_process_at_a_time("checker"):
        built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert built.returncode == 0, built.stdout[-5000:]
    return ROOT / "build" / "checker" / kind / "program"


@functools.cache
def edges() -> Path:
    """The shapes of EDGES in a file for the checker."""
    path = ROOT / "build" / "checker" / "edges.csv"
    with one_process_at_a_time("checker"):  # others may read it
        if not path.exists() or path.read_text() != edges_csv():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(edges_csv())
    return path


def run(kind: str, *arguments: str | int) -> subprocess.CompletedProcess:
    """Run a checker with the session's seed; all its output in ``stdout``."""
    command = [program(kind), "--seed", str(SEED), "--edges", edges(), *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def passes(kind: str, *arguments: str | int) -> None:
    done = run(kind, *arguments)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "\npassed: " in "\n" + done.stdout


def test_it_sees_the_kernels_of_the_library():
    assert run("plain", "--list").stdout.split() == [kernel.name for kernel in harness.all_kernels()]


def test_every_kernel():
    passes("plain", "--shapes", 20, "--all")


@pytest.mark.parametrize(
    "count", [pytest.param(150, marks=pytest.mark.slow), pytest.param(1500, marks=pytest.mark.full)]
)
def test_every_kernel_on_many_shapes(count):
    passes("plain", "--shapes", count, "--named", "", "--checks", "exact,scaled,special,bounded,partitions,threads")


def test_sound_planted_kernel_passes():
    passes("plain", "--planted", "--kernel", "none", "--shapes", 20)


@pytest.mark.parametrize("fault", CAUGHT)
def test_planted_faults_are_caught(fault):
    done = run("plain", "--planted", "--kernel", fault, "--shapes", 5, "--named", "*one_*")
    assert done.returncode == 1
    assert CAUGHT[fault] in done.stdout


def test_a_failure_can_be_had_again():
    done = run("plain", "--planted", "--kernel", "multiplies_border", "--named", "", "--shapes", 30)
    failure, again = re.search(r"^FAILED (.*)\n  again: (.*)$", done.stdout, re.MULTILINE).groups()
    assert failure in run("plain", *again.split()).stdout


def test_named_shapes_can_be_chosen_and_kernels_that_never_ran_are_told():
    done = run("plain", "--kernel", "*_blocked_*", "--named", "tall_column", "--shapes", 0, "--all")
    assert done.returncode == 1
    assert "has never run" in done.stdout


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--kernel", "none"], ["--checks", "x"], ["--shape", "1,2"]])
def test_wrong_arguments_are_refused(arguments):
    done = run("plain", *arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("checker: ")


def test_bench_times_what_it_is_asked_for():
    done = run("plain", "--bench", "--named", "mobilenet_v2*7.7*", "--time", 0.001, "--kernel", "forward_nchw_f32_*")
    assert done.returncode == 0
    assert re.search(
        r"forward_nchw_f32_\w+ +best +[\d.]+ us  median +[\d.]+ us +[\d.]+ ns/result +[\d.]+ GFLOP/s", done.stdout
    )

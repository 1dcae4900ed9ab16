"""The checker as a program without torch or Python (checker/main.cpp): it agrees with what runs in this process.

It is built by its own Makefile. Plain, it is linked with the very objects that the library was linked from, if those
are here.
"""

import functools
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.kernels import harness
from tests.kernels.cases import (
    MAX_CROPPED_WORK,
    Case,
    block_cases,
    block_edge_cases,
    edge_cases,
    layer_cases,
    lines,
    main,
    random_cases,
    sequence_cases,
    sequence_edge_cases,
)
from tests.locked import one_process_at_a_time

ROOT = harness.ROOT
# What the planted kernel of each name must be caught with, on a plain build.
CAUGHT = {
    "reads_after_input": "0 bytes after the end of input",
    "reads_before_input": "4 bytes before input",
    "reads_after_weight": "0 bytes after the end of weight",
    "writes_after_result": "0 bytes after the end of result",
    "writes_before_result": "wrote to byte -4 of its result",
    "writes_weight": "a write to byte 0 of the read-only weight",
    "reads_bias_always": "a null pointer",
    "uses_result_unset": "nan, not",
    "uses_workspace_unset": "nan, not",
    "skips_last_column": "are wrong",
    "wraps_rows": "are wrong",
    "multiplies_border": "special: result:",
    "flushes_subnormals": "scaled: result:",
    "depends_on_begin": "partitions: result changes when run one by one",
    "depends_on_order": "partitions: result changes when run reversed",
    "wrong_activation": "activations: result:",
    "writes_plan": "a write to byte 0 of the read-only plan",
}
SOUND_IN_BLOCKS = [
    f"{operation}_none"
    for kind in ("dense", "channelwise", "batch_norm", "pointwise")
    for operation in harness.KINDS[kind]
]
CAUGHT_IN_BLOCKS = {
    "dense_reads_after_weight": "0 bytes after the end of weight",
    "dense_reads_after_residual": "0 bytes after the end of residual",
    "dense_writes_after_result": "0 bytes after the end of result",
    "dense_weighs_next_tap_with_zero": "special: result:",
    "dense_ignores_bias": "exact: result:",
    "dense_ignores_residual": "exact: result:",
    "dense_activates_too_early": "activations: result:",
    "dense_wrong_activation": "activations: result:",
    "dense_forgets_last_output": "nan, not",
    "dense_mixes_filter_axes": "exact: result:",
    "dense_depends_on_begin": "partitions: result changes when run one by one",
    "layer_norm_one_pass": "bounded: result:",
    "layer_norm_divides_by_one_less": "bounded: result:",
    "layer_norm_ignores_epsilon": "bounded: result:",
    "layer_norm_mean_of_neighbour": "special: result:",
    "channel_scale_scale_of_first_image": "exact: result:",
    "channel_scale_reads_input_again": "in place",
    "channel_sum_adds_to_result": "nan, not",
}
CAUGHT_IN_TRAINING = {
    "batch_norm_depends_on_begin": "partitions: result changes when run one by one",
    "batch_norm_divides_by_one_less": "bounded: variance:",
    "batch_norm_first_image_only": "bounded: mean:",
    "batch_norm_forgets_last_pixel": "nan, not",
    "batch_norm_ignores_epsilon": "bounded: result:",
    "batch_norm_one_pass": "bounded: variance:",
    "batch_norm_writes_after_result": "0 bytes after the end of result",
    "batch_norm_wrong_activation": "activations: result:",
    "batch_norm_eval_activates_too_early": "activations: result:",
    "batch_norm_eval_adds_to_result": "nan, not",
    "batch_norm_eval_ignores_epsilon": "bounded: result:",
    "batch_norm_eval_next_channel": "exact: result:",
    "batch_norm_eval_reads_after_weight": "0 bytes after the end of weight",
    "batch_norm_backward_adds_to_grad_weight": "grad_weight: 1 of",
    "batch_norm_backward_constant_statistics": "bounded: result:",
    "batch_norm_backward_first_image_only": "exact: result:",
    "batch_norm_backward_next_channel": "bounded: grad_weight:",
    "batch_norm_backward_slope_of_input": "activations: result:",
    "batch_norm_backward_sums_before_activation": "activations: grad_bias:",
    "batch_norm_backward_unscaled_grad_weight": "bounded: grad_weight:",
    "batch_norm_eval_backward_forgets_last_pixel": "nan, not",
    "batch_norm_eval_backward_statistics_of_batch": "exact: result:",
    "pointwise_bias_of_next_output": "exact: result:",
    "pointwise_depends_on_begin": "partitions: result changes when run one by one",
    "pointwise_forgets_last_pixel": "nan, not",
    "pointwise_forgets_last_source": "exact: result:",
    "pointwise_ignores_bias": "exact: result:",
    "pointwise_pixel_of_next_image": "exact: result:",
    "pointwise_plans_past_end": "0 bytes after the end of plan, while it plans",
    "pointwise_reads_after_weight": "0 bytes after the end of weight",
    "pointwise_transposes_weight": "exact: result:",
    "pointwise_weighs_next_pixel_with_zero": "special: result:",
    "pointwise_writes_after_result": "0 bytes after the end of result",
    "pointwise_grad_input_adds_to_result": "nan, not",
    "pointwise_grad_input_forgets_last_source": "exact: result:",
    "pointwise_grad_input_transposes_weight": "exact: result:",
    "pointwise_grad_weight_adds_to_result": "nan, not",
    "pointwise_grad_weight_depends_on_begin": "partitions: result changes when run one by one",
    "pointwise_grad_weight_first_image_only": "exact: result:",
    "pointwise_grad_weight_forgets_last_pixel": "exact: result:",
    "pointwise_grad_weight_transposes_weight": "exact: result:",
}
CAUGHT_IN_SEQUENCES = {
    "sequence_ignores_reach": "exact: result:",
    "sequence_forgets_states": "exact: result:",
    "sequence_reads_far_behind_reach": "0 bytes after the end of reach",
    "sequence_takes_rows_for_dense": "exact: result:",
    "sequence_multiplies_border": "special: result:",
    "sequence_backward_sums_unwanted": "exact: grad_bias:",
    "sequence_backward_ignores_activation": "activations: result:",
    "sequence_step_shifts_by_one": "exact: cache:",
    "sequence_step_writes_padding": "before cache",
    "sequence_step_writes_between_positions": "of its cache, between numbers",
}


def library_objects() -> list[Path]:
    """The objects of csrc/cpu from the last build of the library in this checkout; none if it was built elsewhere."""
    registries = (ROOT / "build").glob("torch-*/csrc/cpu/registry.o")
    newest = max(registries, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        return []
    sources = sorted((ROOT / "csrc/cpu").glob("**/*.cpp"))
    return [newest.parent / source.relative_to(ROOT / "csrc/cpu").with_suffix(".o") for source in sources]


@functools.cache
def program() -> Path:
    """The checker with the kernels of this checkout, built if need be."""
    objects = library_objects()
    kernels = ["KERNELS=" + " ".join(map(str, objects))] if objects else []
    return made("plain", *kernels)


def made(kind: str, *variables: str) -> Path:
    """The checker of a kind (see its Makefile), in ``build/checker``, built if need be."""
    command = ["make", "--no-print-directory", "-C", ROOT / "tests/kernels/checker", f"-j{os.cpu_count()}"]
    with one_process_at_a_time("checker"):
        command = [*map(str, command), f"KIND={kind}", *variables]
        built = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert built.returncode == 0, built.stdout[-5000:]
    build = next((word.removeprefix("BUILD=") for word in variables if word.startswith("BUILD=")), None)
    return Path(build or ROOT / "build/checker" / kind, "program")


def run(cases: Iterable[Case], *arguments: str | int) -> subprocess.CompletedProcess:
    """The checker on cases; all its output in ``stdout``."""
    return subprocess.run(
        [str(program()), "--cases", "/dev/stdin", *map(str, arguments)],
        input="".join(lines(cases)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def passed(done: subprocess.CompletedProcess) -> None:
    assert done.returncode == 0, done.stdout[-5000:]
    assert "\npassed: " in "\n" + done.stdout


def test_it_sees_the_kernels_of_the_library():
    assert run([], "--list").stdout.split() == [kernel.name for kernel in harness.all_kernels()]


def small_layers() -> list[Case]:
    return [case for case in layer_cases() if case.shape.work <= MAX_CROPPED_WORK]


def test_every_kernel():
    """On the edges, some of the layers and random shapes, with several threads at once too."""
    passed(
        run(
            edge_cases()
            + small_layers()[::4]
            + random_cases(20)
            + block_edge_cases()
            + block_cases(20)
            + sequence_edge_cases()
            + sequence_cases(20),
            "--all",
            "--checks",
            ",".join((*harness.CHECKS, "threads")),
        )
    )


@pytest.mark.parametrize(
    "count", [pytest.param(150, marks=pytest.mark.slow), pytest.param(1500, marks=pytest.mark.full)]
)
def test_every_kernel_on_many_shapes(count):
    cases = random_cases(count, "checker") + block_cases(count, "checker") + sequence_cases(count, "checker")
    passed(run(cases, "--checks", "exact,scaled,special,bounded,activations,partitions,threads"))


def test_sound_planted_kernel_passes():
    passed(run(random_cases(20), "--planted", "--kernel", "none"))


@pytest.mark.parametrize("fault", CAUGHT)
def test_planted_faults_are_caught(fault):
    cases = [case for case in edge_cases() if "one_" in case.name] + random_cases(5)
    done = run(cases, "--planted", "--kernel", fault)
    assert done.returncode == 1
    assert CAUGHT[fault] in done.stdout


@pytest.mark.parametrize("sound", SOUND_IN_BLOCKS)
def test_sound_planted_kernels_of_blocks_pass(sound):
    passed(run(block_edge_cases() + block_cases(20), "--planted", "--kernel", sound))


@pytest.mark.parametrize("fault", CAUGHT_IN_BLOCKS)
def test_planted_faults_of_blocks_are_caught(fault):
    done = run(block_edge_cases() + block_cases(40), "--planted", "--kernel", fault)
    assert done.returncode == 1
    assert CAUGHT_IN_BLOCKS[fault] in done.stdout


@pytest.mark.parametrize("fault", CAUGHT_IN_TRAINING)
def test_planted_faults_of_training_are_caught(fault):
    done = run(block_edge_cases() + block_cases(20), "--planted", "--kernel", fault)
    assert done.returncode == 1
    assert CAUGHT_IN_TRAINING[fault] in done.stdout


def test_every_planted_fault_is_asked_for():
    """Or it is sound, or only what watches memory, threads and arithmetic can see it."""
    asked = {*CAUGHT, *CAUGHT_IN_BLOCKS, *CAUGHT_IN_TRAINING, *CAUGHT_IN_SEQUENCES}
    others = {name for name in harness.planted() if not name.endswith("none")} - asked
    assert others == {"reads_margin", "branches_on_unset", "races", "overflows_int", "channel_sum_runs_one_sum"}


@pytest.mark.parametrize("sound", ["sequence_none", "sequence_backward_none", "sequence_step_none"])
def test_sound_planted_kernels_of_sequences_pass(sound):
    passed(run(sequence_edge_cases() + sequence_cases(20), "--planted", "--kernel", sound))


@pytest.mark.parametrize("fault", CAUGHT_IN_SEQUENCES)
def test_planted_faults_of_sequences_are_caught(fault):
    done = run(sequence_cases(30), "--planted", "--kernel", fault)
    assert done.returncode == 1
    assert CAUGHT_IN_SEQUENCES[fault] in done.stdout


def test_a_failure_of_a_sequence_can_be_had_again():
    done = run(sequence_cases(30), "--planted", "--kernel", "sequence_ignores_reach")
    failure, again = re.search(r"^FAILED random-sequence-\d+: (.*)\n  again: (.*)$", done.stdout, re.MULTILINE).groups()
    assert ", reach" in failure
    assert failure in run([], *again.split()).stdout


def test_a_failure_of_a_block_can_be_had_again():
    done = run(block_cases(30), "--planted", "--kernel", "dense_ignores_bias")
    failure, again = re.search(r"^FAILED random-dense-\d+: (.*)\n  again: (.*)$", done.stdout, re.MULTILINE).groups()
    assert failure in run([], *again.split()).stdout


def test_a_failure_can_be_had_again():
    done = run(random_cases(30), "--planted", "--kernel", "multiplies_border")
    failure, again = re.search(r"^FAILED random-\d+: (.*)\n  again: (.*)$", done.stdout, re.MULTILINE).groups()
    assert failure in run([], *again.split()).stdout


def test_a_failure_is_the_same_in_this_process():
    fault = harness.planted()["multiplies_border"]
    found = [
        f"FAILED {case.name}: {failure}"
        for case in random_cases(30)
        for failure in harness.failures([fault], case.shape, seed=case.seed)
    ]
    done = run(random_cases(30), "--planted", "--kernel", "multiplies_border")
    assert found[:20] == re.findall(r"^FAILED random.*$", done.stdout, re.MULTILINE)[:20]


def test_cases_can_be_chosen_and_kernels_that_never_ran_are_told():
    done = run(edge_cases(), "--kernel", "*_phases_*", "--named", "tall_column", "--all")
    assert done.returncode == 1
    assert "has never run" in done.stdout


def test_cases_are_written_as_they_are_read(capsys, monkeypatch):
    arguments = ["--random", "3", "--layers", "mobilenet*", "--max-work", "9999", "--edges"]
    monkeypatch.setattr("sys.argv", ["cases", *arguments, ""])
    main()
    written = capsys.readouterr().out
    layers = [case for case in layer_cases(9999) if case.name.startswith("mobilenet") and case.shape.work <= 20 * 9999]
    assert layers
    drawn = [case for some in (random_cases, block_cases, sequence_cases) for case in some(3, max_work=9999)]
    assert written == "".join(lines([*layers, *drawn]))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["--kernel", "nothing"],
        ["--checks", "x"],
        ["--shape", "1,2"],
        ["--shape", "1,2,1,3,3,1,1,3,3,1,1,1,1,0,0", "--kind", "x"],
        ["--named", "x"],
        ["--cases", "/none"],
        ["--seed"],
    ],
)
def test_wrong_arguments_are_refused(arguments):
    done = run(edge_cases(), *arguments)
    assert done.returncode == 2
    assert done.stdout.startswith("checker: ")


def test_bench_times_what_it_is_asked_for():
    layers = layer_cases(2**62)
    done = run(layers, "--bench", "--named", "mobilenet_v2*7x7*", "--time", 0.001, "--kernel", "forward_nchw_f32_*")
    assert done.returncode == 0
    assert re.search(
        r"forward_nchw_f32_\w+ +best +[\d.]+ us  median +[\d.]+ us +[\d.]+ ns/result +[\d.]+ GFLOP/s", done.stdout
    )

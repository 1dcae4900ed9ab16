"""One operator of a kernel changed, and the checkers see it. `python -m tools.mutants` says which."""

from operator import attrgetter

import pytest

from tools.mutants.build import check
from tools.mutants.rules import of_text
from tools.mutants.sample import chosen, is_killed, needed, sampled, verdicts

SAMPLE = 4


def test_rules_change_one_thing_and_leave_the_rest():
    source = '#if A < B\n  for (int i = 0; i < n + 1; ++i)  // i < n\n  if (a < b) return "a < b";\n'
    texts = [mutant.text for mutant in of_text("body.h", source)]
    assert texts == [
        "  for (int i = 0; i <= n + 1; ++i)",
        "  for (int i = 0; i < n; ++i)",
        "  for (int i = 0; i < n - 1; ++i)",
    ]
    moved = [mutant.id for mutant in of_text("elsewhere/other.h", "\n" + source)]
    assert moved == [mutant.id for mutant in of_text("body.h", source)]


def test_what_only_a_device_runs_is_left():
    source = (
        "#if defined(DWCONV_EMULATED)\na < b\n#elif __CUDA_ARCH__ >= 800\nc < d\n#else\ne < f\n#endif\ng < h\n"
        "#if !defined(DWCONV_EMULATED)\ni < j\n#else\nk < l\n#endif\n"
    )
    assert [mutant.text for mutant in of_text("body.cuh", source)] == ["a <= b", "g <= h", "k <= l"]


def test_there_are_mutants_of_every_kind():
    paths = {mutant.path for mutant in chosen()}
    assert len(chosen()) >= 100
    assert sum(mutant.is_cuda for mutant in chosen()) >= 20
    assert {
        "csrc/cpu/nchw/rows.h",
        "csrc/cpu/nhwc/tiles.h",
        "csrc/cpu/simd/vec.h",
        "csrc/cuda/nchw/stream.cuh",
    } <= paths
    assert len({mutant.id for mutant in chosen()}) == len(chosen())
    assert sampled(1), "no mutant in verdicts.txt is left: run python -m tools.mutants"


@pytest.mark.full
def test_verdicts_are_of_mutants_that_exist():
    gone = verdicts().keys() - {mutant.id for mutant in chosen()}
    assert not gone, f"verdicts.txt names mutants whose lines have changed: {gone}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", sampled(SAMPLE), ids=attrgetter("id"))
def test_a_sample_is_killed(mutant):
    verdict = check(mutant)
    assert is_killed(verdict), f"{verdict}: {mutant}"


@pytest.mark.full
@pytest.mark.parametrize("mutant", needed(), ids=attrgetter("id"))
def test_all_are_killed(mutant):
    """Or not compiled, or compiled to the same machine code."""
    verdict = check(mutant)
    assert is_killed(verdict) or verdict in ("does not compile", "without effect"), f"{verdict}: {mutant}"

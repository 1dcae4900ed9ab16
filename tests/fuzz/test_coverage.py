"""libFuzzer over the operators (coverage.py): half a minute in `make check`, minutes in `make fuzz`."""

import datetime
import os

import pytest

from tests.fuzz import coverage

SECONDS = int(os.environ.get("TORCH_DWCONV_FUZZ_SECONDS", "25"))
FUZZ_SEED = os.environ.get("TORCH_DWCONV_FUZZ_SEED", str(datetime.date.today().toordinal()))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.serial,
    pytest.mark.skipif(bool(coverage.missing()), reason=coverage.missing() or ""),
]


def test_it_finds_a_missing_check():
    """Without check_geometry a stride of 0 or a size next to 2^63 reaches the arithmetic."""
    done = coverage.run(60, *coverage.todays(), "-seed=1", planted=True)
    assert done.returncode != 0
    assert "ERROR: " in done.stderr or "runtime error: " in done.stderr, done.stderr[-3000:]


def test_any_arguments():
    done = coverage.run(SECONDS, *coverage.todays(), f"-seed={FUZZ_SEED}")
    assert done.returncode == 0, f"{coverage.todays()}, seed {FUZZ_SEED}: {done.stderr[-5000:]}"
    assert "NEW_FUNC" in done.stderr or "INITED" in done.stderr

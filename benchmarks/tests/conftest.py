"""Tests of the benchmarks start as all others do: from the same random state."""

from tests.conftest import _same_random_numbers, fresh_compiler  # noqa: F401

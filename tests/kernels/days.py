"""What runs today of the tests that take long."""

import datetime

import pytest


def today_or_full(chunk: int):
    """A fifth of the chunks, others every day, for two cores a few minutes; `make full` has all."""
    mark = pytest.mark.slow if chunk % 5 == datetime.date.today().toordinal() % 5 else pytest.mark.full
    return pytest.param(chunk, marks=mark)

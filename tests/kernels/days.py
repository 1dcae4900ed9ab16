"""What runs today of the tests that take long."""

import datetime

import pytest


def today_or_full(*values, part: int | None = None, of: int = 5):
    """The parameters of a test that belongs to a part of `of`: a part runs each day, for two cores a few minutes.

    The others are left to `make full`. `part` is the first value if there is no other number.
    """
    number = values[0] if part is None else part
    mark = pytest.mark.slow if number % of == datetime.date.today().toordinal() % of else pytest.mark.full
    return pytest.param(*values, marks=mark)

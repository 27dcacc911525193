from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakehouse.interval import Interval, InvalidIntervalError

days = st.dates(dt.date(1990, 1, 1), dt.date(2100, 1, 1))


@given(days, st.integers(0, 800))
def test_text_form_reads_back(start: dt.date, length: int) -> None:
    interval = Interval(start, start + dt.timedelta(days=length))
    assert Interval.parse(str(interval)) == interval
    assert len(list(interval.days())) == length + 1


def test_both_ends_are_included() -> None:
    interval = Interval.parse("2013-02-27/2013-03-01")
    assert [day.day for day in interval.days()] == [27, 28, 1]
    assert interval.sql("d") == "d between date'2013-02-27' and date'2013-03-01'"


@pytest.mark.parametrize(
    "text",
    [
        "", "2013-02-30", "2013-01", "2013-01-02/2013-01-01", "today", "2013-01-01/", "a/b",
        "20130301", "2013-W09-1", "2013-01-01/20130301", "2013-03-01T00:00:00",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidIntervalError):
        Interval.parse(text)


def test_another_way_to_write_a_day_is_refused_with_the_one() -> None:
    with pytest.raises(InvalidIntervalError, match=r"20130301 is another way to write 2013-03-01\)\. Write a day as"):
        Interval.parse("20130301")

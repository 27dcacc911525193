"""Which files are put together: few of the recent days, and none whose days reach back beyond them."""

from __future__ import annotations

import datetime as dt

import pytest

from lakehouse.contracts import load
from lakehouse.data_files import DataFile
from lakehouse.maintenance import compaction
from lakehouse.maintenance.compaction import RECENT_DAYS, TARGET_BYTES, window
from lakehouse.maintenance.retention import first_kept

START = dt.date(2013, 1, 1)


def file(first: int | None, last: int | None = None, bytes: int = 1000) -> DataFile:
    """A file of some days, counted from the start."""
    begins = None if first is None else START + dt.timedelta(first)
    ends = begins if last is None else START + dt.timedelta(last)
    return DataFile(f"{first}-{last}-{bytes}.parquet", bytes, 10, begins, ends)


def days(first: int, last: int) -> str:
    return f"{START + dt.timedelta(first)}/{START + dt.timedelta(last)}"


DAILY = [file(day) for day in range(100)]


def test_the_files_of_the_recent_days_become_one() -> None:
    found = window(DAILY)
    assert found is not None and str(found.days) == days(100 - RECENT_DAYS, 99)
    assert (len(found.files), found.parts, found.bytes) == (RECENT_DAYS, 1, RECENT_DAYS * 1000)


def test_a_file_that_reaches_back_further_is_left_alone_with_all_of_its_days() -> None:
    # A bulk load until day 80, and a day of it that was landed again and is rows of a file of its own.
    found = window([file(0, 80), file(75), *DAILY[81:]])
    assert found is not None and str(found.days) == days(81, 99)
    assert window([file(0, 80), *DAILY[81:], file(79, 95)]) is None  # only four days are left


@pytest.mark.parametrize(
    "files",
    [
        [],
        DAILY[: compaction.FEW_FILES - 1],
        [file(0, 6), *DAILY[7:10]],  # what a compaction has left, and three days since
        [file(day, bytes=TARGET_BYTES) for day in range(20)],
        [*DAILY, file(None)],  # rows of any day
    ],
)
def test_what_is_not_worth_it_is_left_alone(files: list[DataFile]) -> None:
    assert window(files) is None


def test_large_tables_get_files_of_the_size_that_is_wanted() -> None:
    found = window([file(day, bytes=TARGET_BYTES // 4) for day in range(20)])
    assert found is not None and found.parts == 5


def test_a_file_without_rows_is_no_obstacle() -> None:
    empty = DataFile("empty.parquet", 500, 0, None, None)
    assert window([*DAILY, empty]) == window(DAILY)


def test_a_source_is_kept_from_today_and_a_closed_history_from_its_end() -> None:
    contract = load("weather")
    assert (contract.history_end, contract.retention_days) == (dt.date(2013, 12, 30), 5 * 365)
    assert first_kept(contract, dt.date(2013, 6, 1)) == dt.date(2013, 6, 1) - dt.timedelta(5 * 365)
    assert first_kept(contract, dt.date(2099, 1, 1)) == dt.date(2013, 12, 30) - dt.timedelta(5 * 365)

"""Retention: rows of a source that are older than its contract allows are deleted, by whole days."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lakehouse import contracts, tables
from lakehouse.compaction import require_same
from lakehouse.data_files import DataFile, data_files
from lakehouse.engine import spark, sql
from lakehouse.interval import Interval

if TYPE_CHECKING:
    from lakehouse.contracts import Contract
    from lakehouse.steps import Run

COLUMN = "_interval"


@dataclass(frozen=True)
class Expired:
    """Days of a stored table whose time is over.

    Attributes:
        days: From the earliest that it has to the last that is to go.
        files: The files with rows of these days.
    """

    days: Interval
    files: tuple[DataFile, ...]


def first_kept(contract: Contract, today: dt.date) -> dt.date:
    """The first day whose rows are still to be kept.

    A source whose deliveries have ended is a closed history: its rows are counted from its end, and not from today.

    Args:
        contract: The contract of the source.
        today: The day.
    """
    end = min(today, contract.history_end) if contract.history_end else today
    return end - dt.timedelta(contract.retention_days)


def expired(stored: str, first: dt.date) -> Expired | None:
    """The days of a stored table before the first that is kept, or None when it has none.

    Args:
        stored: Name of a stored table of a source, bronze or quarantine.
        first: The first day that is kept.
    """
    if tables.delta(stored) is None:
        return None
    files = tuple(file for file in data_files(stored, COLUMN) if file.first is not None and file.first < first)
    if not files:
        return None
    earliest = min(file.first for file in files if file.first)
    return Expired(Interval(earliest, first - dt.timedelta(1)), files)


def planned(source: str, today: dt.date) -> dict[str, Expired]:
    """What :func:`expire` would delete now, by stored table.

    Args:
        source: Name of a contract.
        today: The day.
    """
    first = first_kept(contracts.load(source), today)
    found = {stored: expired(stored, first) for stored in (f"bronze_next.{source}", f"quarantine.{source}")}
    return {stored: each for stored, each in found.items() if each}


def expire(stored: str, first: dt.date, run: Run) -> int | None:
    """Delete the rows of a stored table before the first day that is kept, in one commit.

    Args:
        stored: Name of a stored table of a source; nobody else writes it.
        first: The first day that is kept.
        run: The step that does it.

    Returns:
        The version without them; None when there were none.

    Raises:
        lakehouse.compaction.ChangedRowsError: Rows that are kept would have changed. The table is as it was.
    """
    found = expired(stored, first)
    if found is None:
        return None
    before = tables.head(stored)
    assert before is not None
    run.check_lock()
    (
        spark().sql(f"select * from {stored} limit 0")
        .write.format("delta").mode("overwrite")
        .option("replaceWhere", found.days.sql(COLUMN))
        .option("userMetadata", json.dumps(run.commit() | {"interval": str(found.days), "expired": before}))
        .saveAsTable(stored)
    )  # fmt: skip
    version = tables.head(stored)
    assert version is not None
    if any(file.last is None or file.last >= first for file in found.files):
        # Only a file that holds both was written anew; of the others nothing was touched.
        last = max(file.last for file in found.files if file.last)
        require_same(stored, f"{COLUMN} between date'{first}' and date'{last}'", before, version, run)
    condition = found.days.sql(COLUMN)
    rows = sql(f"select count(*) from {stored} version as of {before} where {condition}").collect()[0][0]
    run.say("%s %s: %d rows are older than the contract keeps them, and deleted", stored, found.days, rows)
    return version

"""Retention: what is older than allowed is deleted.

Of a source it is whole days, as its contract says; of what a model has said beside its predictions, which no reader
sees, it is the rows that were scored too long ago, as ``model.yaml`` says.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from lakehouse import contracts, tables
from lakehouse.data_files import DataFile, data_files
from lakehouse.engine import spark, sql
from lakehouse.interval import Interval
from lakehouse.maintenance.compaction import require_same

if TYPE_CHECKING:
    from lakehouse.contracts import Contract
    from lakehouse.ml.model_spec import ModelSpec
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
        lakehouse.maintenance.compaction.ChangedRowsError: Rows that are kept would have changed. The table is as it
            was.
    """
    found = expired(stored, first)
    if found is None:
        return None
    before, version = _delete(stored, found.days.sql(COLUMN), run, {"interval": str(found.days)}, "expired")
    if any(file.last is None or file.last >= first for file in found.files):
        # Only a file that holds both was written anew; of the others nothing was touched.
        last = max(file.last for file in found.files if file.last)
        require_same(stored, f"{COLUMN} between date'{first}' and date'{last}'", before, version, run)
    condition = found.days.sql(COLUMN)
    rows = sql(f"select count(*) from {stored} version as of {before} where {condition}").collect()[0][0]
    run.say("%s %s: %d rows are older than the contract keeps them, and deleted", stored, found.days, rows)
    return version


@dataclass(frozen=True)
class Outdated:
    """Rows beside the predictions of a model that were scored too long ago.

    Attributes:
        since: Start of the first day of scoring whose rows are kept.
        days: From the first to the last day that the rows are about.
        rows: How many.
    """

    since: dt.datetime
    days: Interval
    rows: int


def outdated(stored: str, spec: ModelSpec, today: dt.date) -> Outdated | None:
    """The rows of a table that no reader sees which were scored too long ago, or None when it has none.

    Args:
        stored: Name of a table of what a model has said in the shadow, or when it was asked what if.
        spec: The model.
        today: The day.
    """
    log, kept_days = tables.delta(stored), spec.serving.unreleased_days
    if log is None or kept_days is None:
        return None
    since = dt.datetime.combine(today - dt.timedelta(kept_days), dt.time(), dt.UTC)
    day = spec.features.interval_column
    dataset = log.to_pyarrow_dataset(filesystem=tables.filesystem(log))
    rows = dataset.to_table(columns=[day], filter=pc.field("scored_at") < since)
    if not len(rows):
        return None
    ends = pc.min_max(rows[day]).as_py()
    return Outdated(since, Interval(ends["min"], ends["max"]), len(rows))


def forget(stored: str, found: Outdated, run: Run) -> None:
    """Delete rows that were scored too long ago, in one commit.

    Args:
        stored: Name of their table; nobody else writes it.
        found: Outcome of :func:`outdated`.
        run: The step that does it.

    Raises:
        lakehouse.maintenance.compaction.ChangedRowsError: Rows that are kept would have changed. The table is as it
            was.
    """
    condition = f"scored_at < timestamp'{found.since:%Y-%m-%d %H:%M:%S}Z'"
    before, version = _delete(stored, condition, run, {}, "outdated")
    require_same(stored, f"not ({condition})", before, version, run)
    run.say("%s: %d rows were scored before %s, and deleted", stored, found.rows, found.since.date())


def _delete(stored: str, condition: str, run: Run, facts: dict[str, str], why: str) -> tuple[int, int]:
    """Delete rows; the versions before and after it, the first of which the commit names."""
    before = tables.head(stored)
    assert before is not None
    none = spark().sql(f"select * from {stored} limit 0")
    return before, tables.overwrite(none, stored, condition, run, facts | {why: before})

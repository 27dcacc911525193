"""Quarantine: what a source has in it follows the version of its table that readers see.

Landing and replay write two tables, one after the other: the rows that pass, and those that do not. Whoever makes
another version of the first visible has to bring the second along, or rows would be in both of them, or in neither.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.engine import sql
from lakehouse.interval import Interval

if TYPE_CHECKING:
    from lakehouse.steps import Run

_ROW = ["_interval", "_source_file", "_source_row", "_batch"]


def table_of(table: str) -> str | None:
    """The quarantine of a table.

    Args:
        table: Name that readers use.

    Returns:
        Name of the table that keeps its bad rows; None where no rows are set aside.
    """
    layer, name = tables.split(table)
    return f"quarantine.{name}" if layer == "bronze" else None


def follow(table: str, version: int, run: Run) -> None:
    """Have in quarantine what belongs to a version of a table; a second call changes nothing.

    Only days whose rows differ are replaced. A delivery that was rejected whole stays: none of it was ever visible, so
    no version has it, and it can still be replayed.

    Args:
        table: Name that readers use.
        version: The version of its stored table that readers are to see.
        run: The step that does it; it holds the lock of the stored table.
    """
    stored = table_of(table)
    head = tables.head(stored) if stored else None
    if stored is None or head is None:
        return
    then = _beside(tables.next_table(table), version, stored)
    if then is None or then == head:
        return
    from pyspark.sql import functions as F

    now, before = (sql(f"select * from {stored} version as of {number}") for number in (head, then))
    if not {*_ROW, "_rejected"} <= {*now.columns} & {*before.columns}:
        run.say("%s was written before it could follow its table, and is left as it is", stored)
        return
    ours, theirs = now.select(_ROW), before.select(_ROW)
    differ = ours.exceptAll(theirs).union(theirs.exceptAll(ours)).select("_interval").distinct()
    stays = now.where("_rejected").select("_interval").distinct()
    days: list[dt.date] = sorted(row["_interval"] for row in differ.exceptAll(stays).collect())
    if not days:
        return
    span = Interval(days[0], days[-1])
    rows = before.where(F.col("_interval").isin(days)).unionByName(
        now.where(span.sql("_interval")).where(~F.col("_interval").isin(days)), allowMissingColumns=True
    )
    tables.replace_interval(rows, stored, "_interval", span, run)
    run.say("%s: holds again what belongs to version %d of %s, for %d days", stored, version, table, len(days))


def _beside(written: str, version: int, stored: str) -> int | None:
    """The version of a quarantine that the step has left which wrote a version of a table; None where none is known."""
    facts: dict[str, Any] = next(
        (commit["userMetadata"] for commit in tables.commits(written, None) if commit["version"] == version), {}
    )
    before: int | None = facts.get("goes_with", {}).get(stored)
    own = [commit["version"] for commit in tables.commits(stored, None) if _is_by(facts.get("run_id"), commit)]
    return own[0] if own else before


def _is_by(run_id: str | None, commit: dict[str, Any]) -> bool:
    return run_id is not None and commit["userMetadata"].get("run_id") == run_id

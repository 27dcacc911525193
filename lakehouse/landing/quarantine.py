"""Quarantine: what a source has in it follows the version of its table that readers see.

Landing and replay write two tables, one after the other: the rows that pass, and those that do not. Whoever makes
another version of the first visible has to bring the second along, or rows would be in both of them, or in neither.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.engine import sql
from lakehouse.interval import Interval

if TYPE_CHECKING:
    from lakehouse.steps import Run

_ROW = ["_interval", "_source_file", "_source_row", "_batch"]
_MADE_FROM = ("restored", "compacted", "expired")
"""By these a commit that no delivery has led to names the version whose rows it has, or some of them."""


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

    Only days whose rows differ are replaced. A delivery that was rejected whole since that version stays: the version
    knows nothing of it, and it can still be replayed.

    Args:
        table: Name that readers use.
        version: The version of its stored table that readers are to see.
        run: The step that does it; it holds the lock of the stored table.
    """
    stored = table_of(table)
    head = tables.head(stored) if stored else None
    if stored is None or head is None:
        return
    then = beside(table, [version])[version]
    if then is None or then == head:
        return
    from pyspark.sql import functions as F

    now, before = (sql(f"select * from {stored} version as of {number}") for number in (head, then))
    if not {*_ROW, "_rejected"} <= {*now.columns} & {*before.columns}:
        run.say("%s was written before it could follow its table, and is left as it is", stored)
        return
    ours, theirs = now.select(_ROW), before.select(_ROW)
    differ = ours.exceptAll(theirs).union(theirs.exceptAll(ours)).select("_interval").distinct()
    # What was rejected by then is where it was then: later it may have been replayed, or replaced.
    commits = tables.commits(stored, None)
    later = [commit["userMetadata"].get("run_id") for commit in commits if commit["version"] > then]
    stays = now.where(F.col("_rejected") & F.col("_batch").isin(later)).select("_interval").distinct()
    days: list[dt.date] = sorted(row["_interval"] for row in differ.exceptAll(stays).collect())
    if not days:
        return
    span = Interval(days[0], days[-1])
    rows = before.where(F.col("_interval").isin(days)).unionByName(
        now.where(span.sql("_interval")).where(~F.col("_interval").isin(days)), allowMissingColumns=True
    )
    tables.replace_interval(rows, stored, "_interval", span, run)
    run.say("%s: holds again what belongs to version %d of %s, for %d days", stored, version, table, len(days))


def beside(table: str, versions: Iterable[int]) -> dict[int, int | None]:
    """The versions of a quarantine that go with versions of its table.

    It is the one that the step has left which wrote the rows, or found, where it wrote none. What was brought back, or
    rewritten by maintenance, has the rows of another version, and so on, back to the step that wrote them.

    Args:
        table: Name that readers use.
        versions: Versions of its stored table.

    Returns:
        Version of the stored table to that of the quarantine; None where none is known.
    """
    stored = table_of(table)
    if stored is None:
        return dict.fromkeys(versions)
    written = {commit["version"]: commit["userMetadata"] for commit in tables.commits(tables.next_table(table), None)}
    own = {commit["userMetadata"].get("run_id"): commit["version"] for commit in reversed(tables.commits(stored, None))}
    own.pop(None, None)
    return {version: _beside(version, stored, written, own) for version in versions}


def _beside(version: int, stored: str, written: dict[int, dict[str, Any]], own: dict[str, int]) -> int | None:
    facts: dict[str, Any] = written.get(version, {})
    # A step that begins with taking something back has not written the rows that are there then.
    if "restored" not in facts and facts.get("run_id") in own:
        return own[facts["run_id"]]
    if stored in facts.get("goes_with", {}):
        found: int | None = facts["goes_with"][stored]
        return found
    earlier: int | None = next((facts[name] for name in _MADE_FROM if name in facts), None)
    return None if earlier is None else _beside(earlier, stored, written, own)


def check_kept(table: str, version: int) -> None:
    """Make sure that :func:`follow` can have in quarantine what belongs to a version of a table.

    Args:
        table: Name that readers use.
        version: The version of its stored table that readers are to see.

    Raises:
        lakehouse.tables.VersionGoneError: It is no longer kept.
    """
    stored, then = table_of(table), beside(table, [version])[version]
    if stored and then is not None and then != tables.head(stored):
        tables.check_kept(stored, then)

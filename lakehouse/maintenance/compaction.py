"""Compaction: put the many small files of a table's recent days together, without changing a row.

A day's write leaves a file or two. The days are rewritten as a few files in one commit, and the rows are compared with
those that readers see before the new version is shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse import table_days, tables
from lakehouse.data_files import DataFile, data_files
from lakehouse.engine import spark, sql
from lakehouse.errors import LakeError
from lakehouse.interval import Interval

if TYPE_CHECKING:
    from lakehouse.steps import Run

RECENT_DAYS = 31
"""How far back from a table's newest day its files are looked at: what a run does is bounded by it."""

TARGET_BYTES = 128 * 1024 * 1024
"""Size that the files shall have, about."""

FEW_FILES = 8
"""So many small files are left as they are: putting them together would cost more than it saves."""


class ChangedRowsError(LakeError):
    """Maintenance would have changed rows that it must not change; nothing of it is visible."""


@dataclass(frozen=True)
class Window:
    """Days whose files are to be put together.

    Attributes:
        days: From the first to the last of them; no file holds rows on both sides of an edge.
        files: The files that hold their rows.
        parts: How many files there are to be.
    """

    days: Interval
    files: tuple[DataFile, ...]
    parts: int

    @property
    def bytes(self) -> int:
        """Size of the files."""
        return sum(file.bytes for file in self.files)


def window(files: Sequence[DataFile], recent_days: int = RECENT_DAYS) -> Window | None:
    """The recent days whose files are worth being put together, or None.

    A file of earlier days too, such as one of a bulk load, is left alone with all of its days.

    Args:
        files: The data files of a version.
        recent_days: How far back from the newest day to look.
    """
    known = [(file.first, file.last, file) for file in files if file.first is not None and file.last is not None]
    if not known or len(known) < sum(file.rows != 0 for file in files):
        return None  # a file without statistics may hold rows of any day
    newest = max(last for _, last, _ in known)
    first = newest - dt.timedelta(recent_days - 1)
    while straddling := [last for begins, last, _ in known if begins < first <= last]:
        first = max(straddling) + dt.timedelta(1)
    chosen = tuple(file for begins, _, file in known if begins >= first)
    if not chosen:
        return None
    parts = -(-sum(file.bytes for file in chosen) // TARGET_BYTES)
    small = sum(file.bytes < TARGET_BYTES // 2 for file in chosen)
    if small < FEW_FILES or parts > len(chosen) // 2:
        return None
    return Window(Interval(min(file.first for file in chosen if file.first), newest), chosen, parts)


def planned(table: str) -> Window | None:
    """What :func:`compact` would put together now.

    Args:
        table: Name that readers use.
    """
    column, stored = table_days.interval_column(table), tables.next_table(table)
    return window(data_files(stored, column)) if column and tables.delta(stored) else None


def compact(table: str, run: Run) -> int | None:
    """Put the small files of a table's recent days together, if that is worth it.

    Args:
        table: Name that readers use. Its rows may be shown to readers, and nobody else writes it.
        run: The step that does it.

    Returns:
        The version with the same rows, which is not visible yet; None when nothing was done.

    Raises:
        ChangedRowsError: The rows are not the same. The table is as it was.
    """
    column, chosen = table_days.interval_column(table), planned(table)
    if column is None or chosen is None:
        return None
    stored = tables.next_table(table)
    before = tables.head(stored)
    assert before is not None
    query = f"select * from {stored} version as of {before} where {chosen.days.sql(column)}"
    version = replace(stored, query, column, chosen.days, run, chosen.parts, {"compacted": before})
    if version != before + 1:
        undo(stored, version - 1, run, f"{table}: somebody has written version {version - 1} meanwhile")
    gone = {file.path for file in chosen.files}
    left = {file.path for file in data_files(stored, column, before)} - gone
    now = data_files(stored, column, version)
    # The other files are the same ones, so only the rows of the days can differ.
    if not left <= {file.path for file in now} or gone & {file.path for file in now}:
        undo(stored, before, run, f"{table} {chosen.days}: other files than those of these days would change")
    require_same(stored, chosen.days.sql(column), before, version, run)
    run.say("%s %s: %d files put together to %d", table, chosen.days, len(gone), len(now) - len(left))
    return version


def replace(stored: str, query: str, column: str, days: Interval, run: Run, parts: int, facts: dict[str, Any]) -> int:
    """Replace some days by rows that they have already.

    Delta would let such a commit say that no data changes (``dataChange``), but not where the days are no partitions.

    Args:
        stored: Name of the stored table.
        query: SQL of the rows.
        column: Its DATE column.
        days: The days.
        run: The step that does it.
        parts: How many files to write.
        facts: What the commit is to say of itself besides.

    Returns:
        The version that the commit made.
    """
    rows = spark().sql(query).coalesce(parts).sortWithinPartitions(column)
    return tables.overwrite(rows, stored, days.sql(column), run, facts)


def require_same(stored: str, condition: str, before: int, version: int, run: Run) -> None:
    """Make sure that two versions have the same rows, by a hash of their content, or bring the earlier one back.

    Args:
        stored: Name of the stored table.
        condition: SQL that tells which rows.
        before: The version that the other was made of.
        version: The version that maintenance has made of it.
        run: The step that does it.

    Raises:
        ChangedRowsError: They have not.
    """
    then, now = (
        tables.content_sha256(sql(f"select * from {stored} version as of {each} where {condition}"))
        for each in (before, version)
    )
    if then != now:
        undo(
            stored, before, run, f"{stored} where {condition}: the rows of version {version} are not those of {before}"
        )


def undo(stored: str, before: int, run: Run, why: str) -> None:
    """Bring a stored table back to the version before, and fail.

    Args:
        stored: Name of the stored table.
        before: The version.
        run: The step.
        why: What is wrong.

    Raises:
        ChangedRowsError: Always.
    """
    tables.restore(stored, before, run)
    raise ChangedRowsError(
        f"{why}. The table has been brought back, and readers see what they saw. `lake verify` says whether its files "
        "are whole; if they are, this is a fault of the platform."
    )

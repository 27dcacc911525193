"""What ``ops.releases`` says: which versions readers see, and saw; and their rows, read without Spark."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse import ops, tables
from lakehouse.errors import LakeError

if TYPE_CHECKING:
    import pandas as pd

LOG = "ops.releases"
"""What is visible. Its writer lock is held by whoever decides that, so that two cannot decide at once."""


class NotReleasedError(LakeError, LookupError):
    """A table has no released version."""


class UnknownReleaseError(NotReleasedError):
    """There is no release of a number."""


@dataclass(frozen=True)
class Released:
    """What readers see of one table.

    Attributes:
        table: Name that readers use.
        version: Delta version of the stored table behind it.
        release_id: The release that made it visible.
    """

    table: str
    version: int
    release_id: int


def released(as_of: int | None = None, *, at: dt.datetime | None = None) -> dict[str, Released]:
    """The released version of every table.

    Args:
        as_of: A release: the state right after it. The present state without it.
        at: A moment: the state that readers saw then.

    Raises:
        UnknownReleaseError: There is no such release.
    """
    state: dict[str, Released] = {}
    log = history()
    if as_of is not None and as_of not in {row["release_id"] for row in log}:
        raise UnknownReleaseError(f"There is no release {as_of}. `lake releases` lists them.")
    for row in log:
        if (as_of is None or row["release_id"] <= as_of) and (at is None or row["released_at"] <= at):
            state[row["table_name"]] = Released(row["table_name"], row["version"], row["release_id"])
    return state


def read(
    table: str,
    *,
    release_id: int | None = None,
    columns: list[str] | None = None,
    where: list[tuple[str, str, Any]] | None = None,
) -> pd.DataFrame:
    """Read a released table into pandas, without Spark.

    Args:
        table: Such as ``gold.fct_flights``; the platform's own ``ops.*`` tables too, but no views.
        release_id: State of the lake right after this release; the present without it.
        columns: Columns to read; all without it.
        where: Conditions that all hold, as ``[("carrier", "=", "UA")]``; a day is a ``datetime.date``.

    Raises:
        NotReleasedError: No version of the table has been released (by then).
        lakehouse.tables.UnknownColumnError: The table has no such column.
        lakehouse.tables.UnreadableError: A file is damaged or missing.
    """
    layer, _ = tables.split(table)
    version: int | None = None
    if layer in tables.GATED_LAYERS:
        state = released(release_id).get(table)
        if state is None:
            known = ", ".join(sorted(released(release_id))) or "none yet"
            raise NotReleasedError(f"{table} has no released version. Released tables: {known}.")
        version = state.version
    if table in ops.VIEWS or layer == tables.VIEW_LAYER:
        raise NotReleasedError(f'{table} is a view, for SQL alone: ./lake sql "select * from {table}".')
    log = tables.delta(tables.next_table(table), version)
    if log is None:
        raise NotReleasedError(f"There is no table {table}.")
    frame: pd.DataFrame = tables.read(log, columns, where).to_pandas()
    return frame


def history() -> list[dict[str, Any]]:
    """The rows of ``ops.releases``, oldest release first."""
    rows: list[dict[str, Any]] = (
        ops.read(LOG).sort_by([("release_id", "ascending"), ("table_name", "ascending")]).to_pylist()
    )
    return rows


def views(as_of: int | None = None) -> dict[str, str]:
    """What is released of the views that hold no rows: the query of each, by its name.

    Args:
        as_of: A release: the state right after it. The present state without it.
    """
    queries: dict[str, str] = {}
    for row in history():
        if as_of is None or row["release_id"] <= as_of:
            queries.update(row["views"] or ())
    return queries


def sets(table: str | None = None) -> list[dict[str, Any]]:
    """The releases for a person to read, newest first, each as the set of tables that it changed.

    Args:
        table: Only the releases that changed this table, or the query of this view.
    """
    found: dict[int, dict[str, Any]] = {}
    for row in history():
        start, end = row["interval_start"], row["interval_end"]
        one = found.setdefault(
            row["release_id"],
            {
                "release": row["release_id"],
                "released_at": row["released_at"],
                "tables": {},
                "days": None if start is None else str(start) if start == end else f"{start}/{end}",
                "reason": f"override: {row['reason']}" if row["override_of"] else row["reason"],
                "by": row["released_by"],
            },
        )
        before = "new" if row["previous_version"] is None else row["previous_version"]
        one["tables"][row["table_name"]] = f"{before} → {row['version']}"
        one["tables"] |= dict.fromkeys(dict(row["views"] or ()), "query")
    return [one for one in reversed(found.values()) if table is None or table in one["tables"]]

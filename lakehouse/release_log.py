"""What ``ops.releases`` says: which versions readers see, and saw."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from lakehouse import ops
from lakehouse.errors import LakeError

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

"""Freshness: how far behind its sources were when a table was released, by what was released of them until then."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lakehouse.contracts import Contract


def stale_days(
    tables: Iterable[str],
    contracts: Sequence[Contract],
    log: Sequence[Mapping[str, Any]],
    day: dt.date,
    release_id: int,
) -> dict[str, int]:
    """How many days of each source were missing.

    Of a source that delivers the rows of a day, all days are expected that could have arrived by then. A snapshot that
    is missing is no gap: the one before it goes on to count.

    Args:
        tables: Tables that something was made from, directly or not.
        contracts: Of all sources.
        log: Rows of ``ops.releases``, the oldest release first.
        day: The day that it was made for.
        release_id: The release that it was made visible by.

    Returns:
        Source table to the days from its newest one to the newest that was due; 0 where nothing is missing.
    """
    made_from = set(tables)
    found = {}
    for contract in contracts:
        if contract.table not in made_from or contract.delivery != "daily":
            continue
        due = day - dt.timedelta(days=max(contract.lag_days, 0))
        if contract.history_end is not None:
            due = min(due, contract.history_end)
        newest = newest_day(contract.table, log, release_id)
        if newest is not None and due >= contract.history_start:
            found[contract.table] = max((due - newest).days, 0)
    return found


def newest_day(table: str, log: Iterable[Mapping[str, Any]], release_id: int | None = None) -> dt.date | None:
    """The last day that readers saw of a table right after a release; None when there was none.

    Args:
        table: The table, as readers name it.
        log: Rows of ``ops.releases``, the oldest release first.
        release_id: The release; the newest without it.
    """
    shown: list[Mapping[str, Any]] = []
    for row in log:
        if row["table_name"] != table or (release_id is not None and row["release_id"] > release_id):
            continue
        if row["rollback_to"] is not None:
            shown = [each for each in shown if each["release_id"] <= row["rollback_to"]]
        elif row["interval_end"] is not None:
            shown.append(row)
    return max((row["interval_end"] for row in shown), default=None)

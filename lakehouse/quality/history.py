"""The history that anomaly rules compare with: figures of gated versions, once these are released."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import ops, release_log
from lakehouse.quality import anomalies, suites
from lakehouse.quality.anomalies import Figure, Watch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lakehouse.interval import Interval
    from lakehouse.quality.gate import GateResult


def watch(table: str, interval: Interval | None) -> Watch | None:
    """The anomaly rules of a table's suite, with the limits that its history gives them.

    Args:
        table: The table, as readers name it.
        interval: The days that the gate is about.
    """
    rules = anomalies.read(suites.load(table).meta)
    if not rules or interval is None:
        return None
    return anomalies.watch(rules, interval, *read(table))


def record(results: Iterable[GateResult], run_id: str) -> None:
    """Keep what a gate has seen, in one commit.

    Args:
        results: Its results, one for each table.
        run_id: The gate's run.
    """
    if rows := [row for result in results for row in _rows(result, run_id)]:
        ops.append("ops.profiles", rows)


def _rows(result: GateResult, run_id: str) -> list[dict[str, Any]]:
    rules = anomalies.read(result.suite.meta)
    per = next((rule.per for rule in rules if rule.per), None)
    now = dt.datetime.now(dt.UTC)
    rows: list[dict[str, Any]] = []
    for position, figure in enumerate(result.figures):
        common = {
            "run_id": run_id,
            "profiled_at": now,
            "source": "gate",
            "table_name": result.suite.name,
            "version": result.version,
            "per": per if position else None,
            "interval_start": figure.day,
            "interval_end": figure.day,
            "row_count": figure.rows,
        }
        rows.append(common)
        for column in dict.fromkeys([*figure.nulls, *figure.means, *figure.newest]):
            newest = figure.newest.get(column)
            rows.append(
                common
                | {
                    "column_name": column,
                    "null_count": figure.nulls.get(column),
                    "mean": figure.means.get(column),
                    "max": newest.isoformat() if newest else None,
                }
            )
    return rows


def read(table: str) -> tuple[list[Figure], list[Figure]]:
    """The figures of released versions, and of days as they were last released; both the oldest first.

    What was released and then rolled back is no history.

    Args:
        table: The table, as readers name it.
    """
    versions: list[int] = []
    for row in release_log.history():
        if row["table_name"] == table:
            # A release of an earlier version takes back those since.
            versions = [version for version in versions if version < row["version"]] + [row["version"]]
    kept = ops.read("ops.profiles")
    kept = kept.filter(pc.and_(pc.equal(kept["table_name"], table), pc.equal(kept["source"], "gate")))
    rows = [row for row in kept.to_pylist() if row["version"] in versions]
    groups: dict[tuple[int, dt.date | None], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["version"], row["profiled_at"])):
        day = row["interval_start"] if row["per"] else None
        group = groups.setdefault((row["version"], day), [])
        if group and group[0]["run_id"] != row["run_id"]:  # gated twice
            group.clear()
        group.append(row)
    whole = [_figure(group) for (_, day), group in sorted(groups.items(), key=lambda g: g[0][0]) if day is None]
    daily = {day: _figure(group) for (_, day), group in sorted(groups.items(), key=lambda g: g[0][0]) if day}
    return whole, [daily[day] for day in sorted(daily)]


def _figure(rows: list[dict[str, Any]]) -> Figure:
    columns = [row for row in rows if row["column_name"] is not None]
    return Figure(
        version=rows[0]["version"],
        day=rows[0]["interval_end"],
        rows=rows[0]["row_count"],
        nulls={row["column_name"]: row["null_count"] for row in columns if row["null_count"] is not None},
        means={row["column_name"]: row["mean"] for row in columns},
        newest={row["column_name"]: dt.datetime.fromisoformat(row["max"]) for row in columns if row["max"]},
    )

"""R9, reading a released view, against reading the head of its table, after a thousand commits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import duckdb
from deltalake import DeltaTable, write_deltalake

from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of

SIZE, QUICK_SIZE = "1M", "100k"
GOAL = Goal(1.2)
COMMITS, QUICK_COMMITS = 1000, 100
STORED, VIEW = "gold_next.commits", "gold.commits"
QUERY = "select carrier, count(*) as rows, sum(minutes) as minutes from {} group by carrier order by carrier"


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Rows of the table, such as ``1M``.
        pairs: How often each side is timed.
    """
    with engine():
        return [measure(size, pairs)]


def measure(size: str, pairs: int) -> Result:
    """Time both sides in turn, on the engine that is there.

    Args:
        size: Rows of the table, such as ``1M``.
        pairs: How often each side is timed.
    """
    from lakehouse import ops, tables
    from lakehouse.engine import sql
    from lakehouse.releases.release import release

    commits = QUICK_COMMITS if size == QUICK_SIZE else COMMITS
    tables.create(STORED, {"carrier": "string", "minutes": "bigint", "n": "bigint"}, statistics=["n"])
    folder = Path(tables.location(STORED).removeprefix("file://"))
    each = rows_of(size) // commits
    with duckdb.connect() as connection:
        for number in range(commits):
            first = number * each
            part = connection.sql(
                "select ['UA', 'B6', 'DL', 'AA'][(n % 4 + 1)::int] as carrier, n * 7 % 90 as minutes, n "
                f"from range({first}, {first + each}) as numbers(n)"
            )
            write_deltalake(folder, part.to_arrow_reader(), mode="append")
            if number % 50 == 49:  # as the engine does it, by the table's property
                DeltaTable(folder).create_checkpoint()
    version = tables.head(STORED)
    assert version is not None
    verdict = {"table_name": VIEW, "version": version, "verdict": "passed", "checked_at": dt.datetime.now(dt.UTC)}
    ops.append("ops.gate_results", [verdict])
    release([VIEW], None)

    def read(name: str) -> list[Any]:
        return [tuple(row) for row in sql(QUERY.format(name)).collect()]

    result = Result(
        "R9",
        f"reading a released view ÷ the table's head, after {commits} commits",
        size,
        GOAL,
        ("released view", "head"),
        notes=(f"An aggregate over {commits} files. The view is pinned at the head's version: both read the same.",),
    )
    return compare(
        result,
        Side("released view", lambda: read(VIEW), lambda: read(VIEW)),
        Side("head", lambda: read(STORED), lambda: read(STORED)),
        pairs,
        warm=3,
    )

"""R6, a day's run with a long history, against one with a short: intervals, files and commits grow together."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from benchmarks import data
from benchmarks.comparators.landing import TYPES
from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of
from benchmarks.sources import declare

SIZE, QUICK_SIZE = "1k", "1k"
GOAL = Goal(1.05)
DAY = dt.date(2013, 3, 1)
SHORT = 10
GROWTH = (10, 100)
CHECKPOINT = 50


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn, for each growth.

    Args:
        size: Rows of a day, such as ``1k``.
        pairs: How often each side is timed.
    """
    with engine():
        ran = {days: daily(days, size) for days in (SHORT, *(SHORT * growth for growth in GROWTH))}
        return [measure(growth, ran, size, pairs) for growth in GROWTH]


def measure(growth: int, ran: dict[int, Side], size: str, pairs: int) -> Result:
    """Time a long history and the short one in turn.

    Args:
        growth: How many times as long.
        ran: Days of history to the run of a day.
        size: Rows of a day.
        pairs: How often each side is timed.
    """
    long, short = ran[SHORT * growth], ran[SHORT]
    result = Result(
        f"R6-{growth}x",
        f"a day's landing, gate and release after {SHORT * growth} days ÷ after {SHORT}",
        size,
        GOAL,
        (long.name, short.name),
        notes=(
            "A commit and a file for each day of history, checkpoints every "
            f"{CHECKPOINT} commits. The gate reads the whole table, as a release needs it. No maintenance ran between.",
        ),
    )
    return compare(result, long, short, pairs)


def daily(days: int, size: str) -> Side:
    """A source with a history, and the run of its next day.

    Args:
        days: Of history, the day itself not counted.
        size: Rows of a day.
    """
    from lakehouse import tables
    from lakehouse.interval import Interval
    from lakehouse.releases.audit import gate
    from lakehouse.releases.release import release
    from lakehouse.settings import settings
    from lakehouse.steps import job

    source = f"flights_{days}"
    table, stored, day = f"bronze.{source}", f"bronze_next.{source}", Interval(DAY, DAY)
    declare(source, "csv")
    data.flight_outcomes(DAY, rows_of(size), Path(settings().drop_url) / source / f"{source}_{DAY}.csv")
    job("land")(source, day)
    folder = tables.location(stored).removeprefix("file://")
    rows = DeltaTable(folder).to_pyarrow_table()
    for number in range(1, days + 1):
        write_deltalake(folder, _earlier(rows, DAY - dt.timedelta(number)), mode="append")
        if number % CHECKPOINT == 0:
            DeltaTable(folder).create_checkpoint()

    def run_day() -> None:
        job("land")(source, day)
        gate([table], day)
        release([table], day)

    def left() -> dict[str, Any]:
        columns = [*TYPES, "_interval", "_source_row"]
        return data.digest(folder, columns, where=f"_interval = '{DAY}'")

    return Side(f"{days} days", run_day, left)


def _earlier(rows: pa.Table, day: dt.date) -> pa.Table:
    """The same flights on another day."""
    for name in ("_interval", "flight_date"):
        column = pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), column)
    back = pa.scalar(DAY - day, pa.duration("us"))
    index = rows.schema.get_field_index("scheduled_departure")
    moved = pc.subtract(rows.column(index), back)
    return rows.set_column(index, rows.schema.field(index), moved)

"""R4, landing one day of flights with bad rows among them, against DuckDB and delta-rs; as Parquet and as CSV."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.comparators import landing as comparator
from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of
from benchmarks.sources import declare

SIZE, QUICK_SIZE = "10M", "1k"
GOALS = {"parquet": Goal(1.0, speed=True), "csv": Goal(0.6, speed=True)}
DAY = dt.date(2013, 3, 1)


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn, for each format.

    Args:
        size: Rows of the day, such as ``10M``.
        pairs: How often each side is timed.
    """
    with engine() as home:
        return [measure(form, size, pairs, home) for form in GOALS]


def measure(form: str, size: str, pairs: int, home: Path) -> Result:
    """Time both sides in turn, on the engine that is there.

    Args:
        form: ``parquet`` or ``csv``.
        size: Rows of the day, such as ``10M``.
        pairs: How often each side is timed.
        home: A folder for the other side's tables.
    """
    from lakehouse import tables
    from lakehouse.interval import Interval
    from lakehouse.settings import settings
    from lakehouse.steps import job

    source = f"flights_{form}"
    declare(source, form)
    file = Path(settings().drop_url) / source / f"{source}_{DAY}.{form}"
    data.flight_outcomes(DAY, rows_of(size), file)
    table, quarantine = home / "comparator" / form, home / "comparator" / f"{form}_quarantine"
    columns = [*comparator.TYPES, "_interval", "_source_row"]
    bad = ["_source_row", "len(_reasons) as reasons"]

    def left(good_rows: str | Path, bad_rows: str | Path) -> dict[str, Any]:
        return {"landed": data.digest(good_rows, columns), "quarantined": data.digest(bad_rows, bad)}

    result = Result(
        f"R4-{form}",
        f"speed of landing {form} with its quarantine split ÷ DuckDB and delta-rs",
        size,
        GOALS[form],
        ("land", "DuckDB and delta-rs"),
        notes=(
            f"A file of {file.stat().st_size / 2**20:.0f} MiB, {len(comparator.TYPES)} columns; 3 rows in 1,000 go to "
            "quarantine. The day is replaced each time. Landed rows are compared whole, quarantined ones by row number "
            "and count of reasons.",
        ),
    )
    stored, refused = tables.location(f"bronze_next.{source}"), tables.location(f"quarantine.{source}")
    ours = Side(
        "land",
        lambda: job("land")(source, Interval(DAY, DAY)),
        lambda: left(stored.removeprefix("file://"), refused.removeprefix("file://")),
    )
    theirs = Side(
        "DuckDB and delta-rs",
        lambda: comparator.land(file, DAY, table, quarantine),
        lambda: left(table, quarantine),
    )
    return compare(result, ours, theirs, pairs)

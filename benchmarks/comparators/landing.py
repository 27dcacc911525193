"""Land one file of flight outcomes with DuckDB and delta-rs: types, rules, quarantine, replace the day."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa
from deltalake import write_deltalake

TYPES = {
    "flight_date": "date",
    "carrier": "varchar",
    "flight_number": "integer",
    "tail_number": "varchar",
    "origin": "varchar",
    "destination": "varchar",
    "scheduled_departure": "timestamptz",
    "departure_time": "integer",
    "departure_delay_minutes": "integer",
    "arrival_time": "integer",
    "arrival_delay_minutes": "integer",
    "air_time_minutes": "integer",
}
KEY = ["flight_date", "carrier", "flight_number", "scheduled_departure"]
RULES = {
    **{f"{name} is missing": f"raw.{name} is null" for name in [*KEY, "origin", "destination"]},
    "flight_date is not the day of the file": "flight_date != _interval",
    "key is not unique": f"count(*) over (partition by {', '.join(KEY)}) > 1",
    "carrier is no code": "not regexp_full_match(carrier, '[0-9A-Z]{2}')",
    "flight_number is out of bounds": "flight_number not between 1 and 9999",
    "origin is unknown": "origin not in ('EWR', 'JFK', 'LGA')",
    "destination is no code": "not regexp_full_match(destination, '[A-Z]{3}')",
    "tail_number is none": "not regexp_full_match(tail_number, '[A-Z][0-9A-Z]{1,5}')",
    "departure_time is none": "departure_time not between 1 and 2400",
    "arrival_time is none": "arrival_time not between 1 and 2400",
    "departure_delay_minutes is out of bounds": "departure_delay_minutes not between -120 and 2880",
    "arrival_delay_minutes is out of bounds": "arrival_delay_minutes not between -180 and 2880",
    "air_time_minutes is out of bounds": "air_time_minutes not between 5 and 1000",
}


def land(
    path: Path,
    day: dt.date,
    table: Path,
    quarantine: Path,
    types: dict[str, str] = TYPES,
    rules: dict[str, str] = RULES,
    name: str | None = None,
) -> tuple[int, int]:
    """Land a file, replacing what was landed for its day before.

    Args:
        path: A ``.csv``, ``.jsonl`` or ``.parquet`` file.
        day: The day that it is about.
        table: Folder of the Delta table of good rows.
        quarantine: Folder of the Delta table of bad ones.
        types: Its columns.
        rules: What is wrong with a row, to the SQL condition; ``raw`` is the row as it stands in the file.
        name: What to call the file in the tables; its path without it.

    Returns:
        How many rows were good, and how many bad.
    """
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        texts = ", ".join(f"'{column}': 'varchar'" for column in types)
        read = {
            ".csv": f"select *, row_number() over () as _source_row from read_csv('{path}', all_varchar = true)",
            ".jsonl": "select *, row_number() over () as _source_row "
            f"from read_json('{path}', format = 'newline_delimited', columns = {{{texts}}})",
            ".parquet": "select * exclude (file_row_number), file_row_number + 1 as _source_row "
            f"from read_parquet('{path}', file_row_number = true)",
        }[path.suffix]
        typed = ", ".join(f"try_cast(raw.{name} as {type_}) as {name}" for name, type_ in types.items())
        reasons = {f"{name} is not of its type": f"raw.{name} is not null and {name} is null" for name in types} | rules
        broken = ", ".join(f"if({condition}, $${reason}$$, null)" for reason, condition in reasons.items())
        connection.execute(f"""
            create table judged as
            with typed as (
                select {typed}, date '{day}' as _interval, '{name or path}' as _source_file, _source_row, raw
                from (select _source_row, r as raw from ({read}) as r)
            )
            select * exclude (raw), if(len(_reasons) > 0, to_json(raw)::varchar, null) as _raw
            from (
                select *, list_filter([{broken}], lambda reason: reason is not null) as _reasons from typed
            )
        """)
        good = connection.sql("select * exclude (_raw, _reasons) from judged where len(_reasons) = 0")
        bad = connection.sql(
            "select _interval, _source_file, _source_row, _raw, _reasons from judged where len(_reasons) > 0"
        )
        for rows, folder in ((good, table), (bad, quarantine)):
            replace(folder, rows.to_arrow_reader(100_000), f"_interval = '{day}'")
        counts = connection.execute(
            "select count(*) filter (len(_reasons) = 0), count(*) filter (len(_reasons) > 0) from judged"
        ).fetchone()
    assert counts is not None
    return counts[0], counts[1]


def replace(folder: Path, rows: pa.RecordBatchReader, where: str | None = None) -> None:
    """Write rows to a Delta table in place of others.

    Args:
        folder: Of the table; made when it is not there.
        rows: The rows.
        where: Which rows they take the place of; all of them without it.
    """
    # Only a table that is there has rows to replace.
    there = (folder / "_delta_log").exists()
    write_deltalake(folder, rows, mode="overwrite", predicate=where if there else None)

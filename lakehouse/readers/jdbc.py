"""A table of a PostgreSQL database: whole, as a snapshot, or the rows whose watermark falls into the interval."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from lakehouse.engine import spark
from lakehouse.readers import jsonl
from lakehouse.readers.batch import PROVENANCE, Batch, SourceError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval


FETCH_ROWS = 10_000
"""Rows that the database sends at once."""


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the rows of an interval from a database table.

    An incremental load asks for the interval's own watermarks and not for what is new since the last load, so
    that a backfill, a rerun and a run out of order find the same rows.

    Args:
        contract: The source's contract.
        interval: The days to read; a full load takes one day, the day of the snapshot.

    Raises:
        SourceError: A full load is asked for a range, though a database knows only its present state.
    """
    from pyspark.errors import PySparkException
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    if contract.load == "full" and not interval.is_day:
        raise SourceError(
            f"{contract.name} is a snapshot of a database table: load it for one day, not for {interval}.",
            "snapshot_range",
        )
    names = [column.name for column in contract.columns]
    quoted = ", ".join(f'"{name}"' for name in names)
    query = f"select {quoted} from {contract.server.table}"
    if contract.load == "incremental":
        after = interval.end + dt.timedelta(days=1)
        query += f" where \"{contract.watermark}\" >= '{interval.start}' and \"{contract.watermark}\" < '{after}'"
    connection = contract.connection()
    rows = (
        spark()
        .read.format("jdbc")
        .option("url", connection.jdbc_url)
        .option("user", connection.user)
        .option("password", connection.password)
        .option("driver", "org.postgresql.Driver")
        .option("preferTimestampNTZ", False)
        .option("query", query)
        # PostgreSQL's driver would put the whole answer into the engine's memory.
        .option("fetchsize", FETCH_ROWS)
        .load()
    )
    try:
        rows.schema  # noqa: B018 - asks the database, which may refuse
    except PySparkException as error:
        reason = next((line for line in str(error).splitlines() if "PSQLException" in line), str(error).splitlines()[0])
        raise SourceError(
            f"{contract.name}: the table {contract.server.table} at {connection.jdbc_url} cannot be read: "
            f"{reason.rpartition('PSQLException: ')[2].strip()}. Correct the contract's server or the variables that "
            "it names, or ask the database's owner.",
            "database",
        ) from error
    day = (
        F.to_date(str(contract.watermark))
        if contract.load == "incremental"
        else F.lit(interval.start.isoformat()).cast("date")
    )
    rows = rows.select(
        *names,
        F.lit(f"{connection.jdbc_url}/{contract.server.table}").alias("_source_file"),
        F.row_number().over(Window.partitionBy(day).orderBy(*contract.keys)).cast("bigint").alias("_source_row"),
        jsonl.record({name: (F.col(name), type_) for name, type_ in rows.dtypes}, contract).alias("_raw"),
        F.lit(None).cast("array<string>").alias("_columns"),
        F.lit(None).cast("struct<code:string,text:string>").alias("_malformed"),
        day.alias("_interval"),
    )
    return Batch(rows.select(*names, *PROVENANCE, "_interval"))


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take quarantined records apart, which are kept as JSON.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract as it is now.
    """
    return jsonl.reread(records, contract)

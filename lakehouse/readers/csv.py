"""CSV files (RFC 4180: comma, double quotes, a quote within quotes is doubled), with a header.

They are read in two steps: files into records as they arrived, and a record into its fields. The second one is also
what takes quarantined records apart again.
"""

from __future__ import annotations

import csv
import datetime as dt
from collections import defaultdict
from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import fsspec

from lakehouse.engine import spark
from lakehouse.readers.batch import Batch, SourceError
from lakehouse.readers.drift import MAX_FIELDS, align
from lakehouse.readers.files import (
    check_text,
    delivered,
    fingerprints,
    lines,
    python_encoding,
    readable,
    stamps,
    with_position,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

_OPTIONS = {"escape": '"', "maxColumns": str(MAX_FIELDS + 2), "columnNameOfCorruptRecord": "_corrupt"}
_HEADER_LENGTH = 1 << 20


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the CSV files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty, is no text, or has a header that is not the contract's.
    """
    paths = delivered(contract, interval)
    encoding = contract.server.encoding
    marks = stamps(paths)
    files = fingerprints(paths)
    alike: defaultdict[tuple[bool, tuple[str, ...]], dict[str, dt.date]] = defaultdict(dict)
    for path, day in paths.items():
        by_line = check_text(path, encoding, quoted=True) and encoding.upper() == "UTF-8"
        names = header(path, encoding)
        align(names, contract, f"{path}, line 1")
        alike[by_line, names][path] = day
    parts = [
        _parse(_lines(names, group) if by_line else _records(names, group, encoding), names, contract)
        for (by_line, names), group in alike.items()
    ]
    return _joined(parts, files, marks)


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take quarantined records apart by the header that their file had.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract as it is now.
    """
    from pyspark.sql import functions as F

    headers = [tuple(row["_columns"]) for row in records.select("_columns").distinct().collect()]
    headers = headers or [tuple(column.name for column in contract.columns)]
    parts = [
        _parse(records.where(F.col("_columns") == F.array(*map(F.lit, names))), names, contract) for names in headers
    ]
    return _joined(parts)


def header(path: str, encoding: str = "UTF-8") -> tuple[str, ...]:
    """The names on the first line of a file, as they stand there.

    Args:
        path: A CSV file.
        encoding: Character encoding of the file.

    Raises:
        SourceError: There is no header.
    """
    with fsspec.open(path, "rt", encoding=python_encoding(encoding), newline="\n", compression="infer") as file:
        # A quote that is never closed would make a header of the whole file.
        line = file.readline(_HEADER_LENGTH).rstrip("\r\n")
    try:
        names = next(csv.reader([line]), None)
    except csv.Error as error:
        raise SourceError(
            f"{path}, line 1: this is no header ({error}). A line ends with LF or CR LF.", "header_missing"
        ) from error
    if not names:
        raise SourceError(f"{path}, line 1: there is no header.", "header_missing")
    return tuple(names)


def _joined(parts: Sequence[Batch], *about_files: dict[str, Any]) -> Batch:
    rows = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), [part.rows for part in parts])
    added = {name: type_ for part in parts for name, type_ in part.added.items()}
    files, marks = about_files or ({}, {})
    return Batch(rows, files, added, marks)


def _lines(names: tuple[str, ...], paths: dict[str, dt.date]) -> DataFrame:
    """The records of files of which each line is one: Spark's reader of CSV would read a file in one piece."""
    from pyspark.sql import functions as F

    local = readable(paths)
    df = lines(local, blank=False).where("_number > 1")
    df = df.select(
        F.rtrim("_line", F.lit("\r")).alias("_raw"), F.array(*map(F.lit, names)).alias("_columns"), "_path", "_number"
    )
    return with_position(df, paths, F.col("_number") - 1, local).drop("_number")


def _records(names: tuple[str, ...], paths: dict[str, dt.date], encoding: str) -> DataFrame:
    """The records of files of which some go over several lines."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    local = readable(paths)
    # Asked for one field, Spark calls every record with more of them corrupt, and so hands it over as it arrived.
    df = (
        spark()
        .read.schema("_only string, _corrupt string")
        .options(**_OPTIONS)
        .option("header", True)
        .option("multiLine", True)
        .option("lineSep", "\n")
        .option("encoding", encoding)
        .csv(local)
    )
    kept = {"ignoreLeadingWhiteSpace": "false", "ignoreTrailingWhiteSpace": "false"}
    # An empty line is no record, whatever it ends with.
    df = df.where(F.col("_corrupt").isNotNull() | ~F.coalesce(F.col("_only").rlike("^\r+$"), F.lit(False)))
    df = df.select(
        F.regexp_replace(F.coalesce("_corrupt", F.to_csv(F.struct("_only"), kept)), "[\r\n]+$", "").alias("_raw"),
        F.array(*map(F.lit, names)).alias("_columns"),
        F.col("_metadata.file_path").alias("_path"),
        F.monotonically_increasing_id().alias("_order"),
    )
    row = F.row_number().over(Window.partitionBy("_path").orderBy("_order"))
    return with_position(df, paths, row, local).drop("_order")


def _parse(records: DataFrame, names: tuple[str, ...], contract: Contract) -> Batch:
    from pyspark.sql import functions as F

    alignment = align(names, contract, "the header")
    # By place, not by name: a field that is not taken may be called anything.
    fields = [f"f{place}" for place in range(len(names))]
    schema = ", ".join(f"{name} string" for name in (*fields, "_corrupt"))
    record = F.from_csv("_raw", F.lit(schema), _OPTIONS)
    quotes = F.length("_raw") - F.length(F.replace("_raw", F.lit('"'), F.lit("")))
    malformed = F.when(
        quotes % 2 == 1,
        F.struct(F.lit("unclosed_quote").alias("code"), F.lit("malformed record: a quote is not closed").alias("text")),
    ).when(
        F.col("_record._corrupt").isNotNull(),
        F.struct(
            F.lit("field_count").alias("code"),
            F.lit(f"malformed record: it does not have {len(names)} fields").alias("text"),
        ),
    )
    taken = [
        F.col(f"_record.{field}").alias(name)
        for field, name in zip(fields, alignment.fields, strict=True)
        if name is not None
    ]
    absent = [F.lit(None).cast("string").alias(name) for name in alignment.missing]
    rows = records.withColumn("_record", record).select(
        *taken, *absent, *records.columns, malformed.alias("_malformed")
    )
    return Batch(rows, added=dict.fromkeys(alignment.added, "STRING"))

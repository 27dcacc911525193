"""CSV files (RFC 4180: comma, double quotes, a quote within quotes is doubled), with a header."""

from __future__ import annotations

import csv
import datetime as dt
from collections import defaultdict
from functools import reduce
from typing import TYPE_CHECKING

import fsspec

from lakehouse.engine import spark
from lakehouse.readers import PROVENANCE, Batch, SourceError
from lakehouse.readers.files import delivered, fingerprints, with_position

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the CSV files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty or has a header that is not the contract's.
    """
    paths = delivered(contract, interval)
    columns = [column.name for column in contract.columns]
    files = fingerprints(list(paths))
    by_header: defaultdict[tuple[str, ...], dict[str, dt.date]] = defaultdict(dict)
    for path, day in paths.items():
        by_header[header(path, columns, contract.server.encoding)][path] = day
    parts = [_read_alike(names, group, contract.server.encoding) for names, group in by_header.items()]
    return Batch(reduce(lambda a, b: a.unionByName(b), parts).select(*columns, *PROVENANCE, "_interval"), files)


def header(path: str, expected: list[str], encoding: str = "UTF-8") -> tuple[str, ...]:
    """Column names in the order in which a file has them.

    Args:
        path: A CSV file.
        expected: The names that the contract declares; any order will do.
        encoding: Character encoding of the file.

    Raises:
        SourceError: Names are missing, unexpected or there twice; the message says which.
    """
    with fsspec.open(path, "rt", encoding=_python_encoding(encoding), newline="") as file:
        try:
            names = tuple(next(csv.reader(file)))
        except StopIteration:
            raise SourceError(f"{path}, line 1: there is no header.") from None
        except UnicodeDecodeError as error:
            raise SourceError(f"{path} is not {encoding} ({error}). Convert it, or change the contract.") from error
    faults = [f"column {name!r} is missing" for name in expected if name not in names]
    faults += [f"column {name!r} is not in the contract" for name in names if name not in expected]
    faults += [
        f"column {name!r} is there {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1
    ]
    if faults:
        raise SourceError(
            f"{path}, line 1: {'; '.join(faults)}. The contract expects {', '.join(expected)}. "
            "Correct the file, or change the contract if the source has changed for good."
        )
    return names


def _python_encoding(encoding: str) -> str:
    # Spark drops a byte-order mark by itself; Python has a codec of its own for that.
    return "utf-8-sig" if encoding.upper() == "UTF-8" else encoding


def _read_alike(names: tuple[str, ...], paths: dict[str, dt.date], encoding: str) -> DataFrame:
    from pyspark.sql import functions as F

    schema = ", ".join(f"`{name}` string" for name in (*names, "_corrupt"))
    df = (
        spark()
        .read.schema(schema)
        .option("header", True)
        .option("multiLine", True)
        .option("mode", "PERMISSIVE")
        .option("columnNameOfCorruptRecord", "_corrupt")
        .option("encoding", encoding)
        .option("escape", '"')
        .option("maxColumns", 20480)
        .csv(list(paths))
    )
    df = df.select(
        *names,
        F.coalesce("_corrupt", F.to_csv(F.struct(*names))).alias("_raw"),
        F.when(F.col("_corrupt").isNotNull(), F.lit(f"malformed record: it does not have {len(names)} fields")).alias(
            "_malformed"
        ),
        F.col("_metadata.file_path").alias("_path"),
        F.monotonically_increasing_id().alias("_order"),
    )
    return with_position(df, paths, [F.col("_order")]).drop("_order")

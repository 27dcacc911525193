"""Parquet files. Their own types are kept; the contract's types are applied to them like to any other source."""

from __future__ import annotations

from collections import defaultdict
from functools import reduce
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.engine import spark
from lakehouse.readers import PROVENANCE, Batch, SourceError
from lakehouse.readers.files import delivered, fingerprints, with_position

if TYPE_CHECKING:
    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the Parquet files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty, is not Parquet, or its columns are not the contract's.
    """
    from pyspark.sql import functions as F

    paths = delivered(contract, interval)
    files = fingerprints(list(paths))
    names = [column.name for column in contract.columns]
    # Files of one schema are read together: Spark would take the types of one file for all of them.
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for path in paths:
        alike[_schema(path, names)].append(path)
    parts = [
        spark()
        .read.parquet(*group)
        .select(
            *names,
            F.to_json(F.struct(*names), {"ignoreNullFields": "false"}).alias("_raw"),
            F.lit(None).cast("string").alias("_malformed"),
            F.col("_metadata.file_path").alias("_path"),
            F.col("_metadata.row_index").alias("_order"),
        )
        for group in alike.values()
    ]
    df = with_position(reduce(lambda a, b: a.unionByName(b), parts), paths, [F.col("_order")])
    return Batch(df.select(*names, *PROVENANCE, "_interval"), files)


def _schema(path: str, expected: list[str]) -> str:
    with fsspec.open(path, "rb") as file:
        try:
            schema = pq.read_schema(file)
        except pa.ArrowInvalid as error:
            raise SourceError(f"{path} is not a Parquet file: {error}") from error
    names = schema.names
    faults = [f"column {name!r} is missing" for name in expected if name not in names]
    faults += [f"column {name!r} is not in the contract" for name in names if name not in expected]
    if faults:
        raise SourceError(f"{path}: {'; '.join(faults)}. The contract expects {', '.join(expected)}.")
    return str(schema.remove_metadata())

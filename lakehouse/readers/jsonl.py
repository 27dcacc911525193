"""JSON lines: one object a line, in UTF-8. A blank line is no record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.engine import spark
from lakehouse.readers import PROVENANCE, Batch
from lakehouse.readers.files import delivered, fingerprints, with_position

if TYPE_CHECKING:
    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the JSON-lines files of an interval.

    Args:
        contract: The source's contract. A key that it does not declare makes the record malformed.
        interval: The days to read.

    Raises:
        SourceError: A file is empty.
    """
    from pyspark.sql import functions as F

    paths = delivered(contract, interval)
    files = fingerprints(list(paths))
    names = [column.name for column in contract.columns]
    schema = ", ".join(f"`{name}` string" for name in (*names, "_corrupt"))
    lines = (
        spark()
        .read.text(list(paths))
        .select(
            F.col("value").alias("_raw"),
            F.col("_metadata.file_path").alias("_path"),
            F.col("_metadata.file_block_start").alias("_block"),
            F.monotonically_increasing_id().alias("_order"),
        )
    )
    unknown = F.array_except(F.json_object_keys("_raw"), F.array(*map(F.lit, names)))
    df = (
        with_position(lines, paths, [F.col("_block"), F.col("_order")])
        .where(F.trim("_raw") != "")
        .withColumn("_record", F.from_json("_raw", schema, {"columnNameOfCorruptRecord": "_corrupt"}))
        .withColumn(
            "_malformed",
            F.when(F.col("_record._corrupt").isNotNull(), F.lit("malformed record: it is not a JSON object")).when(
                F.size(unknown) > 0,
                F.concat(F.lit("malformed record: not in the contract: "), F.array_join(unknown, ", ")),
            ),
        )
    )
    return Batch(df.select(*(F.col(f"_record.{name}").alias(name) for name in names), *PROVENANCE, "_interval"), files)

"""Parquet files. Their own types are kept; the contract's types are applied to them like to any other source."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from functools import reduce
from typing import TYPE_CHECKING

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.engine import spark
from lakehouse.readers import jsonl
from lakehouse.readers.batch import Batch, SourceError
from lakehouse.readers.drift import align
from lakehouse.readers.files import BOMB_BYTES, BOMB_RATIO, delivered, fingerprints, readable, stamps, with_position
from lakehouse.readers.jsonl import as_text

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval


VALUE_BYTES = 8
"""What Spark takes for a value in memory, at least."""


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the Parquet files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty, is not Parquet, or its columns are not the contract's.
    """
    paths = delivered(contract, interval)
    marks = stamps(paths)
    files = fingerprints(paths)
    schemas = {path: _schema(path, contract) for path in paths}
    local = dict(zip(paths, readable(paths), strict=True))
    return batch(schemas, local, paths, contract, files, marks)


def batch(
    schemas: dict[str, pa.Schema],
    local: dict[str, str],
    paths: dict[str, dt.date],
    contract: Contract,
    files: dict[str, dict[str, str | int]],
    marks: dict[str, tuple[object, ...]],
) -> Batch:
    """The records of Parquet files whose schemas have been checked.

    Args:
        schemas: Path of each delivered file to its columns.
        local: The same to the Parquet file that Spark reads.
        paths: The same to its day.
        contract: The source's contract.
        files: What is recorded of each delivered file.
        marks: What tells each from a later one of its name.
    """
    # Files of one schema are read together: Spark would take the types of one file for all of them.
    alike: defaultdict[pa.Schema, list[str]] = defaultdict(list)
    for path, schema in schemas.items():
        alike[schema].append(path)
    added: dict[str, str] = {}
    parts = [
        _read_alike(schema, group[0], [local[path] for path in group], contract, added)
        for schema, group in alike.items()
    ]
    if len(parts) > 1:
        parts = _of_one_type([as_text(part) for part in parts], contract, added)
    df = reduce(lambda a, b: a.unionByName(b, allowMissingColumns=True), parts)
    records = with_position(df, paths, df["_index"] + 1, [local[path] for path in paths])
    return Batch(records.drop("_index"), files, added, marks)


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take quarantined records apart, which are kept as JSON.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract as it is now.
    """
    return jsonl.reread(records, contract)


def _read_alike(
    schema: pa.Schema, example: str, local: list[str], contract: Contract, added: dict[str, str]
) -> DataFrame:
    from pyspark.sql import functions as F

    alignment = align(schema.names, contract, example)
    # First of all the session: a column is made for the kind of session that there is.
    frame = spark().read.parquet(*local)
    types = dict(frame.dtypes)
    taken = [
        _column(field).alias(name)
        for field, name in zip(schema.names, alignment.fields, strict=True)
        if name is not None
    ]
    # What is not taken is part of the record as it arrived, if it has a name and fits into one.
    arrived = {
        name or field.name: (_column(field.name), types[field.name])
        for field, name in zip(schema, alignment.fields, strict=True)
        if field.name.strip() and not pa.types.is_nested(field.type)
    }
    # Without an offset a time is one of UTC, as in a text; a table would need another protocol for times that are none.
    added |= {
        name: types[field].upper().removesuffix("_NTZ")
        for field, name in zip(schema.names, alignment.fields, strict=True)
        if name in alignment.added
    }
    absent = [F.lit(None).cast("string").alias(name) for name in alignment.missing]
    return frame.select(
        *taken,
        *absent,
        jsonl.record(arrived, contract).alias("_raw"),
        F.lit(None).cast("array<string>").alias("_columns"),
        F.lit(None).cast("struct<code:string,text:string>").alias("_malformed"),
        F.col("_metadata.file_path").alias("_path"),
        F.col("_metadata.row_index").alias("_index"),
    )


def _of_one_type(parts: list[DataFrame], contract: Contract, added: dict[str, str]) -> list[DataFrame]:
    """Make text of a column that has one type in some files and another in others, so that each value is kept."""
    types = [dict(part.dtypes) for part in parts]
    mixed = {name for each in types for name in each if len({other[name] for other in types if name in other}) > 1}
    declared = {column.name: column.spark_type for column in contract.columns}
    added |= dict.fromkeys(mixed & added.keys(), "STRING")
    return [
        part.withColumns(
            {
                name: jsonl.kept(_column(name), each[name], declared.get(name)).cast("string")
                for name in mixed & each.keys()
            }
        )
        for part, each in zip(parts, types, strict=True)
    ]


def _column(name: str) -> Column:
    from pyspark.sql import functions as F

    return F.col(f"`{name.replace('`', '``')}`")


def _schema(path: str, contract: Contract) -> pa.Schema:
    with fsspec.open(path, "rb") as file:
        try:
            # Spark reads timestamps of 96 bits, which pyarrow would call nanoseconds.
            found = pq.ParquetFile(file, coerce_int96_timestamp_unit="us")
            schema, size = found.schema_arrow.remove_metadata(), file.seek(0, 2)
        except (pa.ArrowException, OSError) as error:
            raise SourceError(
                f"{path} is not a whole Parquet file: {error}. Ask its sender to deliver it again.", "not_parquet"
            ) from error
    unpacked = _unpacked(found.metadata)
    if unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * size:
        raise SourceError(
            f"{path} has {size} bytes and grows to {unpacked} of them: that is no data.", "decompression_bomb"
        )
    check_columns(schema, contract, path)
    return schema


def _unpacked(metadata: pq.FileMetaData) -> int:
    """How many bytes a file grows to: by its own account, or what its rows and values take in memory, if that is more.

    Equal values take next to nothing in a file, not even unpacked: 20 million equal rows are less than 100 KB of pages.
    """
    size, values = 0, metadata.num_rows
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        size += group.total_byte_size
        for chunk in map(group.column, range(group.num_columns)):
            known = chunk.statistics is not None and chunk.statistics.has_null_count
            values += chunk.num_values - (chunk.statistics.null_count if known else 0)
    return max(size, values * VALUE_BYTES)


def check_columns(schema: pa.Schema, contract: Contract, path: str) -> None:
    """Refuse a file whose columns cannot be the contract's.

    Args:
        schema: The file's columns.
        contract: The source's contract.
        path: The file.

    Raises:
        SourceError: A column is missing, too many, nested, or of a type that does not fit or cannot be read.
    """
    alignment = align(schema.names, contract, path)
    declared = {column.name: column.spark_type for column in contract.columns}
    for field, name in zip(schema, alignment.fields, strict=True):
        if not is_read(field.type):
            raise SourceError(
                f"{path}: column {field.name!r} is {field.type}, which the engine does not read. Write timestamps of "
                "microseconds, times as text, floats of 32 bits, decimals of 38 digits.",
                "column_type",
            )
        if name is None:
            continue
        if pa.types.is_nested(field.type):
            raise SourceError(f"{path}: column {name!r} is nested ({field.type}). Flatten it in the source.", "nested")
        if contract.schema_drift == "reject" and not fits(field.type, declared[name]):
            raise SourceError(
                f"{path}: column {name!r} is {field.type}, which not every value of is {declared[name]}. Correct the "
                "file, or have its values judged one by one with schemaDrift ignore.",
                "column_type",
            )


def is_read(found: pa.DataType) -> bool:
    """Whether the engine reads columns of an Arrow type; of a file that has another it reads no column.

    Args:
        found: Type of a file's column.
    """
    if pa.types.is_float16(found) or pa.types.is_time(found):
        return False
    if (pa.types.is_timestamp(found) and found.unit == "ns") or (pa.types.is_decimal(found) and found.precision > 38):
        return False
    return all(is_read(found.field(place).type) for place in range(found.num_fields))


def fits(found: pa.DataType, declared: str) -> bool:
    """Whether every value of an Arrow type is one of a Spark type.

    Args:
        found: Type of a file's column.
        declared: The contract's type.
    """
    if pa.types.is_null(found):
        return True
    if pa.types.is_dictionary(found):
        return fits(found.value_type, declared)
    if pa.types.is_integer(found):
        bits = found.bit_width + (0 if pa.types.is_signed_integer(found) else 1)
        room = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64, "FLOAT": 25, "DOUBLE": 54}
        return bits <= room.get(declared, 64 if declared.startswith("DECIMAL") else 0)
    if pa.types.is_floating(found):
        return declared == "DOUBLE" or (declared == "FLOAT" and found.bit_width <= 32)
    if pa.types.is_decimal(found):
        return declared.startswith("DECIMAL")
    kinds = {
        "STRING": pa.types.is_string(found) or pa.types.is_large_string(found),
        "BOOLEAN": pa.types.is_boolean(found),
        "DATE": pa.types.is_date(found),
        "TIMESTAMP": pa.types.is_timestamp(found) or pa.types.is_date(found),
    }
    return kinds.get(declared, False)

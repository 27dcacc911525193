"""Avro files. Workers turn their records into JSON, each value by its own type; it is then read like JSON lines."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import fsspec

from lakehouse.engine import spark
from lakehouse.readers import Batch, SourceError, jsonl
from lakehouse.readers.drift import align
from lakehouse.readers.files import delivered, fingerprints, stamps, with_position

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

_ROWS = 10_000


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the Avro files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty, is not Avro, is damaged, or its fields are not the contract's.
    """
    from pyspark.sql import functions as F

    paths = delivered(contract, interval)
    marks = stamps(paths)
    files = fingerprints(list(paths))
    for path in paths:
        _check(path, contract)
    listed = spark().createDataFrame([(path,) for path in paths], "_path string").repartition(len(paths))
    rows = (
        listed.mapInPandas(_records, "_path string, _order bigint, _raw string")
        .withColumn("_columns", F.lit(None).cast("array<string>"))
    )  # fmt: skip
    batch = reread(with_position(rows, paths, [F.col("_order")]).drop("_order"), contract)
    return Batch(batch.rows, files, batch.added, marks)


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take quarantined records apart, which are kept as JSON.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract as it is now.
    """
    return jsonl.reread(records, contract)


def _check(path: str, contract: Contract) -> None:
    """Walk through the blocks of a file without holding them, so that a damaged one is known before any is read."""
    import fastavro

    # What fastavro raises on bytes that are no Avro is whatever its decoder stumbles on.
    broken = (ValueError, EOFError, OSError, LookupError, TypeError, zlib.error, fastavro.schema.SchemaParseException)
    with fsspec.open(path, "rb") as file:
        try:
            blocks = fastavro.block_reader(file)
            schema = blocks.writer_schema
        except broken as error:
            raise SourceError(
                f"{path} is not an Avro file: {error}. Ask its sender to deliver it again.", "not_avro"
            ) from error
        fields = schema.get("fields") if isinstance(schema, dict) and schema.get("type") == "record" else None
        if not fields:
            raise SourceError(
                f"{path}: its Avro schema is no record. Ask its sender for a file of records.", "not_avro"
            )
        alignment = align([field["name"] for field in fields], contract, path)
        for field, name in zip(fields, alignment.fields, strict=True):
            if name is not None and _is_nested(field["type"]):
                raise SourceError(f"{path}: column {name!r} is nested. Flatten it in the source.", "nested")
        try:
            for block in blocks:
                for _ in block:
                    pass
        except broken as error:
            raise SourceError(
                f"{path} is damaged or cut off: {error}. Ask its sender to deliver it again.", "damaged"
            ) from error


def _is_nested(type_: Any) -> bool:
    if isinstance(type_, list):
        return any(map(_is_nested, type_))
    kind = type_.get("type") if isinstance(type_, dict) else type_
    return kind in ("record", "array", "map")


def _records(frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    import fastavro
    import pandas as pd

    for frame in frames:
        for path in frame["_path"]:
            with fsspec.open(path, "rb") as file:
                texts: list[str] = []
                done = 0
                for record in fastavro.reader(file):
                    texts.append(json.dumps(record, default=_plain, ensure_ascii=False))
                    if len(texts) == _ROWS:
                        yield _frame(pd, path, done, texts)
                        done, texts = done + len(texts), []
                if texts:
                    yield _frame(pd, path, done, texts)


def _frame(pd: Any, path: str, done: int, texts: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"_path": path, "_order": range(done, done + len(texts)), "_raw": texts})


def _plain(value: Any) -> Any:
    if isinstance(value, dt.date | dt.datetime | dt.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no value of a column.")

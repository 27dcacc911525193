"""Avro files. Each is turned into a Parquet file of the same types in the state folder, and read like one."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from lakehouse.readers import jsonl, parquet
from lakehouse.readers.batch import Batch, SourceError
from lakehouse.readers.files import BOMB_BYTES, BOMB_RATIO, COPIES_KEPT, delivered, fingerprints, stamps
from lakehouse.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

MAGIC = b"Obj\x01"
CODECS = ("null", "deflate")
_TYPES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "enum": pa.string(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
}
_LOGICAL_TYPES = {
    "date": pa.date32(),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
    "uuid": pa.string(),
}


def read(contract: Contract, interval: Interval) -> Batch:
    """Read the Avro files of an interval.

    Args:
        contract: The source's contract.
        interval: The days to read.

    Raises:
        SourceError: A file is empty, is not Avro, is damaged, grows beyond measure, or its fields are not the
            contract's.
    """
    paths = delivered(contract, interval)
    marks = stamps(paths)
    files = fingerprints(paths)
    _forget_old_copies()
    schemas: dict[str, pa.Schema] = {}
    local: dict[str, str] = {}
    for path in paths:
        with fsspec.open(path, "rb") as file:
            schemas[path] = _schema(file, path, contract)
            local[path] = str(_copy(file, path, schemas[path]))
    return parquet.batch(schemas, local, paths, contract, files, marks)


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take quarantined records apart, which are kept as JSON.

    Args:
        records: See :func:`lakehouse.readers.reread`.
        contract: The source's contract as it is now.
    """
    return jsonl.reread(records, contract)


def _schema(file: IO[bytes], path: str, contract: Contract) -> pa.Schema:
    """The columns of a file that can be read: its blocks are whole, and not too big."""
    import fastavro

    size = file.seek(0, 2)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise SourceError(f"{path} does not begin like an Avro file. Ask its sender to deliver it again.", "not_avro")
    file.seek(0)
    try:
        header = fastavro.reader(file)
        schema, codec = header.writer_schema, header.codec
        # The header ends with what also ends each block.
        sync = header._header["sync"]
    except (ValueError, EOFError, LookupError, TypeError, fastavro.schema.SchemaParseException) as error:
        raise SourceError(
            f"{path} is not an Avro file: {error}. Ask its sender to deliver it again.", "not_avro"
        ) from error
    fields = schema.get("fields") if isinstance(schema, dict) and schema.get("type") == "record" else None
    if not fields:
        raise SourceError(f"{path}: its Avro schema is no record. Ask its sender for a file of records.", "not_avro")
    if codec not in CODECS:
        raise SourceError(
            f"{path} is compressed by {codec}, which is not read. Write it with {' or '.join(CODECS)}.", "compression"
        )
    found = pa.schema([(field["name"], _type(field["type"], field["name"], path)) for field in fields])
    parquet.check_columns(found, contract, path)
    unpacked = 0
    try:
        for records, bytes_ in _blocks(file, codec, sync):
            unpacked += bytes_
            # A record takes a byte, or it is nothing but nulls.
            if (unpacked > BOMB_BYTES and unpacked > BOMB_RATIO * size) or records > max(bytes_, 1):
                raise SourceError(
                    f"{path} has {size} bytes and grows beyond measure: that is no data, and it is not unpacked.",
                    "decompression_bomb",
                )
    except (ValueError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    return found


def _blocks(file: IO[bytes], codec: str, sync: bytes) -> Iterator[tuple[int, int]]:
    """Number of records, and of bytes when unpacked, of each block; no block is held unpacked.

    The layout is that of "Object Container Files" in https://avro.apache.org/docs/1.11.1/specification.
    """
    while (records := _long(file, at_end=0)) is not None:
        length = _long(file)
        if records < 0 or length is None or length < 0:
            raise ValueError(f"a block of {records} records and {length} bytes")
        packed = file.read(length)
        if len(packed) < length or file.read(len(sync)) != sync:
            raise EOFError("a block is cut off, or its end is not marked")
        if codec == "null":
            yield records, length
            continue
        inflate, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while packed and not inflate.eof:
            unpacked += len(inflate.decompress(packed, 1 << 20))
            packed = inflate.unconsumed_tail
            if unpacked > BOMB_BYTES:
                break
        yield records, unpacked


def _long(file: IO[bytes], at_end: int | None = None) -> int | None:
    """A number in Avro's variable-length zig-zag code; None at the end of the file, where that is allowed."""
    value = shift = 0
    while byte := file.read(1):
        value |= (byte[0] & 0x7F) << shift
        if not byte[0] & 0x80:
            return (value >> 1) ^ -(value & 1)
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
    if at_end is None or shift:
        raise EOFError("the file ends within a number")
    return None


def _type(type_: Any, name: str, path: str) -> pa.DataType:
    if isinstance(type_, list):
        some = [each for each in type_ if each != "null"]
        if len(some) == 1:
            return _type(some[0], name, path)
        raise SourceError(f"{path}: column {name!r} is of several types. Give it one in the source.", "nested")
    facts = type_ if isinstance(type_, dict) else {"type": type_}
    if facts.get("logicalType") == "decimal":
        return pa.decimal128(facts["precision"], facts.get("scale", 0))
    found = _LOGICAL_TYPES.get(str(facts.get("logicalType"))) or _TYPES.get(str(facts["type"]))
    if found is None:
        raise SourceError(f"{path}: column {name!r} is nested ({facts['type']}). Flatten it in the source.", "nested")
    return found


def _copy(file: IO[bytes], path: str, schema: pa.Schema) -> Path:
    import fastavro

    folder, _, name = path.rpartition("/")
    target = _copies() / hashlib.sha256(folder.encode()).hexdigest()[:16] / name
    target.parent.mkdir(parents=True, exist_ok=True)
    file.seek(0)
    try:
        with pq.ParquetWriter(target, schema) as writer:
            for block in fastavro.block_reader(file):
                records: list[Any] = list(block)
                columns = [pa.array([record[field.name] for record in records], field.type) for field in schema]
                writer.write_batch(pa.record_batch(columns, schema=schema))
    except (ValueError, EOFError, LookupError, TypeError, OverflowError, pa.ArrowException) as error:
        raise _damaged(path, error) from error
    return target


def _copies() -> Path:
    return settings().home / "copies" / "avro"


def _forget_old_copies() -> None:
    for copy in _copies().glob("*/*"):
        if time.time() - copy.stat().st_mtime > COPIES_KEPT:
            copy.unlink(missing_ok=True)


def _damaged(path: str, error: Exception) -> SourceError:
    return SourceError(f"{path} is damaged or cut off: {error}. Ask its sender to deliver it again.", "damaged")

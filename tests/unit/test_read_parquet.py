"""Parquet files that grow beyond measure are refused by what their footers say, before any row is read."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakehouse import contracts
from lakehouse.readers import parquet
from lakehouse.readers.batch import SourceError
from lakehouse.readers.files import BOMB_BYTES, BOMB_RATIO
from tests.cases.bad_input.make import cases

AIRPORTS = contracts.load("airports")


def test_a_small_file_of_millions_of_equal_rows_is_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    path.write_bytes(next(case for case in cases() if case.name == "parquet_bomb_of_rows").make())
    assert path.stat().st_size < 1 << 20
    with pytest.raises(SourceError, match=r"bomb\.parquet has \d+ bytes and grows to 192000000") as error:
        parquet._schema(str(path), AIRPORTS)
    assert error.value.code == "decompression_bomb"


def test_many_columns_with_hardly_a_value_are_none(tmp_path: Path) -> None:
    rows, columns = 500_000, 60
    assert rows * columns * parquet.VALUE_BYTES > BOMB_BYTES
    path = tmp_path / "sparse.parquet"
    nothing = {f"c{place}": pa.nulls(rows, pa.int64()) for place in range(columns)}
    pq.write_table(pa.table({"id": pa.array(range(rows)), **nothing}), path)
    assert parquet._unpacked(pq.read_metadata(path)) < min(BOMB_BYTES, BOMB_RATIO * path.stat().st_size)


NOT_TAKEN = replace(AIRPORTS, schema_drift="ignore")


@pytest.mark.parametrize(
    "type_",
    [
        pa.timestamp("ns"), pa.float16(), pa.list_(pa.timestamp("ns", "UTC")), pa.time32("ms"), pa.time64("us"),
        pa.decimal256(39, 2),
    ],
)  # fmt: skip
def test_a_type_that_the_engine_does_not_read_is_refused_also_where_it_is_not_taken(type_: pa.DataType) -> None:
    schema = pa.schema([*((column.name, pa.string()) for column in AIRPORTS.columns), ("extra", type_)])
    with pytest.raises(SourceError, match=r"x: column 'extra' is .*, which the engine does not read") as error:
        parquet.check_columns(schema, NOT_TAKEN, "x")
    assert error.value.code == "column_type"


def test_a_timestamp_of_96_bits_is_read(tmp_path: Path) -> None:
    names = [column.name for column in AIRPORTS.columns]
    columns = {name: pa.array(["x"]) for name in names} | {"at": pa.array([dt.datetime(2020, 1, 5)])}
    path = tmp_path / "old.parquet"
    pq.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=True)
    assert parquet._schema(str(path), NOT_TAKEN).field("at").type == pa.timestamp("us")

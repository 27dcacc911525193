"""Avro files become Parquet files of the same rows and types, and those that are none are refused in bounded memory."""

from __future__ import annotations

import datetime as dt
import io
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet as pq
import pytest

from lakehouse.readers import avro, parquet
from lakehouse.readers.batch import SourceError
from tests.cases.bad_input.make import MEGABYTE, Case, avro_cases

NOW = dt.datetime(2013, 1, 1, 5, 30, 0, 123000, tzinfo=dt.UTC)
TYPES: dict[str, Any] = {
    "whole": "int", "long": "long", "share": "float", "real": "double", "text": "string", "truth": "boolean",
    "raw": "bytes", "day": {"type": "int", "logicalType": "date"},
    "milli": {"type": "long", "logicalType": "timestamp-millis"},
    "micro": {"type": "long", "logicalType": "timestamp-micros"},
    "money": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    "kind": {"type": "enum", "name": "kind", "symbols": ["A", "B"]}, "maybe": ["null", "string"],
}  # fmt: skip
ROW = {
    "whole": -(2**31), "long": 2**63 - 1, "share": 0.5, "real": 1e300, "text": "Zoë 😀", "truth": True,
    "raw": b"\0\xff", "day": NOW.date(), "milli": NOW, "micro": NOW, "money": Decimal("-12.30"), "kind": "B",
    "maybe": None,
}  # fmt: skip


@pytest.fixture(autouse=True)
def any_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "check_columns", lambda *_: None)


def converted(content: bytes) -> Any:
    file = io.BytesIO(content)
    schema = avro._schema(file, "drop/a.avro", None)  # type: ignore[arg-type]
    return pq.read_table(avro._copy(file, "drop/a.avro", schema))


@pytest.mark.parametrize("codec", avro.CODECS)
def test_values_of_every_type_arrive(codec: str) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": n, "type": t} for n, t in TYPES.items()]}
    sink = io.BytesIO()
    fastavro.writer(sink, fastavro.parse_schema(schema), [ROW] * 3000, codec=codec, sync_interval=4000)
    table = converted(sink.getvalue())
    assert table.to_pylist() == [ROW] * 3000


@pytest.mark.parametrize("case", [c for c in avro_cases() if c.name in ("avro_bomb", "avro_millions_of_nothing")],
                         ids=lambda case: case.name)  # fmt: skip
def test_what_grows_beyond_measure_is_refused_before_it_does(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "a.avro"
    path.write_bytes(case.make())
    tracemalloc.start()
    try:
        with path.open("rb") as file, pytest.raises(SourceError) as error:
            avro._schema(file, str(path), None)  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 32 * MEGABYTE
    finally:
        tracemalloc.stop()
    assert error.value.code == "decompression_bomb"

"""Files of a bucket as a source, read from a server that speaks S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from moto.server import ThreadedMotoServer

from lakehouse import contracts, readers
from lakehouse.interval import Interval
from lakehouse.readers.batch import SourceError
from tests.spark.sources import Source
from tests.spark.sources import new_source as new_source

DAY = "2020-01-05"
ROWS = [
    {"id": 1, "person": "Zoë, jr", "amount": 0.5, "pieces": None, "day": DAY},
    {"id": 2, "person": None, "amount": 101.0, "pieces": 3, "day": DAY},
    {"id": 3, "person": "Bo", "amount": 7.0, "pieces": 1, "day": DAY},
]


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        environment.setenv("AWS_ACCESS_KEY_ID", "reader")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield boto3.resource("s3").create_bucket(Bucket="upstream")
    server.stop()


def in_bucket(source: Source) -> None:
    path = contracts.SOURCES_DIR / f"{source.name}.yaml"
    document = yaml.safe_load(path.read_text())
    document["servers"] = [
        {
            "server": "bucket",
            "type": "s3",
            "format": source.suffix,
            "location": f"s3://upstream/{source.name}/{source.name}_{{interval}}.{source.suffix}",
        }
    ]
    path.write_text(yaml.safe_dump(document))
    contracts.load.cache_clear()


def content(suffix: str, rows: list[dict[str, Any]]) -> bytes:
    if suffix == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if suffix == "parquet":
        table = pa.Table.from_pylist(rows).cast(
            pa.schema({"id": "int64", "person": "string", "amount": "double", "pieces": "int32", "day": "string"})
        )
        dates = pa.compute.cast(table["day"], pa.date32())
        sink = pa.BufferOutputStream()
        pa.parquet.write_table(table.set_column(4, "day", dates), sink)
        return sink.getvalue().to_pybytes()
    cells = [["" if value is None else f'"{value}"' for value in row.values()] for row in rows]
    return ("\n".join([",".join(rows[0]), *map(",".join, cells)]) + "\n").encode()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_bucket_is_read_like_a_folder(bucket: Any, new_source: Any, suffix: str) -> None:
    source = new_source(f"remote_{suffix}", suffix)
    in_bucket(source)
    contract = contracts.load(source.name)
    key = f"{source.name}/{source.name}_{DAY}.{suffix}"
    assert readers.missing(contract, Interval.parse(DAY)) == [f"s3://upstream/{key}"]
    with pytest.raises(SourceError, match="have not arrived") as waiting:
        source.land(DAY)
    assert waiting.value.code == "not_arrived"

    bucket.put_object(Key=key, Body=content(suffix, ROWS))
    assert readers.missing(contract, Interval.parse(DAY)) == []
    outcome = source.land(DAY)
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (3, 2, 1)
    found = source.rows("id, person, amount, pieces, _source_row, _source_file")
    assert [tuple(row.values())[:5] for row in found] == [(1, "Zoë, jr", 0.5, None, 1), (3, "Bo", 7.0, 1, 3)]
    assert {row["_source_file"] for row in found} == {f"s3://upstream/{key}"}

    # The same name with new content: the copy that was read before does not count.
    bucket.put_object(Key=key, Body=content(suffix, [*ROWS[:2], ROWS[2] | {"person": "Al"}]))
    source.land(DAY)
    assert [row["person"] for row in source.rows("person, _interval, _source_file, _source_row")] == ["Zoë, jr", "Al"]

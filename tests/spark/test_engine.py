"""The engine itself: what its clients rely on without asking for it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyspark.errors import PySparkException

from lakehouse import tables
from lakehouse.engine import spark, sql
from lakehouse.platform import remote_engine
from lakehouse.platform.engine import check, check_cores, thrift_connection
from lakehouse.platform.errors import PlatformError
from lakehouse.releases import fingerprints
from lakehouse.settings import settings
from tests.spark.counters import engine_cores, running_tasks, wait_for_warm_up
from tests.spark.orders import Orders

NO_THREADS = """
import threading
from lakehouse.engine import spark

spark()
start = threading.Thread.start

def refuse(thread):
    raise RuntimeError("can't start new thread")

threading.Thread.start = refuse
try:
    spark().sql("select 1").collect()
except RuntimeError:
    print("refused")
threading.Thread.start = start
print(spark().sql("select 1").collect(), flush=True)
"""
"""What a process without memory does, and does again with memory."""


def test_the_function_registry_of_hive_can_be_loaded() -> None:
    # Hive does so when a session is closed on a thread that has not asked the metastore for anything yet.
    row = sql("select reflect('java.lang.Class', 'forName', 'org.apache.hadoop.hive.ql.exec.FunctionRegistry')").head()
    assert row is not None
    assert row[0] == "class org.apache.hadoop.hive.ql.exec.FunctionRegistry"


def test_many_clients_come_and_go() -> None:
    def ask(number: int) -> int:
        connection = thrift_connection()
        cursor = connection.cursor()
        cursor.execute(f"select {number}")
        (row,) = cursor.fetchall()
        connection.close()
        return int(row[0])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(60))) == list(range(60))


def test_a_process_that_could_not_start_a_thread_asks_again_when_it_can() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "refused\n[Row(1=1)]\n", done.stderr


@contextmanager
def _all_cores_taken(tasks_of_each: int, seconds: float) -> Iterator[Future[object]]:
    """A query that takes all cores of the engine.

    Args:
        tasks_of_each: How many tasks each core has to do, one after the other.
        seconds: How long each takes.
    """
    wait_for_warm_up()
    cores = engine_cores()
    sleep = f"java_method('java.lang.Thread', 'sleep', {seconds * 1000:.0f}L)"
    with ThreadPoolExecutor(1) as pool:
        rows = spark().range(0, cores * tasks_of_each, 1, cores * tasks_of_each).selectExpr(sleep)
        query: Future[object] = pool.submit(rows.collect)
        while running_tasks() < cores:
            assert not query.done(), query
            time.sleep(0.1)
        yield query
        query.result()


def test_an_engine_whose_cores_are_all_taken_is_known_to_work() -> None:
    with _all_cores_taken(tasks_of_each=1, seconds=10) as query:
        check()
        assert not query.done()


def test_an_engine_that_gets_no_core_is_told_when_it_starts() -> None:
    with _all_cores_taken(tasks_of_each=1, seconds=10) as query:
        with pytest.raises(
            PlatformError, match=r"local\[\*\] has given it no core in 1 s\. Look whether it has workers"
        ):
            check_cores(seconds=1)
        assert not query.done()
    check_cores()


def test_a_short_query_does_not_wait_for_the_end_of_a_long_one() -> None:
    with _all_cores_taken(tasks_of_each=10, seconds=1) as query:
        assert spark().range(100).selectExpr("sum(id)").collect() == [(4950,)]
        assert not query.done()
        connection = thrift_connection()
        cursor = connection.cursor()
        cursor.execute("select sum(id) from range(100)")
        assert cursor.fetchall() == [(4950,)]
        connection.close()
        assert not query.done()


def test_a_page_with_a_flipped_bit_fails_the_query_that_reads_it(orders: Orders) -> None:
    orders.publish("2013-03-01", rows=1000)
    version = tables.head(orders.stored)
    assert version is not None
    name = min(fingerprints.data_files(orders.stored, version))
    file = Path(tables.location(orders.stored)) / name
    group = pq.ParquetFile(file).metadata.row_group(0)
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "amount")
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    damaged = bytearray(file.read_bytes())
    damaged[start + chunk.total_compressed_size - 1] ^= 1
    # Hadoop's own checksum of the file, which object stores do not have, would tell it, too.
    (file.parent / f".{file.name}.crc").unlink(missing_ok=True)
    file.write_bytes(damaged)
    assert len(sql(f"select id from {orders.table}").collect()) == 1000
    with pytest.raises(PySparkException, match="CRC checksum verification failed"):
        sql(f"select sum(amount) from {orders.table}").collect()


def test_an_engine_elsewhere_gets_what_is_missing_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "spark_remote", settings().spark_url)
    monkeypatch.setattr(remote_engine, "SCHEMAS", ("bronze", "of_elsewhere"))
    sql("drop view ops.lineage_tables")
    for _ in range(2):
        remote_engine.prepare()
    assert sql("select * from ops.lineage_tables limit 1").columns
    described = {row["info_name"]: row["info_value"] for row in sql("describe schema of_elsewhere").collect()}
    assert described["Location"].endswith(f"{settings().warehouse_url}/of_elsewhere.db")
    sql("drop schema of_elsewhere")


def test_an_engine_elsewhere_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "spark_remote", "sc://127.0.0.1:9/;token=secret")
    with pytest.raises(PlatformError, match=r"127\.0\.0\.1:9, where SPARK_REMOTE points") as error:
        remote_engine.prepare()
    assert "secret" not in str(error.value)

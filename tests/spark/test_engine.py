"""The engine itself: what its clients rely on without asking for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lakehouse.engine import sql
from lakehouse.platform.engine import thrift_connection


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

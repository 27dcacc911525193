"""The engine itself: what its clients rely on without asking for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from lakehouse.engine import sql
from lakehouse.platform import remote_engine
from lakehouse.platform.engine import thrift_connection
from lakehouse.platform.errors import PlatformError
from lakehouse.settings import settings


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

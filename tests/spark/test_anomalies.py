"""Anomaly rules on the engine: judged by GX in the gate's one query, against what was released."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql.connect.client import SparkConnectClient

from lakehouse import ops, tables
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.quality import history
from lakehouse.release_log import released
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.release import release
from lakehouse.releases.rollback import rollback
from lakehouse.steps import step
from tests.spark.orders import RULES, Orders

ROWS = {"metric": "row_count", "per": "day", "minimum": 3, "window": 10, "severity": "critical"}


def results(orders: Orders, day: str) -> dict[str, dict[str, Any]]:
    rows = [r for r in ops.read("ops.gate_results").to_pylist() if r["table_name"] == orders.table]
    newest = max(row["checked_at"] for row in rows)
    return {row["expectation"]: row for row in rows if row["checked_at"] == newest}


def test_a_quiet_drop_of_volume_fails_and_says_what_it_was_compared_with(orders: Orders) -> None:
    orders.expect(RULES, [ROWS])
    for day, rows in enumerate((100, 102, 98), 1):
        orders.publish(f"2013-01-0{day}", rows)
    with pytest.raises(
        GateFailedError,
        match=r"86\.\.114\) where day = date '2013-01-04': found 60 "
        r"\(compared with 3 days from 2013-01-01 to 2013-01-03, median 100, from 98 to 102\)",
    ):
        orders.publish("2013-01-04", 60)
    orders.publish("2013-01-04", 104)
    row = results(orders, "2013-01-04")["expect_table_row_count_to_be_between"]
    assert (row["success"], row["observed_value"]) == (True, "104")
    assert "compared with 3 days from 2013-01-01" in row["details"]


def test_too_little_history_warns_and_never_blocks(orders: Orders) -> None:
    orders.expect(RULES, [ROWS])
    orders.publish("2013-01-01", 100)
    orders.publish("2013-01-02", 1)
    row = results(orders, "2013-01-02")["expect_table_row_count_to_be_between"]
    assert (row["severity"], row["success"], row["verdict"]) == ("warning", None, "passed")
    assert "too little history for 1 of 1 days: 1 of at least 3 days" in row["details"]


def test_only_what_was_released_is_history(orders: Orders) -> None:
    orders.expect(RULES, [ROWS])
    orders.publish("2013-01-01", 100)
    gate([orders.table], orders.write("2013-01-02", 5))  # never released
    _, daily = history.read(orders.table)
    assert [(figure.day.day, figure.rows) for figure in daily] == [(1, 100)]
    orders.publish("2013-01-02", 90)
    orders.publish("2013-01-01", 80)  # corrected
    _, daily = history.read(orders.table)
    assert [(figure.day.day, figure.rows) for figure in daily] == [(1, 80), (2, 90)]
    assert daily[0].version == released()[orders.table].version


def test_what_was_rolled_back_is_no_history(orders: Orders) -> None:
    orders.expect(RULES, [ROWS])
    first = orders.publish("2013-01-01", 100)
    orders.publish("2013-01-02", 50)
    rollback(orders.table, first)
    orders.publish("2013-01-03", 101)
    _, daily = history.read(orders.table)
    assert [(figure.day.day, figure.rows) for figure in daily] == [(1, 100), (3, 101)]


def test_nulls_means_and_freshness_are_judged_per_day(orders: Orders) -> None:
    anomalies = [
        {"metric": "null_share", "column": "amount", "per": "day", "minimum": 2, "severity": "critical"},
        {"metric": "mean", "column": "amount", "per": "day", "minimum": 2, "severity": "critical"},
        {"metric": "freshness", "column": "at", "per": "day", "minimum": 2, "severity": "critical"},
    ]
    orders.expect(RULES[:1], anomalies)
    for day in (1, 2, 3):
        orders.publish(f"2013-01-0{day}", 70)
    assert all(row["success"] for row in results(orders, "2013-01-03").values())
    for columns, message in (
        ({"amount": "if(id % 2 = 0, null, 103)"}, r"not_be_null\(amount\) where day = date '2013-01-04': 35 of 70"),
        ({"amount": "120"}, r"mean_to_be_between\(amount, .*\): found 120|found 120"),
        ({"at": "timestamp '2013-01-04 20:00:00Z'"}, r"max_to_be_between\(at, 2013-01-04T22:00:00\+00:00"),
    ):
        with pytest.raises(GateFailedError, match=message):
            orders.publish("2013-01-04", 70, **columns)


def test_a_range_records_each_day_and_a_day_without_rows_counts_as_none(orders: Orders) -> None:
    orders.expect(RULES, [ROWS])
    interval = Interval.parse("2013-01-01/2013-01-05")
    rows = spark().sql(
        "select date_add(date '2013-01-01', cast(id % 4 as int)) as day, id, 'UA' as carrier, 1D as amount, "
        "'x' as email, timestamp '2013-01-01 00:00:00Z' as at from range(400)"
    )
    with step("test", orders.table, interval, writes=orders.stored) as run:
        tables.replace_interval(rows, orders.stored, "day", interval, run)
    gate([orders.table], interval)
    release([orders.table], interval)
    whole, daily = history.read(orders.table)
    assert [figure.rows for figure in daily] == [100, 100, 100, 100, 0]
    assert [figure.rows for figure in whole] == [400]
    with pytest.raises(GateFailedError, match="found 10 "):
        orders.publish("2013-01-06", 10)


def test_whole_versions_are_compared_with_released_ones(orders: Orders) -> None:
    orders.expect(RULES, [{"metric": "row_count", "minimum": 2, "tolerance": 0.2, "severity": "critical"}])
    orders.publish("2013-01-01", 100)
    orders.publish("2013-01-01", 101)
    with pytest.raises(GateFailedError, match=r"found 10 .compared with 2 released versions from 1 to 2"):
        orders.publish("2013-01-01", 10)


def test_anomaly_rules_add_no_query(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    orders.expect(RULES, [ROWS, {"metric": "mean", "column": "amount", "per": "day", "minimum": 2}])
    for day in (1, 2, 3):
        orders.publish(f"2013-01-0{day}", 70)
    interval = orders.write("2013-01-04", 70)
    queries = []
    execute = SparkConnectClient._execute_and_fetch

    def counting(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.plan.HasField("root"):
            queries.append(request)
        return execute(self, request, *args, **kwargs)

    monkeypatch.setattr(SparkConnectClient, "_execute_and_fetch", counting)
    gate([orders.table], interval)
    assert len(queries) == 1

"""Data Docs: every verdict has a page of Great Expectations, and those who may see it find it."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

import pytest

from lakehouse import alerts, contracts, ops
from lakehouse.quality import data_docs
from lakehouse.releases.audit import GateFailedError, gate
from tests.spark.orders import RULES, Orders
from tests.spark.sources import new_source as new_source


def rows(orders: Orders) -> list[dict[str, object]]:
    return [row for row in ops.read("ops.gate_results").to_pylist() if row["table_name"] == orders.table]


def test_each_verdict_has_a_page_of_its_own(orders: Orders) -> None:
    gate([orders.table], orders.write("2013-01-01"))
    with pytest.raises(GateFailedError):
        gate([orders.table], orders.write("2013-01-02", carrier="'ZZ'"))
    pages = {row["verdict"]: str(row["page"]) for row in rows(orders)}
    for verdict, shown in {"passed": "100%", "failed": "ZZ"}.items():
        text = (data_docs.folder() / pages[verdict]).read_text("utf-8")
        assert "Expectation Validation Result" in text
        assert "values must belong to this set" in text
        assert shown in text
    files = [str(path.relative_to(data_docs.folder())) for path in data_docs.folder().rglob("*.html")]
    assert [name for name in files if orders.table.replace(".", "/") in name] == sorted(pages.values(), key=files.index)


def test_the_list_names_every_verdict_and_leads_to_its_page(orders: Orders) -> None:
    gate([orders.table], orders.write("2013-01-01", amount="null"))
    [verdict] = [v for v in data_docs.verdicts() if v.table == orders.table]
    assert (verdict.verdict, verdict.broken) == ("passed", 1)
    assert f'href="{verdict.page}"' in data_docs.write_index().read_text("utf-8")


def test_the_gates_of_an_airflow_task_are_found_by_its_run(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"DAG_ID": "build", "DAG_RUN_ID": f"manual__{orders.table}", "TASK_ID": "gate"}.items():
        monkeypatch.setitem(os.environ, f"AIRFLOW_CTX_{name}", value)
    gate([orders.table], orders.write("2013-01-01"))
    [run_id] = data_docs.runs_of_task("build", f"manual__{orders.table}", "gate")
    assert [v.table for v in data_docs.verdicts([run_id])] == [orders.table]
    assert data_docs.runs_of_task("build", f"manual__{orders.table}", "release") == []


OF_A_PERSON: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "email", "regex": "^nobody"}},
    {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "email"}},
    {"type": "expect_column_distinct_values_to_be_in_set", "kwargs": {"column": "email", "value_set": ["nobody"]}},
    {"type": "expect_column_most_common_value_to_be_in_set", "kwargs": {"column": "email", "value_set": ["nobody"]}},
    {"type": "expect_column_pair_values_to_be_equal", "kwargs": {"column_A": "carrier", "column_B": "email"}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "email", "min_value": 1}},
    {  # Spark's error quotes the value that it could not compare.
        "type": "expect_column_values_to_be_null",
        "kwargs": {"column": "amount", "row_condition": "email > 5", "condition_parser": "spark"},
    },
    {
        "type": "unexpected_rows_expectation",
        "kwargs": {"unexpected_rows_query": "select id, concat('to ', email) as address from {batch}"},
    },
]


def test_personal_values_are_on_no_page_and_in_no_message(
    orders: Orders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(contracts, "personal_columns", lambda table: frozenset({"email"}))
    orders.expect([*OF_A_PERSON, *RULES])
    interval = orders.write("2013-01-01", carrier="'ZZ'", email="'ann@example.com'")
    with pytest.raises(GateFailedError, match="10 of 10 rows break it, such as …") as failed:
        gate([orders.table], interval)
    found = rows(orders)
    assert [row["success"] for row in found] == [False] * len(OF_A_PERSON) + [False, True]
    assert [row["unexpected_count"] for row in found][:2] == [10, 10]
    assert "[CAST_INVALID_INPUT]" in str(found[6]["details"])
    assert "ZZ" in str(failed.value)  # what is nobody's is shown
    page = (data_docs.folder() / str(found[0]["page"])).read_text("utf-8")
    [run] = [run for run in ops.read("ops.runs").to_pylist() if run["run_id"] == found[0]["run_id"]]
    told, _ = alerts.of_gates([run])
    assert len(told) > len(OF_A_PERSON)
    for text in (page, str(failed.value), str(found), str(run), str(told), caplog.text):
        assert "example.com" not in text


def test_while_a_contract_cannot_be_read_other_gates_go_on_and_show_nothing_of_its_columns(
    orders: Orders, new_source: Any
) -> None:
    source = new_source("spoilt", email={"logicalType": "string"})
    source.put("2020-01-01", "id,person,amount,pieces,day,email\n1,Ann,1,1,2020-01-01,ann@example.com\n")
    source.land("2020-01-01")
    path = contracts.SOURCES_DIR / "spoilt.yaml"
    path.write_text(path.read_text() + "[")
    contracts.load.cache_clear()
    orders.expect([OF_A_PERSON[0], *RULES])
    orders.publish("2013-01-01", email="'nobody'")
    with pytest.raises(GateFailedError, match="such as ZZ") as failed:
        gate([orders.table], orders.write("2013-01-02", carrier="'ZZ'", email="'ann@example.com'"))
    assert "rows break it, such as …" in str(failed.value) and "example.com" not in str(failed.value)


def test_a_page_takes_a_small_part_of_a_gate(orders: Orders) -> None:
    from lakehouse.quality.gate import check
    from lakehouse.steps import step

    orders.expect(
        [
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {"column": "amount", "min_value": 0, "max_value": limit},
            }
            for limit in range(1, 21)
        ]
    )
    orders.write("2013-01-01")
    result = check(orders.stored, suite_name=orders.table)
    import datetime as dt

    with step("test", orders.table, None) as run:
        data_docs.write(result, run.run_id, dt.datetime.now(dt.UTC))  # reads GX's templates
        started = time.process_time()
        data_docs.write(result, run.run_id, dt.datetime.now(dt.UTC))
    seconds = time.process_time() - started
    print(f"{seconds * 1000:.0f} ms for a page of 20 rules")
    assert seconds < 1

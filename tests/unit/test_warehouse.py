"""What a build says of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse import dbt_project, warehouse
from lakehouse.dbt_project import Outcome
from lakehouse.steps import Run


def test_the_output_of_a_build_is_what_it_has_built_whatever_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "_heads", lambda: {"gold_next.dim_planes": 3, "gold_next.fct_flights": 7})
    monkeypatch.setattr(warehouse, "_built", lambda _run: {"gold.dim_planes": {}})
    monkeypatch.setattr(warehouse, "_read_by", lambda _table, read, _heads: sorted(read.items()))
    monkeypatch.setattr(dbt_project, "views", lambda: ["silver.stg_planes", "silver.stg_weather"])
    run = Run("build", "warehouse", None)
    warehouse._describe(run, Outcome({"stg_planes": 0.5, "dim_planes": 2.0}), {"bronze.planes": 2})
    assert (run.versions_in, run.versions_out) == ({"bronze_next.planes": 2}, {"gold_next.dim_planes": 3})
    assert [(part["dataset"], part["versions_out"]) for part in run.parts] == [
        ("gold.dim_planes", [("gold_next.dim_planes", 3)])
    ]
    [view] = run.told_only
    assert (view["dataset"], view["versions_in"], view["versions_out"]) == (
        "silver.stg_planes", [("bronze_next.planes", 2)], [("silver.stg_planes", None)],
    )  # fmt: skip
    assert (view["seconds"], view["status"], view["error"]) == (0.5, "success", None)


def test_in_airflow_all_views_are_built_but_those_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "_heads", dict)
    monkeypatch.setattr(warehouse, "_built", lambda _run: {})
    monkeypatch.setattr(warehouse, "_read_by", lambda *_: [])
    monkeypatch.setattr(dbt_project, "views", lambda: ["silver.stg_planes", "silver.stg_weather"])
    run = Run("build", "warehouse", None)
    warehouse._describe(run, None, {})
    assert [view["dataset"] for view in run.told_only] == ["silver.stg_planes", "silver.stg_weather"]
    run = Run("build", "warehouse", None)
    wrong = Outcome({"stg_planes": 1.0, "stg_weather": 1.0}, failed={"silver.stg_weather": "it is wrong"})
    warehouse._describe(run, wrong, {})
    assert [view["dataset"] for view in run.told_only] == ["silver.stg_planes"]
    assert [(part["dataset"], part["status"]) for part in run.parts] == [("silver.stg_weather", "failed")]


def result(kind: str, name: str, status: str, **node: Any) -> SimpleNamespace:
    found = SimpleNamespace(
        resource_type=SimpleNamespace(value=kind), name=name, unique_id=f"{kind}.lakehouse.{name}",
        depends_on=SimpleNamespace(nodes=["model.lakehouse.dim_planes", "source.lakehouse.bronze.planes"]),
        config=SimpleNamespace(severity="ERROR"), **node,
    )  # fmt: skip
    return SimpleNamespace(node=found, status=status, execution_time=0.5, message=f"{name} says so")


def test_what_data_tests_have_said_is_told_of_what_they_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbt_project, "table_of", lambda unique_id: unique_id.rpartition(".")[2])
    on_a_column = {"attached_node": "model.lakehouse.stg_planes", "column_name": "seats"}
    outcome = Outcome.of(
        [
            result("model", "dim_planes", "success"),
            result("model", "broken", "error"),
            result("model", "behind_it", "skipped"),
            result("test", "holds", "pass"),
            result("test", "warns", "warn", **on_a_column),
            result("test", "refutes", "fail", **on_a_column),
            result("test", "cannot_be_run", "error"),
            result("test", "not_reached", "skipped"),
        ]
    )
    assert outcome.models.keys() == {"dim_planes", "broken"} and outcome.failed == {"broken": "broken says so"}
    assert outcome.tests.keys() == {"holds", "warns", "refutes", "cannot_be_run"}
    assert outcome.refuted and outcome.failed_tests == ["cannot_be_run", "refutes"]
    said = {table: [tuple(each.values()) for each in rows] for table, rows in outcome.assertions.items()}
    assert said == {
        "dim_planes": [("holds", True, None, "critical")],
        "stg_planes": [("warns", False, "seats", "warning"), ("refutes", False, "seats", "critical")],
    }


def test_data_tests_that_cannot_be_run_are_not_said_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "_heads", lambda: {"gold_next.dim_planes": 3, "gold_next.fct_flights": 7})
    monkeypatch.setattr(warehouse, "_built", lambda _run: {})
    monkeypatch.setattr(dbt_project, "views", list)
    run, said = Run("build", "warehouse", None), {"gold.dim_planes": [{"expectation": "holds", "success": True}]}
    outcome = Outcome(tests={"holds": 1.0, "broken": 1.0}, failed_tests=["broken"], assertions=said)
    warehouse._describe(run, outcome, {})
    [told] = run.told_only
    assert (told["step"], told["dataset"], told["status"]) == ("test", "warehouse", "failed")
    assert told["error"] == "BuildFailedError: broken"
    assert told["versions_in"] == [("gold_next.dim_planes", 3)] and run.assertions == said

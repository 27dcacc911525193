"""What a build says of itself."""

from __future__ import annotations

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
    [view] = run.views
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
    warehouse._describe(run, Outcome(), {})
    assert [view["dataset"] for view in run.views] == ["silver.stg_planes", "silver.stg_weather"]
    run = Run("build", "warehouse", None)
    wrong = Outcome({"stg_planes": 1.0, "stg_weather": 1.0}, failed={"silver.stg_weather": "it is wrong"})
    warehouse._describe(run, wrong, {})
    assert [view["dataset"] for view in run.views] == ["silver.stg_planes"]
    assert [(part["dataset"], part["status"]) for part in run.parts] == [("silver.stg_weather", "failed")]

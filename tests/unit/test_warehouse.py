"""What a build says of itself."""

from __future__ import annotations

import pytest

from lakehouse import dbt_project, warehouse
from lakehouse.steps import Run


def test_the_output_of_a_build_is_what_it_has_built_whatever_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "_heads", lambda: {"gold_next.dim_planes": 3, "gold_next.fct_flights": 7})
    monkeypatch.setattr(warehouse, "_built", lambda _run: {"gold.dim_planes": {}})
    monkeypatch.setattr(warehouse, "_read_by", lambda _table, read: sorted(read.items()))
    views = {("gold.dim_planes",): ["silver.stg_planes"]}
    monkeypatch.setattr(dbt_project, "views_of", lambda built: views[tuple(built)])
    run = Run("build", "warehouse", None)
    warehouse._describe(run, {}, {"bronze.planes": 2})
    assert (run.versions_in, run.versions_out) == ({"bronze_next.planes": 2}, {"gold_next.dim_planes": 3})
    assert [(part["dataset"], part["versions_out"]) for part in run.parts] == [
        ("gold.dim_planes", [("gold_next.dim_planes", 3)])
    ]
    [view] = run.views
    assert (view["dataset"], view["versions_in"], view["versions_out"]) == (
        "silver.stg_planes", [("bronze_next.planes", 2)], [("silver.stg_planes", None)],
    )  # fmt: skip

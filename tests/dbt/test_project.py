"""The dbt project itself, without an engine."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse import dbt_project, ops, table_days, tables, warehouse
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.quality import suites

GOLD = {
    "gold.daily_delays_by_airport",
    "gold.daily_delays_by_carrier",
    "gold.daily_delays_by_route",
    "gold.dim_planes",
    "gold.fct_flights",
    "gold.flight_delay_features",
    "gold.on_time_league",
}


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    return json.loads(dbt_project.ensure_manifest().read_text())


@pytest.fixture(scope="module")
def models(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]


def test_sources_are_those_of_the_contracts() -> None:
    assert dbt_project.SOURCES.read_text() == dbt_project.sources_yaml()


def test_stored_models() -> None:
    assert set(dbt_project.stored_models()) >= GOLD
    assert table_days.interval_column("gold.fct_flights") == "flight_date"
    assert table_days.interval_column("gold.dim_planes") is None


def test_every_model_and_column_is_described_and_typed(models: list[dict[str, Any]]) -> None:
    for model in models:
        assert model["description"], model["name"]
        assert model["columns"], model["name"]
        for column in model["columns"].values():
            assert column["description"] and column["data_type"], (model["name"], column["name"])


def test_stored_models_say_how_they_are_kept(models: list[dict[str, Any]]) -> None:
    for model in models:
        if model["config"]["materialized"] != "view":
            meta = model["config"]["meta"]
            assert meta["owner"], model["name"]
            assert set(meta["statistics"]) <= set(model["columns"]), model["name"]
            assert ("interval_column" in meta) == ("replaces" in meta), model["name"]


def test_models_read_released_bronze_only(manifest: dict[str, Any], models: list[dict[str, Any]]) -> None:
    assert {source["schema"] for source in manifest["sources"].values()} == {"bronze"}
    assert {model["schema"] for model in models} == {"silver_next", "gold_next"}
    staging = {model["unique_id"] for model in models if model["schema"] == "silver_next"}
    for model in models:
        parents = set(model["depends_on"]["nodes"])
        if model["unique_id"] in staging:
            assert all(parent.startswith("source.") for parent in parents), model["name"]
        else:
            assert not any(parent.startswith("source.") for parent in parents), model["name"]


def test_every_stored_model_has_a_suite_for_its_columns(models: list[dict[str, Any]]) -> None:
    for model in models:
        if model["config"]["materialized"] != "view":
            columns = list(model["columns"])
            suite = suites.load(f"gold.{model['name']}", columns)
            for expectation in suite.expectations:
                if expectation.type == "expect_table_columns_to_match_set":
                    assert set(expectation.kwargs["column_set"]) == set(columns), model["name"]


def test_a_red_gate_of_any_table_that_a_models_input_is_made_from_is_found(
    manifest: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spark_jobs.retrain import red_gates

    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    spec, noon = model_folders.load("flight_delay"), dt.datetime(2013, 3, 1, 12, tzinfo=dt.UTC)

    def judge(minute: int, **verdicts: str) -> None:
        at = noon + dt.timedelta(minutes=minute)
        rows = [{"table_name": name.replace("__", "."), "verdict": verdict, "checked_at": at}
                for name, verdict in verdicts.items()]  # fmt: skip
        ops.append("ops.gate_results", rows)

    assert red_gates(spec) == []
    judge(0, bronze__weather="passed", gold__fct_flights="failed", gold__on_time_league="failed")
    judge(5, bronze__weather="failed", gold__dim_planes="failed")
    judge(9, gold__fct_flights="passed")
    # The weather is read by the features through a view of silver; the league is made from the flights, and not read.
    assert red_gates(spec) == ["bronze.weather", "gold.dim_planes"]


def test_an_unchanged_project_is_not_parsed_again(manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(command: list[str]) -> None:
        raise AssertionError(f"dbt was run: {command}")

    monkeypatch.setattr(dbt_project, "invoke", refuse)
    assert dbt_project.ensure_manifest().is_file()


def test_only_what_is_made_whole_from_released_sources_can_be_left_alone(manifest: dict[str, Any]) -> None:
    reads = {"bronze.planes": 3, "bronze.airlines": 3, "bronze.flight_schedule": 3}
    before = warehouse.repeatable(reads)
    assert set(before) == {"dim_planes"}
    assert warehouse.repeatable(reads | {"bronze.airlines": 4}) == before
    later = warehouse.repeatable(reads | {"bronze.planes": 4})
    assert later.keys() == before.keys() and later != before
    del reads["bronze.planes"]
    assert warehouse.repeatable(reads) == {}


def test_a_build_reads_one_state_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    from lakehouse import release_log
    from lakehouse.release_log import Released

    state = {table: Released(table, 3, 7) for table in ("bronze.planes", "gold.fct_flights", "ml.predictions")}
    monkeypatch.setattr(release_log, "released", lambda: state)
    assert warehouse.sources() == {"bronze.planes": 3}


def test_variables() -> None:
    assert dbt_project.build_environment(Interval.parse("2013-01-01/2013-02-28"), {"run_id": "r"}) == {
        "DBT_INTERVAL_START": "2013-01-01",
        "DBT_INTERVAL_END": "2013-02-28",
        "DBT_COMMIT": '{"run_id": "r"}',
    }


def test_dbt_is_imported_by_builds_only() -> None:
    import subprocess
    import sys

    code = "import sys, lakehouse.warehouse; sys.exit(any(name.split('.')[0] == 'dbt' for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True)

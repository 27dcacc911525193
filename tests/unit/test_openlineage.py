"""Events are valid, arrive at a real receiver, and a receiver that does not work costs no step."""

from __future__ import annotations

import datetime as dt
import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from openlineage.client import OpenLineageClient
from openlineage.client.serde import Serde

from lakehouse import dbt_project, tables
from lakehouse.lineage import openlineage
from lakehouse.lineage.sql_lineage import Edge, LineageError
from lakehouse.platform.airflow import airflow_environment
from lakehouse.settings import settings
from tests.openlineage_receiver import Receiver, receiving
from tests.openlineage_schema import faults

NOW = dt.datetime(2013, 3, 2, 6, tzinfo=dt.UTC)
DAY = dt.date(2013, 3, 1)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "run_id": str(uuid.uuid4()), "step": "land", "dataset": "bronze.weather", "interval_start": DAY,
        "interval_end": DAY, "started_at": NOW, "ended_at": NOW + dt.timedelta(seconds=3), "status": "success",
        "error": None, "rows_out": 72, "versions_in": [], "versions_out": [("bronze_next.weather", 3)],
        "code_version": "0123abc", **changes,
    }  # fmt: skip


def sent(event: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Serde.to_json(event))
    assert faults(found) == []
    return found


def test_a_landing_names_its_files_its_table_and_where_each_column_comes_from() -> None:
    files = {"weather/weather_2013-03-01.jsonl": {"sha256": "4f0c", "bytes": 100, "rows": 72}}
    event = sent(openlineage.ended(row(), {"files": files}))
    assert (event["eventType"], event["job"]["name"]) == ("COMPLETE", "land.bronze.weather")
    file, source = event["inputs"]
    assert (file["namespace"], file["name"]) == (
        "file", f"{settings().drop_url}/weather/weather_2013-03-01.jsonl",
    )  # fmt: skip
    assert file["facets"]["version"]["datasetVersion"] == "4f0c"
    assert (source["namespace"], source["name"]) == ("lake", "source.weather")
    [table] = event["outputs"]
    assert (table["namespace"], table["name"]) == ("lake", "bronze.weather")
    assert table["facets"]["version"]["datasetVersion"] == "3"
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 72
    [field] = table["facets"]["columnLineage"]["fields"]["temperature_f"]["inputFields"]
    assert (field["name"], field["field"]) == ("source.weather", "temperature_f")
    assert event["run"]["facets"]["nominalTime"]["nominalEndTime"] == "2013-03-02T00:00:00Z"
    assert event["job"]["facets"]["sourceCodeLocation"]["version"] == "0123abc"


def test_a_landing_says_how_many_rows_it_has_put_into_quarantine() -> None:
    written = [("bronze_next.weather", 3), ("quarantine.weather", 5)]
    event = sent(openlineage.ended(row(rows_quarantined=2, versions_out=written), {}))
    said = {
        each["name"]: (
            each["facets"]["version"]["datasetVersion"],
            each["outputFacets"]["outputStatistics"]["rowCount"],
        )
        for each in event["outputs"]
    }
    assert said == {"bronze.weather": ("3", 72), "quarantine.weather": ("5", 2)}


def test_of_a_step_that_writes_several_tables_no_number_of_rows_is_said_of_each() -> None:
    written = [("gold_next.flights", 3), ("gold_next.planes", 5)]
    event = sent(openlineage.ended(row(step="release", dataset="gold.flights, gold.planes", versions_out=written), {}))
    assert [each.get("outputFacets", {}) for each in event["outputs"]] == [{}, {}]


@pytest.mark.parametrize(
    ("step", "stored", "column", "source"),
    [
        ("build", "gold_next.delays", "mean", ("gold.flights", "delay")),
        ("train", "models.late", "mean", ("gold.delays", "mean")),
        ("score", "ml_next.predictions_late", "score", ("models.late", "score")),
        ("shadow", "ml_shadow.predictions_late", "score", ("models.late", "score")),
        ("what_if", "ml_what_if.predictions_late", "score", ("models.late", "score")),
        ("replay", "bronze_next.weather", "temperature_f", ("source.weather", "temperature_f")),
        ("gate", "gold_next.delays", None, None),
    ],
)
def test_each_step_that_makes_columns_says_what_they_are_made_from(
    monkeypatch: pytest.MonkeyPatch, step: str, stored: str, column: str | None, source: tuple[str, str] | None
) -> None:
    known = [
        Edge("gold.delays", "mean", "gold.flights", "delay", "direct", "AGGREGATION"),
        Edge("models.late", "mean", "gold.delays", "mean", "direct", "IDENTITY"),
        Edge("ml.predictions_late", "score", "models.late", "score", "direct", "IDENTITY"),
    ]
    monkeypatch.setattr("lakehouse.lineage.column_lineage.edges", lambda: known)
    monkeypatch.setattr("lakehouse.lineage.column_lineage.columns", lambda: {"models.late": ("mean", "score")})
    facts = row(step=step, dataset=tables.reader_name(stored), versions_out=[(stored, 3)])
    [table] = sent(openlineage.ended(facts, {}))["outputs"]
    if step == "train":
        assert [each["name"] for each in table["facets"]["schema"]["fields"]] == ["mean", "score"]
    assert (table["namespace"], table["name"]) == ("lake", tables.reader_name(stored))
    if column is None:
        assert "columnLineage" not in table["facets"]
        return
    [field] = table["facets"]["columnLineage"]["fields"][column]["inputFields"]
    assert (field["name"], field["field"]) == source


@pytest.mark.parametrize(
    ("tables_of_it", "name"),
    [("gold.a", "verify.gold.a"), ("gold.a, gold.b", "verify.gold"), ("bronze.a, gold.b", "verify.the lake")],
)
def test_a_job_is_named_after_what_it_is_about(tables_of_it: str, name: str) -> None:
    assert openlineage.job_name("verify", tables_of_it) == name


def test_a_view_has_columns_and_where_they_come_from_but_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Edge("silver.stg_late", "late", "bronze.late", "delay", "direct", "TRANSFORMATION")]
    monkeypatch.setattr("lakehouse.lineage.column_lineage.edges", lambda: known)
    declared = [{"name": "late", "data_type": "boolean", "description": "Whether."}]
    monkeypatch.setattr("lakehouse.dbt_project.declared_columns", {"silver.stg_late": declared}.__getitem__)
    facts = row(step="build", dataset="silver.stg_late", rows_out=None, versions_out=[("silver.stg_late", None)])
    [view] = sent(openlineage.ended(facts, {}))["outputs"]
    assert view["name"] == "silver.stg_late" and view["facets"].keys() == {"schema", "columnLineage"}
    [field] = view["facets"]["schema"]["fields"]
    assert (field["name"], field["type"], field["description"]) == ("late", "boolean", "Whether.")
    [source] = view["facets"]["columnLineage"]["fields"]["late"]["inputFields"]
    assert (source["name"], source["field"]) == ("bronze.late", "delay")


@pytest.mark.parametrize(
    ("step", "layer", "details"),
    [
        ("score", "ml", {"model_version": 3, "model_versions": {2: 10, 3: 5}}),
        ("shadow", "ml_shadow", {"model_versions": [2, 3, 2]}),
        ("what_if", "ml_what_if", {"model_version": 3}),
    ],
)
def test_a_scoring_names_the_versions_of_its_model(step: str, layer: str, details: dict[str, Any]) -> None:
    facts = row(step=step, dataset=f"{layer}.predictions_late", versions_in=[("gold_next.late", 7)], versions_out=[])
    read = [
        (each["name"], each["facets"]["version"]["datasetVersion"])
        for each in sent(openlineage.ended(facts, details))["inputs"]
    ]
    asked = ["3"] if step == "what_if" else ["2", "3"]
    assert read == [("gold.late", "7"), *(("models.late", version) for version in asked)]


def test_a_failure_has_its_message_and_a_gate_what_it_has_checked() -> None:
    checked = {"expectation": "expect_column_values_to_not_be_null", "column_name": "origin", "severity": "critical"}
    verdicts = {"gold.fct_flights": [{**checked, "success": False}, {**checked, "success": None}]}
    facts = row(
        step="gate", dataset="gold.fct_flights, gold.dim_planes", status="failed", error="GateFailedError: shut",
        versions_in=[("gold_next.fct_flights", 7)], versions_out=[], rows_out=None,
    )  # fmt: skip
    event = sent(openlineage.ended(facts, {}, verdicts))
    assert (event["eventType"], event["job"]["name"]) == ("FAIL", "gate.gold")
    assert event["run"]["facets"]["errorMessage"]["message"] == "GateFailedError: shut"
    [table] = event["inputs"]
    assert table["inputFacets"]["dataQualityAssertions"]["assertions"] == [
        {
            "assertion": checked["expectation"], "success": False, "column": "origin", "severity": "critical",
            "params": {},
        }
    ]  # fmt: skip


def test_a_view_that_a_data_test_asks_is_an_input_without_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dbt_project, "declared_columns", lambda _view: [])
    said = {"expectation": "not_null_stg_weather_origin", "success": True, "column_name": "origin"}
    verdicts = {"silver.stg_weather": [{**said, "severity": "critical"}]}
    facts = row(step="test", dataset="warehouse", versions_in=[("gold_next.fct_flights", 7)], versions_out=[])
    table, view = sent(openlineage.ended(facts, {}, verdicts))["inputs"]
    assert (table["name"], table.get("inputFacets", {})) == ("gold.fct_flights", {})
    assert view["name"] == "silver.stg_weather" and "version" not in view["facets"]
    [told] = view["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (told["assertion"], told["success"], told["column"]) == (said["expectation"], True, "origin")


def test_a_step_hangs_below_the_task_of_airflow_and_a_part_below_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    task, run, whole = (str(uuid.uuid4()) for _ in range(3))
    monkeypatch.setenv(openlineage.PARENT, f"lake/ingest_weather.land/{task}")
    monkeypatch.setenv(openlineage.ROOT, f"lake/ingest_weather/{run}")
    parent = sent(openlineage.started(row()))["run"]["facets"]["parent"]
    assert (parent["job"]["name"], parent["run"]["runId"]) == ("ingest_weather.land", task)
    assert (parent["root"]["job"]["name"], parent["root"]["run"]["runId"]) == ("ingest_weather", run)
    parent = sent(openlineage.started(row(), ("build.warehouse", whole)))["run"]["facets"]["parent"]
    assert (parent["job"]["name"], parent["run"]["runId"]) == ("build.warehouse", whole)


@pytest.mark.parametrize(
    "value", ["", "land", f"land/{uuid.UUID(int=1)}", f"//{uuid.UUID(int=1)}", "lake/ingest_weather.land/manual"]
)
@pytest.mark.parametrize("variable", [openlineage.PARENT, openlineage.ROOT])
def test_a_parent_that_cannot_be_read_costs_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str
) -> None:
    monkeypatch.setenv(openlineage.PARENT, f"lake/ingest_weather.land/{uuid.UUID(int=2)}")
    monkeypatch.setenv(variable, value)
    openlineage._above.cache_clear()
    with caplog.at_level(logging.WARNING, "lakehouse"):
        facets = [sent(openlineage.started(row()))["run"]["facets"] for _ in range(2)]
    assert ["parent" in each for each in facets] == [variable == openlineage.ROOT] * 2
    assert all("root" not in each.get("parent", {}) for each in facets)
    [said] = [record.getMessage() for record in caplog.records if record.name == "lakehouse"]
    assert variable in said and repr(value) in said


def test_the_schema_finds_faults() -> None:
    good = sent(openlineage.started(row()))
    for path, value in (
        ("eventTime", "yesterday"), ("eventTime", "2013-02-30T00:00:00Z"), ("eventTime", "2013-02-28T00:00:00"),
        ("producer", None), ("producer", "lakehouse"), ("producer", "urn:a b"), ("eventType", "DONE"), ("run", {}),
    ):  # fmt: skip
        assert faults({**good, path: value}), (path, value)
    assert faults({name: value for name, value in good.items() if name != "job"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_events_arrive_at_a_backend(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    facts = row()
    openlineage.send([openlineage.started(facts), openlineage.ended(facts, {})])
    assert [event["eventType"] for event in receiver.events] == ["START", "COMPLETE"]
    assert {event["run"]["runId"] for event in receiver.events} == {facts["run_id"]}
    assert [record for record in caplog.records if record.name == "lakehouse"] == []


def test_airflows_own_events_go_to_the_same_backend(receiver: Receiver) -> None:
    variables, facts = airflow_environment(), row()
    transport = json.loads(variables["AIRFLOW__OPENLINEAGE__TRANSPORT"])
    assert (transport["type"], transport["url"]) == ("http", receiver.url)
    assert variables["AIRFLOW__OPENLINEAGE__NAMESPACE"] == settings().openlineage_namespace
    OpenLineageClient(config={"transport": transport}).emit(openlineage.started(facts))
    assert [event["run"]["runId"] for event in receiver.events] == [facts["run_id"]]


@pytest.mark.parametrize("fault", ["hangs", "refuses", "is gone"])
def test_a_backend_that_does_not_work_costs_a_line_in_the_log(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    url = receiver.url
    if fault == "hangs":
        receiver.delay = 3
    elif fault == "refuses":
        receiver.broken = True
    else:
        url = "http://127.0.0.1:9"
    monkeypatch.setattr(settings(), "openlineage", {"type": "http", "url": url, "timeout": 1})
    with caplog.at_level(logging.WARNING, "lakehouse"):
        openlineage.send([openlineage.started(row()), openlineage.started(row())])
    [record] = [record for record in caplog.records if record.name == "lakehouse"]
    assert url in record.getMessage()


@pytest.mark.parametrize("wrong", [{"type": "no.such.Transport"}, {"type": "htp"}, {"type": "http"}])
def test_a_transport_that_there_is_not_costs_a_line_in_the_log(
    wrong: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    openlineage._client.cache_clear()
    monkeypatch.setattr(settings(), "openlineage", wrong)
    with caplog.at_level(logging.WARNING, "lakehouse"):
        openlineage.send([openlineage.started(row())])
    assert any("openlineage" in record.getMessage().lower() for record in caplog.records if record.name == "lakehouse")


def test_without_a_backend_events_go_to_a_file(lake_home: Any) -> None:
    openlineage._client.cache_clear()
    openlineage.send([openlineage.started(row())])
    event = json.loads((lake_home / "openlineage" / "events.jsonl").read_text().splitlines()[-1])
    assert faults(event) == []


def test_an_event_that_cannot_be_made_costs_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> list[Any]:
        raise LineageError("gold.x: line 3")

    monkeypatch.setattr("lakehouse.lineage.column_lineage.edges", broken)
    scored = row(step="score", dataset="ml.x", versions_out=[("ml_next.x", 1)])
    with caplog.at_level(logging.WARNING, "lakehouse"):
        openlineage.send(openlineage.ended(each, {}) for each in [scored])
    assert any("gold.x: line 3" in record.getMessage() for record in caplog.records)

"""The steps that really run send valid events in pairs, with the names and versions of what they touch."""

from __future__ import annotations

import csv
import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest
import yaml

from lakehouse import contracts, dbt_project, ops, release_log, tables, warehouse
from lakehouse.contracts import TECHNICAL_COLUMNS
from lakehouse.engine import spark, sql
from lakehouse.interval import Interval
from lakehouse.lineage import openlineage
from lakehouse.maintenance import compaction, maintain
from lakehouse.maintenance.verify import verify
from lakehouse.provenance.ledger import Ledger
from lakehouse.provenance.ledger import landed as landed_files
from lakehouse.quality import suites
from lakehouse.readers.batch import SourceError
from lakehouse.registry import registry
from lakehouse.release_log import released
from lakehouse.releases.audit import gate
from lakehouse.releases.release import release
from lakehouse.releases.rollback import rollback
from lakehouse.steps import code_version, job
from tests.openlineage_receiver import made_from, receiving, told, versions_of
from tests.openlineage_schema import faults
from tests.spark.counters import appending

land = job("land")
TABLE = "bronze.airlines"
SOURCE, VIEW, GOLD, SNAPSHOT = "bronze.planes", "silver.stg_planes", "gold.dim_planes", Interval.parse("2013-01-15")
CASES = Path(__file__).parents[1] / "cases" / "column_lineage.csv"
DAY, NEXT, NEVER = (Interval.parse(f"2013-01-{day}") for day in ("03", "04", "25"))


@pytest.fixture
def events(lake_home: Path) -> Any:
    openlineage._client.cache_clear()
    file = lake_home / "openlineage" / "events.jsonl"
    before = file.stat().st_size if file.exists() else 0

    def read() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in file.read_bytes()[before:].splitlines()]
        assert [faults(event) for event in found] == [[]] * len(found)
        return found

    return read


def test_land_gate_and_release_tell_what_they_touch(drop: Path, events: Any) -> None:
    version = land("airlines", DAY)["version"]
    gate([TABLE], DAY)
    release([TABLE], DAY)
    found = events()
    assert [(event["job"]["name"], event["eventType"]) for event in found] == [
        (f"{step}.{TABLE}", kind) for step in ("land", "gate", "release") for kind in ("START", "COMPLETE")
    ]
    _, landed, _, gated, _, shown = found
    assert {each["name"] for each in landed["inputs"]} == {f"{drop}/airlines/airlines_{DAY}.csv", "source.airlines"}
    [out] = landed["outputs"]
    assert (out["name"], out["facets"]["version"]["datasetVersion"]) == (TABLE, str(version))
    assert {field["name"] for field in out["facets"]["schema"]["fields"]} >= {"carrier", "name", "_interval"}
    [checked] = gated["inputs"]
    assert checked["name"] == TABLE and len(checked["inputFacets"]["dataQualityAssertions"]["assertions"]) > 1
    assert [each["name"] for each in shown["outputs"]] == [TABLE]
    assert released()[TABLE].version == version


def test_a_step_adds_one_commit_at_most_to_each_table_of_what_is_known(drop: Path) -> None:
    added = {}
    for step in (land, gate, release):
        with appending() as added[step]:
            step(*(("airlines", DAY) if step is land else ([TABLE], DAY)))
    assert added[land] == {"ops.runs": 1}
    assert {*added[gate].values(), *added[release].values()} == {1}
    assert {"ops.runs", "ops.releases"} <= added[release].keys()


def test_a_backend_is_told_of_a_landing_and_a_build_what_went_in_and_what_came_out(drop: Path) -> None:
    with receiving() as backend:
        land("planes", SNAPSHOT)
        gate([SOURCE], SNAPSHOT)
        release([SOURCE], SNAPSHOT)
        warehouse.prepare(SNAPSHOT)  # a step of its own, if another test has left something
        with appending() as added:
            warehouse.build(SNAPSHOT, "+dim_planes")
    assert "ops.runs" in added and {*added.values()} == {1}
    source, head = (str(tables.head(tables.next_table(table))) for table in (SOURCE, GOLD))
    events = backend.events
    landed, gated, shown = (told(events, f"{step}.{SOURCE}") for step in ("land", "gate", "release"))
    whole, built = told(events, "build.warehouse"), told(events, f"build.{GOLD}")
    assert backend.faults == []
    assert {event["job"]["facets"]["sourceCodeLocation"]["version"] for event in events} == {code_version()}

    file = drop / "planes" / f"planes_{SNAPSHOT}.csv"
    assert versions_of(landed["inputs"]) == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert versions_of(landed["outputs"])[SOURCE] == versions_of(gated["inputs"])[SOURCE] == source
    assert versions_of(shown["outputs"]) == {SOURCE: source}
    planes = contracts.load("planes")
    [bronze] = [each for each in landed["outputs"] if each["name"] == SOURCE]
    names = [column.name for column in planes.columns]
    assert made_from(bronze) == {(name, "source.planes", name, "direct", "IDENTITY") for name in names}
    assert [field["name"] for field in bronze["facets"]["schema"]["fields"]] == [*names, *TECHNICAL_COLUMNS]
    [delivered] = [each for each in landed["inputs"] if each["name"] == "source.planes"]
    assert [field["name"] for field in delivered["facets"]["schema"]["fields"]] == names
    written = sum(each["outputFacets"]["outputStatistics"]["rowCount"] for each in landed["outputs"])
    assert written == len(file.read_text().splitlines()) - 1
    [checked] = gated["inputs"]
    assertions = checked["inputFacets"]["dataQualityAssertions"]["assertions"]
    rules = json.loads(suites.suite_path(SOURCE).read_text())["expectations"]
    assert {each["assertion"] for each in assertions} >= {each["type"] for each in rules}
    assert all(each["success"] for each in assertions if each["severity"] == "critical")

    view = told(events, f"build.{VIEW}")
    for part in (view, built):
        assert part["run"]["facets"]["parent"]["run"]["runId"] == whole["run"]["runId"]
        assert versions_of(part["inputs"]) == {SOURCE: source}
    [table] = built["outputs"]
    assert versions_of(built["outputs"]) == versions_of(whole["outputs"]) == {GOLD: head}
    wanted = edges_by_hand(GOLD)
    assert len(wanted) > 5 and made_from(table) >= wanted
    assert types_of(table) == {name: type_.replace("int", "integer") for name, type_ in declared("marts", GOLD).items()}
    [shown] = view["outputs"]
    assert shown["name"] == VIEW and "version" not in shown["facets"]
    wanted = edges_by_hand(VIEW)
    assert len(wanted) >= 3 and made_from(shown) >= wanted
    assert types_of(shown) == declared("staging", VIEW)


def edges_by_hand(table: str) -> set[tuple[str, ...]]:
    with CASES.open() as cases:
        return {
            (row["column"], row["source_table"], row["source_column"], row["kind"], row["transformation"])
            for row in csv.DictReader(cases)
            if row["table"] == table
        }


def declared(folder: str, table: str) -> dict[str, str]:
    """Columns of a model, with their types, as its properties say."""
    models = yaml.safe_load((dbt_project.PROJECT / "models" / folder / f"{folder}.yml").read_text())["models"]
    [model] = [model for model in models if model["name"] == table.partition(".")[2]]
    return {column["name"]: column["data_type"] for column in model["columns"]}


def types_of(dataset: dict[str, Any]) -> dict[str, str]:
    return {field["name"]: field["type"] for field in dataset["facets"]["schema"]["fields"]}


def test_a_step_that_fails_says_why(drop: Path, events: Any) -> None:
    with pytest.raises(SourceError):
        land("airlines", NEVER)
    start, end = events()
    assert (start["eventType"], end["eventType"]) == ("START", "FAIL")
    assert start["run"]["runId"] == end["run"]["runId"]
    assert f"airlines_{NEVER}.csv" in end["run"]["facets"]["errorMessage"]["message"]


def test_what_is_done_to_a_table_afterwards_is_told_too(
    drop: Path, events: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for interval in (DAY, NEXT):
        land("airlines", interval)
        gate([TABLE], interval)
        release([TABLE], interval)
    everything = release_log.history
    monkeypatch.setattr(release_log, "history", lambda: [row for row in everything() if row["table_name"] == TABLE])
    monkeypatch.setattr(compaction, "FEW_FILES", 2)
    monkeypatch.setattr(registry, "registered", lambda: [])
    before = released()[TABLE].version
    with appending() as commits:
        maintain.maintain(30)
    kept = ("ops.releases", "ops.runs", "ops.lineage_columns", "ops.models", "ops.fingerprints")
    assert {table: commits.get(table, 0) for table in kept} == dict(zip(kept, (1, 1, 0, 0, 1), strict=True))
    after = released()[TABLE].version
    job("replay")("airlines", DAY)
    with appending() as commits:
        rollback(TABLE)
    assert commits == {"ops.releases": 1, "ops.runs": 1}
    back = released()[TABLE].version
    assert back < before < after
    verify([TABLE])
    found: dict[str, list[dict[str, Any]]] = {}
    for event in events():
        found.setdefault(event["job"]["name"], []).append(event)
    for name in ("maintain.the lake", f"replay.{TABLE}", f"rollback.{TABLE}", f"verify.{TABLE}"):
        start, end = found[name][:2]
        assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE"), name
        assert start["run"]["runId"] == end["run"]["runId"]
    for name, versions in (("maintain.the lake", (before, after)), (f"rollback.{TABLE}", (after, back))):
        for side, version in zip(("inputs", "outputs"), versions, strict=True):
            # Tables of other tests may have been maintained, too.
            [table] = [each for each in found[name][1][side] if each["name"] == TABLE]
            assert table["facets"]["version"]["datasetVersion"] == str(version), name


def test_the_lineage_of_tables_has_what_each_step_has_read() -> None:
    read, at = {"gold_next.features": 7, "gold_next.outcomes": 8}, dt.datetime(2013, 3, 2, tzinfo=dt.UTC)
    steps = [
        ("score", "ml.predictions_late", read, {"ml_next.predictions_late": 3}, {"model_versions": {"1": 5, "2": 6}}),
        ("shadow", "ml_shadow.predictions_late", {}, {"ml_shadow.predictions_late": 4}, {"model_versions": [2, 2]}),
        ("what_if", "ml_what_if.predictions_late", {}, {"ml_what_if.predictions_late": 5}, {"model_version": 1}),
        ("what_if", "ml_what_if.predictions_gone", read, {"ml_what_if.predictions_gone": 1}, {}),
        ("score", "ml.others", read, {"ml_next.others": 1}, {"model_versions": {"1": 5}}),
        ("monitor", "late", read, {"ops.model_metrics": 6}, {"champion 1": {}}),
        ("maintain", "the lake", read, {"gold_next.features": 9, "gold_next.outcomes": 10}, {}),
        ("replay", "bronze.late", {"bronze_next.late": 1, "quarantine.late": 2},
         {"bronze_next.late": 2, "quarantine.late": 3}, {}),
        ("release", "gold.features", read, {"gold_next.features": 9}, {}),
        ("build", "warehouse", read, {"gold_next.features": 9}, {}),
    ]  # fmt: skip
    rows = [
        {"run_id": step, "step": step, "dataset": dataset, "ended_at": at, "details": json.dumps(details),
         "versions_in": sorted(before.items()), "versions_out": sorted(after.items())}
        for step, dataset, before, after, details in steps
    ]  # fmt: skip
    spark().createDataFrame(pa.Table.from_pylist(rows, schema=ops.SCHEMAS["ops.runs"])).createTempView("made_up_runs")
    try:
        found = sql(ops.VIEWS["ops.lineage_tables"].replace("ops.runs", "made_up_runs")).collect()
    finally:
        spark().catalog.dropTempView("made_up_runs")
    of_read = {("gold.features", 7), ("gold.outcomes", 8)}
    wanted = {
        ("ml.predictions_late", 3): of_read | {("models.late", 1), ("models.late", 2)},
        ("ml_shadow.predictions_late", 4): {(None, None), ("models.late", 2)},
        ("ml_what_if.predictions_late", 5): {(None, None), ("models.late", 1)},
        ("ml_what_if.predictions_gone", 1): of_read,
        ("ml.others", 1): of_read,
        ("ops.model_metrics", 6): of_read,
        ("gold.features", 9): {("gold.features", 7)},
        ("gold.outcomes", 10): {("gold.outcomes", 8)},
        ("bronze.late", 2): {("bronze.late", 1), ("quarantine.late", 2)},
    }
    said = [
        (row["table_name"], row["version"], row["source_table"], row["source_version"], row["ended_at"])
        for row in found
    ]
    assert sorted(said, key=str) == sorted(
        ((*made, *source, at.replace(tzinfo=None)) for made, sources in wanted.items() for source in sources), key=str
    )


def test_the_lineage_of_tables_is_that_of_the_runs(drop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = land("airlines", DAY)["version"]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="late"):
        patch.setattr(tables, "written_rows", Mock(side_effect=RuntimeError("late")))
        land("airlines", NEXT)  # which has failed after its commit
    failed = tables.head(tables.next_table(TABLE))
    for view, query in ops.VIEWS.items():
        sql(f"create or replace view {view} as {query}").collect()
    assert failed is not None and failed > version
    for made in (version, failed):
        rows = sql(f"select * from ops.lineage_tables where table_name = '{TABLE}' and version = {made}").collect()
        assert [(row["step"], row["source_table"], row["source_version"]) for row in rows] == [
            ("land", "source.airlines", None)
        ]
    [write] = [each for each in Ledger.read().writes() if (each.table, each.version) == (TABLE, failed)]
    assert write.run is not None and write.run["status"] == "failed"
    assert [name for name, (days, _) in landed_files(write).items() if days == frozenset(NEXT.days())] == [
        f"airlines/airlines_{NEXT}.csv"
    ]
    land("airlines", NEXT)  # takes it back

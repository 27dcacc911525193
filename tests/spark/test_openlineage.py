"""The steps that really run send valid events in pairs, with the names and versions of what they touch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lakehouse import compaction, maintain, openlineage, ops, registry, tables
from lakehouse import release as releases
from lakehouse.audit import gate
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.readers import SourceError
from lakehouse.release import release, released
from lakehouse.rollback import rollback
from lakehouse.steps import job
from lakehouse.verify import verify
from tests.openlineage_schema import faults

land = job("land")
TABLE = "bronze.airlines"
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


def test_a_step_adds_one_commit_at_most_to_each_table_of_what_is_known(
    drop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "compact", lambda _table: None)  # which comes with every 64th commit

    def heads() -> dict[str, int]:
        return {table: tables.head(table) or 0 for table in ops.SCHEMAS}

    added = {}
    for step in (land, gate, release):
        before = heads()
        step(*(("airlines", DAY) if step is land else ([TABLE], DAY)))
        added[step] = {table: after - before[table] for table, after in heads().items() if after != before[table]}
    assert added[land] == {"ops.runs": 1}
    assert {*added[gate].values(), *added[release].values()} == {1}
    assert {"ops.runs", "ops.releases"} <= added[release].keys()


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
    everything = releases.history
    monkeypatch.setattr(releases, "history", lambda: [row for row in everything() if row["table_name"] == TABLE])
    monkeypatch.setattr(compaction, "FEW_FILES", 2)
    monkeypatch.setattr(registry, "registered", lambda: [])
    before = released()[TABLE].version
    maintain.maintain(30)
    after = released()[TABLE].version
    job("replay")("airlines", DAY)
    rollback(TABLE)
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
            [table] = found[name][1][side]
            assert (table["name"], table["facets"]["version"]["datasetVersion"]) == (TABLE, str(version)), name


def test_the_lineage_of_tables_is_that_of_the_runs(drop: Path) -> None:
    version = land("airlines", DAY)["version"]
    for view, query in ops.VIEWS.items():
        sql(f"create or replace view {view} as {query}").collect()
    rows = sql(f"select * from ops.lineage_tables where table_name = '{TABLE}' and version = {version}").collect()
    assert [(row["step"], row["source_table"], row["source_version"]) for row in rows] == [
        ("land", "source.airlines", None)
    ]

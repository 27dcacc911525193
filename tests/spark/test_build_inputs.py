"""A build reads one state of its sources, and names it, whatever is released meanwhile."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml

from lakehouse import dbt_project, ops, release_log, tables, warehouse
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.lineage.sql_lineage import LineageError
from lakehouse.provenance.ledger import Ledger
from lakehouse.releases import release, silver_views, unreleased
from lakehouse.releases.as_of import as_of
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.override import override
from lakehouse.releases.rollback import rollback
from lakehouse.steps import Run, job
from tests.openlineage_receiver import receiving, told
from tests.projects import project_of_its_own

land = job("land")
SOURCE, GOLD = "bronze.planes", "gold.dim_planes"
DAYS = [Interval.parse(f"2013-01-{day}") for day in (16, 17, 18, 19)]


def publish(interval: Interval) -> int:
    land("planes", interval)
    gate([SOURCE], interval)
    release.release([SOURCE], interval)
    return release_log.released()[SOURCE].version


def read_by(version: int) -> int:
    """The version of the source that the newest build of a version says it has read."""
    [write] = [each for each in Ledger.read().writes() if (each.table, each.version) == (GOLD, version)]
    return write.reads[SOURCE]


@pytest.fixture(scope="module", autouse=True)
def _published(drop: Any) -> None:
    publish(DAYS[0])
    build(DAYS[0])
    gate([GOLD], DAYS[0])
    release.release([GOLD], DAYS[0])


def build(interval: Interval) -> int:
    """Build the table, and give the version of the source that the build says it has read."""
    warehouse.build(interval, "+dim_planes")
    head = tables.head(tables.next_table(GOLD))
    assert head is not None
    return read_by(head)


def days_of_snapshots() -> set[str]:
    """The days from which on the table has planes: each snapshot has new ones."""
    return {str(row[0]) for row in sql(f"select distinct valid_from from {tables.next_table(GOLD)}").collect()}


def test_a_build_reads_what_is_released_also_where_the_views_do_not_show_it_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = release_log.released()[SOURCE].version
    with monkeypatch.context() as patched:
        patched.setattr(release, "_point", lambda _table, _version: None)  # killed after it was recorded
        recorded = publish(DAYS[1])
    assert recorded > before
    assert build(DAYS[1]) == recorded
    assert str(DAYS[1]) in days_of_snapshots()
    release.release([SOURCE], DAYS[1])
    assert release.visible(["bronze"])[SOURCE] == recorded


def test_a_release_in_the_middle_of_a_build_is_left_to_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = release_log.released()[SOURCE].version
    dbt, built = warehouse.run_dbt, []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        built.append(publish(DAYS[2]))
        return dbt(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(warehouse, "run_dbt", interrupted)
        assert build(DAYS[2]) == before
    [now] = built
    assert now == release_log.released()[SOURCE].version > before
    assert str(DAYS[2]) not in days_of_snapshots()
    runs = ops.read("ops.runs").sort_by("ended_at").to_pylist()
    whole = next(run for run in reversed(runs) if run["dataset"] == "warehouse")
    assert dict(whole["versions_in"])[tables.next_table(SOURCE)] == before
    assert build(DAYS[2]) == now
    assert str(DAYS[2]) in days_of_snapshots()


def runs_that_wrote(written: tuple[str, int | None]) -> list[dict[str, Any]]:
    """The rows of runs that have written a version."""
    return [row for row in ops.read("ops.runs").to_pylist() if written in (row["versions_out"] or ())]


def test_what_a_build_has_written_and_not_recorded_is_recorded_by_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warehouse, "unchanged", lambda *_: [])
    stored = tables.next_table(GOLD)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(warehouse, "_describe", Mock(side_effect=KeyboardInterrupt))  # killed when dbt had ended
        warehouse.build(DAYS[2], "+dim_planes")
    written, commit = (stored, tables.head(stored)), tables.last_commit(stored)["userMetadata"]
    assert runs_that_wrote(written) == []
    with receiving() as server:
        assert warehouse.prepare(DAYS[3]) == [GOLD] and warehouse.prepare(DAYS[3]) == []
    [row] = runs_that_wrote(written)
    assert (row["step"], row["dataset"], row["status"]) == ("build", GOLD, "success")
    assert Interval(row["interval_start"], row["interval_end"]) == DAYS[2]
    assert row["versions_in"] == [(tables.next_table(SOURCE), release_log.released()[SOURCE].version)]
    assert row["code_version"] and row["lock_token"]
    events = [event for event in server.events if event["run"]["runId"] == row["run_id"]]
    assert [event["eventType"] for event in events] == ["START", "COMPLETE"]
    for event in events:
        parent = event["run"]["facets"]["parent"]
        assert (parent["job"]["name"], parent["run"]["runId"]) == ("build.warehouse", commit["run_id"])


@pytest.mark.parametrize("run_id", ["scheduled__2013-01-18", None])
def test_of_what_another_dbt_has_written_it_is_recorded_which_run_of_airflow_it_was(
    monkeypatch: pytest.MonkeyPatch, run_id: str | None
) -> None:
    monkeypatch.setattr(warehouse, "unchanged", lambda *_: [])
    stored = tables.next_table(GOLD)
    by_airflow = {"run_id": run_id, "step": "build", "interval": str(DAYS[2])}
    warehouse.run_dbt(DAYS[2], ["dim_planes"], commit=by_airflow if run_id else None)
    written = stored, tables.head(stored)
    # Its events cannot be made, which costs a line of the log.
    monkeypatch.setattr("lakehouse.lineage.column_lineage.edges", Mock(side_effect=LineageError("not understood")))
    assert warehouse.prepare(DAYS[3]) == [GOLD]
    assert [row["airflow_run_id"] for row in runs_that_wrote(written)] == ([run_id] if run_id else [])


def test_a_view_gets_its_new_query_when_what_was_built_from_it_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def revised(schema: str) -> bool:
        return "revision" in sql(f"select * from {schema}.stg_planes").columns

    build(DAYS[2])
    gate([GOLD], DAYS[2])
    first = release.release([GOLD], DAYS[2])
    assert not revised("silver") and "silver.stg_planes" in release_log.views(first)
    staging = project_of_its_own(tmp_path, monkeypatch) / "models" / "staging" / "stg_planes.sql"
    staging.write_text(staging.read_text().replace("seats,", "-1 as seats, 1 as revision,"))
    build(DAYS[2])
    with pytest.raises(GateFailedError, match="expect_column_values_to_be_between") as failure:
        gate([GOLD], DAYS[2])
    assert revised("silver_next") and not revised("silver")
    warehouse.prepare(DAYS[2])  # as a build does at first that comes to nothing
    assert not revised("silver_next")

    gate_run = re.search(r"`lake release --override (\S+) --reason", str(failure.value))
    assert gate_run
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(silver_views, "show", Mock(side_effect=KeyboardInterrupt))  # killed after it was recorded
        override(gate_run[1], "a query that tells nothing")
    assert not revised("silver") and "silver.stg_planes" in release.outdated()
    second = override(gate_run[1], "a query that tells nothing")
    assert revised("silver")
    for number, columns in ((first, False), (second, True)):
        assert ("revision" in sql(as_of("select * from silver.stg_planes", number)).columns) == columns
    assert release_log.sets("silver.stg_planes")[0]["release"] == second

    warehouse.build(DAYS[2], "+dim_planes")  # leaves the table alone, which was made from the same
    assert revised("silver_next")
    rollback(str(second))
    assert not revised("silver")
    warehouse.prepare(DAYS[2])
    assert not revised("silver_next")


def columns(view: str) -> list[str]:
    found: list[str] = sql(f"select * from {view}").columns
    return found


def views_in(schema: str) -> set[str]:
    return {row["viewName"] for row in sql(f"show views in {schema}").collect()}


ALONE = {
    "name": "alone",
    "description": "A table that reads nothing.",
    "config": {"meta": {"statistics": ["number"]}},
    "columns": [{"name": "number", "data_type": "int", "description": "A number."}],
}


def test_a_query_that_was_turned_down_is_not_released_with_another_build_and_a_table_not_without_its_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = project_of_its_own(tmp_path, monkeypatch) / "models"
    staging = models / "staging" / "stg_planes.sql"
    staging.write_text(staging.read_text().replace("seats,", "-1 as seats, 1 as turned_down,"))
    (models / "staging" / "stg_never_released.sql").write_text("select 1 as one")
    (models / "marts" / "alone.sql").write_text("select cast(1 as int) as number")
    (models / "marts" / "alone.yml").write_text(yaml.safe_dump({"version": 2, "models": [ALONE]}))
    warehouse.build(DAYS[2], "+dim_planes stg_never_released")
    with pytest.raises(GateFailedError):
        gate([GOLD], DAYS[2])
    assert "turned_down" in columns("silver_next.stg_planes") and "stg_never_released" in views_in("silver_next")

    warehouse.build(DAYS[2], "alone")
    version = tables.head("gold_next.alone")
    runs = ops.read("ops.runs").sort_by("ended_at").to_pylist()
    whole = next(run for run in reversed(runs) if run["dataset"] == "warehouse")
    assert dict(whole["versions_out"]) == {"gold_next.alone": version} and tables.head(tables.next_table(GOLD))
    passed = {
        "table_name": "gold.alone",
        "version": version,
        "verdict": "passed",
        "checked_at": dt.datetime.now(dt.UTC),
    }
    ops.append("ops.gate_results", [passed])
    release.release(["gold.alone"], DAYS[2])
    assert sql("select number from gold.alone").collect() == [(1,)]
    assert "turned_down" not in columns("silver.stg_planes") and "stg_never_released" not in views_in("silver")

    monkeypatch.setattr(warehouse, "unchanged", lambda *_: [])
    warehouse.build(DAYS[2], "+dim_planes alone")
    for part, other in ((GOLD, "gold.alone"), ("gold.alone", GOLD)):
        for refused in (gate, release.release):
            with pytest.raises(unreleased.PartOfBuildError, match=f"the same build has written {other}"):
                refused([part], DAYS[2])
    assert set(warehouse.prepare(DAYS[2])) == {GOLD, "gold.alone"}


def test_a_table_whose_properties_have_other_columns_is_refused_and_what_waits_for_its_release_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marts = project_of_its_own(tmp_path, monkeypatch) / "models" / "marts"

    def declare(*columns: tuple[str, str]) -> None:
        declared = [{"name": name, "data_type": type_, "description": "A number."} for name, type_ in columns]
        model = ALONE | {"name": "pair", "columns": declared, "config": {"meta": {"statistics": ["one"]}}}
        (marts / "pair.yml").write_text(yaml.safe_dump({"version": 2, "models": [model]}))

    (marts / "pair.sql").write_text("select cast(1 as int) as one, cast(2 as int) as two")
    declare(("one", "int"), ("two", "int"))
    warehouse.build(DAYS[2], "pair")
    version = tables.head("gold_next.pair")
    for other in ([("two", "int"), ("one", "int")], [("one", "int"), ("two", "bigint")], [("one", "int")]):
        declare(*other)
        with pytest.raises(warehouse.OtherColumnsError, match=r"has the columns one integer, two integer, and"):
            warehouse.build(DAYS[2], "pair")
    with pytest.raises(dbt_project.BuildFailedError, match="matches the selection 'piar'"):
        warehouse.build(DAYS[2], "piar")
    assert tables.head("gold_next.pair") == version
    declare(("two", "int"), ("one", "int"))
    warehouse.build(DAYS[2], "pair", full_refresh=True)
    assert [row.asDict() for row in sql("select * from gold_next.pair").collect()] == [{"two": 2, "one": 1}]
    with pytest.raises(warehouse.OtherColumnsError):  # what was made anew and not released would be taken back first
        warehouse.build(DAYS[2], "pair")
    declare(("one", "int"), ("two", "int"))
    warehouse.build(DAYS[2], "pair")
    assert [row.asDict() for row in sql("select * from gold_next.pair").collect()] == [{"one": 1, "two": 2}]
    assert warehouse.prepare(DAYS[2]) == ["gold.pair"]


def test_a_view_of_a_view_is_released_as_one_and_read_as_of_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = project_of_its_own(tmp_path, monkeypatch) / "models" / "staging"
    query = staging / "stg_a_view_of_planes.sql"  # which comes before the view that it reads
    for extra in ("", ", 'second' as edition"):
        query.write_text(f"select tail_number{extra} from {{{{ ref('stg_planes') }}}}")
        warehouse.build(DAYS[2], "+dim_planes stg_a_view_of_planes")
        gate([GOLD], DAYS[2])
        released = release.release([GOLD], DAYS[2])
        assert columns("silver.stg_a_view_of_planes") == ["tail_number", *(["edition"] if extra else [])]
        text = release_log.views(released)["silver.stg_a_view_of_planes"]
        assert "silver.stg_planes" in text and "silver_next" not in text
        counted = [sql(as_of(f"select * from silver.{name}", released)).count() for name in ("stg_planes", query.stem)]
        assert counted[0] == counted[1] == sql(f"select * from silver.{query.stem}").count() > 0
    assert "edition" not in sql(as_of(f"select * from silver.{query.stem}", released - 1)).columns


def test_what_breaks_a_data_test_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = project_of_its_own(tmp_path, monkeypatch)
    for file in (project / "tests").iterdir():
        file.unlink()  # the tests of tables that are not built here
    (project / "tests" / "nothing_is_right.sql").write_text("select * from {{ ref('dim_planes') }} limit 1")
    before = tables.head(tables.next_table(GOLD))
    with receiving() as server, pytest.raises(dbt_project.DataTestFailedError, match="nothing_is_right: Got 1 result"):
        warehouse.build(DAYS[2], "+dim_planes")
    asked = told(server.events, "test.warehouse", "FAIL")
    assert server.faults == [] and asked["run"]["facets"]["errorMessage"]["message"].endswith(": nothing_is_right")
    whole = told(server.events, "build.warehouse", "FAIL")
    assert asked["run"]["facets"]["parent"]["run"]["runId"] == whole["run"]["runId"]
    assert assertions(asked) == {GOLD: [("nothing_is_right", False, "critical")]}
    assert not unreleased.pending(GOLD) and tables.head(tables.next_table(GOLD)) != before
    with pytest.raises(unreleased.WithdrawnError, match="withdrawn by the step build"):
        gate([GOLD], DAYS[2])

    # In Airflow they are a task of their own, after the gate.
    warehouse.prepare(DAYS[2])
    (project / "tests" / "nothing_is_right.sql").rename(tmp_path / "aside.sql")
    build(DAYS[2])
    gate([GOLD], DAYS[2])
    (tmp_path / "aside.sql").rename(project / "tests" / "nothing_is_right.sql")
    with receiving() as server, pytest.raises(dbt_project.DataTestFailedError, match="nothing_is_right"):
        warehouse.test(DAYS[2])
    assert assertions(told(server.events, "test.warehouse", "FAIL")) == {
        GOLD: [("nothing_is_right", False, "critical")]
    }
    assert not unreleased.pending(GOLD)
    with pytest.raises(unreleased.WithdrawnError, match="withdrawn by the step test"):
        release.release([GOLD], DAYS[2])


def assertions(event: dict[str, Any]) -> dict[str, list[tuple[str, bool, str]]]:
    """What an event tells of the quality of its inputs."""
    facets = {each["name"]: each.get("inputFacets", {}).get("dataQualityAssertions") for each in event["inputs"]}
    return {
        name: [(each["assertion"], each["success"], each["severity"]) for each in facet["assertions"]]
        for name, facet in facets.items()
        if facet
    }


def test_days_whose_build_was_taken_back_are_built_again_from_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def published() -> int:
        warehouse.build(DAYS[2], "+dim_planes")
        gate([GOLD], DAYS[2])
        return release.release([GOLD], DAYS[2])

    first = published()
    with monkeypatch.context() as patched:
        staging = project_of_its_own(tmp_path, patched) / "models" / "staging" / "stg_planes.sql"
        staging.write_text(staging.read_text().replace("seats,", "-1 as seats,"))
        warehouse.build(DAYS[2], "+dim_planes")
        with pytest.raises(GateFailedError):
            gate([GOLD], DAYS[2])
    second = published()
    assert second > first
    rollback(str(second))
    assert published() > second


def test_a_statement_that_outlives_its_build_is_not_released_with_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(warehouse, "unchanged", lambda *_: [])
    warehouse.build(DAYS[2], "+dim_planes")
    late = {"run_id": "killed", "step": "build", "interval": str(DAYS[2])}
    warehouse.run_dbt(DAYS[2], ["dim_planes"], reads=warehouse.sources(), commit=late)
    for refused in (gate, release.release):
        with pytest.raises(unreleased.UnfinishedWriteError, match=rf"the step build {DAYS[2]} \(run killed\)"):
            refused([GOLD], DAYS[2])
    warehouse.build(DAYS[2], "+dim_planes")
    gate([GOLD], DAYS[2])


def recorded(run_id: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The row of a build that a run of the DAG has done, model by model."""
    monkeypatch.setenv("AIRFLOW_CTX_DAG_RUN_ID", run_id)
    warehouse.record(DAYS[2])
    runs = ops.read("ops.runs").sort_by("ended_at").to_pylist()
    return next(run for run in reversed(runs) if run["dataset"] == "warehouse")


def test_what_the_tasks_of_a_dag_have_built_is_recorded_with_what_it_has_read(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = warehouse.sources()
    # What was rolled back to is what would be made again.
    monkeypatch.setattr(warehouse, "unchanged", lambda *_: [])
    warehouse.prepare(DAYS[2])
    commit = {"run_id": "scheduled", "step": "build", "interval": str(DAYS[2])}
    warehouse.run_dbt(DAYS[2], ["+dim_planes"], reads=reads, commit=commit)
    publish(DAYS[3])
    head = tables.head(tables.next_table(GOLD))
    assert dict(recorded("scheduled", monkeypatch)["versions_in"])[tables.next_table(SOURCE)] == reads[SOURCE]
    assert tables.head(tables.next_table(GOLD)) == head, "it was built again"
    assert head is not None and read_by(head) == reads[SOURCE]
    assert gate([GOLD], DAYS[2]) == {GOLD: head}


def test_models_that_have_read_several_states_are_built_again_from_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    built = {
        GOLD: {"reads": {SOURCE: 1, "bronze.weather": 5}},
        "gold.fct_flights": {"reads": {SOURCE: 2, "bronze.weather": 5}},
    }
    builds: list[dict[str, int]] = []
    monkeypatch.setattr(warehouse, "_built", lambda _run: built)

    def run_dbt(*_arguments: Any, **named: Any) -> dbt_project.Outcome:
        builds.append(named["reads"])
        return dbt_project.Outcome()

    monkeypatch.setattr(warehouse, "run_dbt", run_dbt)
    caplog.set_level("INFO", "lakehouse")
    run = Run("build", "warehouse", DAYS[3])
    assert warehouse._settle(DAYS[3], run) == warehouse.sources()
    assert builds == [warehouse.sources()]
    assert f"{SOURCE}: released before some models were built by themselves; it is built again" in caplog.messages
    del built["gold.fct_flights"]
    assert warehouse._settle(DAYS[3], run) == {SOURCE: 1, "bronze.weather": 5}
    assert len(builds) == 1

"""Which version of a quarantine goes with a version of its table, by what the commits say; no engine is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake

from lakehouse import dbt_project, ops, release_log, tables
from lakehouse.interval import Interval
from lakehouse.landing import quarantine
from lakehouse.releases import unreleased
from lakehouse.releases.unreleased import (
    PartOfBuildError,
    UnfinishedWriteError,
    refuse_part_of_build,
    refuse_unfinished,
    unfinished,
)
from lakehouse.tables import VersionGoneError

TABLE, STORED, QUARANTINE = "bronze.made_up", "bronze_next.made_up", "quarantine.made_up"


@pytest.fixture(autouse=True)
def _lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    for stored in (STORED, QUARANTINE):
        assert put(stored) == 0


def put(stored: str, run_id: str | None = None, **facts: Any) -> int:
    """A commit that replaces all rows."""
    said = CommitProperties(custom_metadata={"userMetadata": json.dumps({"run_id": run_id, **facts})})
    rows = pa.Table.from_pandas(pd.DataFrame({"run": [run_id or ""]}), preserve_index=False)
    write_deltalake(tables.location(stored), rows, mode="overwrite", commit_properties=said)
    version = tables.head(stored)
    assert version is not None
    return version


def land(run_id: str, bad: bool = True, step: str = "land") -> tuple[int, int]:
    """Both commits of a landing, or of one without bad rows the first."""
    before = tables.head(QUARANTINE)
    version = put(STORED, run_id, step=step, interval="2020-01-01", goes_with={QUARANTINE: before})
    return version, put(QUARANTINE, run_id) if bad else before or 0


def goes_with(version: int) -> int | None:
    return quarantine.beside(TABLE, [version])[version]


def test_it_is_what_the_step_has_left_or_found() -> None:
    first = land("a")
    none_bad = land("b", bad=False)
    second = land("c")
    assert quarantine.beside(TABLE, [first[0], none_bad[0], second[0]]) == dict([first, none_bad, second])
    assert none_bad[1] == first[1] and goes_with(0) is None
    assert quarantine.beside("gold.made_up", [1]) == {1: None}


def test_what_maintenance_has_made_has_the_bad_rows_of_what_it_was_made_of() -> None:
    version, bad = land("a")
    land("b")
    restored = put(STORED, "rollback", restored=version)
    compacted = put(STORED, "maintain", compacted=restored)
    twice = put(STORED, "maintain again", compacted=compacted)
    assert goes_with(restored) == goes_with(compacted) == goes_with(twice) == bad
    expired = put(STORED, "third", expired=twice)
    assert goes_with(expired) == bad  # of the days that are still kept
    without_old_days = put(QUARANTINE, "third", expired=bad)
    assert goes_with(expired) == without_old_days


def test_a_step_that_has_taken_something_back_at_first_has_not_written_what_was_there_then() -> None:
    version, bad = land("a")
    land("b")
    restored = put(STORED, "c", restored=version)
    put(QUARANTINE, "c", restored=bad)
    after = land("c")
    assert (goes_with(restored), goes_with(after[0])) == (bad, after[1])


def test_a_version_whose_quarantine_is_gone_cannot_be_gone_back_to() -> None:
    version, bad = land("a")
    file = tables.delta(QUARANTINE, bad)
    assert file is not None
    [uri] = file.file_uris()
    quarantine.check_kept(TABLE, version)
    Path(uri).rename(Path(uri).with_suffix(".aside"))
    quarantine.check_kept(TABLE, version)  # it is the newest, which nothing has to be copied from
    land("b")
    with pytest.raises(VersionGoneError, match=rf"Version {bad} of {QUARANTINE} can no longer be read"):
        quarantine.check_kept(TABLE, version)


def ended(run_id: str, status: str = "success") -> None:
    ops.append("ops.runs", [{"run_id": run_id, "status": status}])


@pytest.mark.parametrize("step", unreleased.STEPS_THAT_NAME_THEIR_RUN)
def test_rows_of_a_step_that_has_not_come_to_its_end_are_refused(step: str) -> None:
    land("a", step=step)
    with pytest.raises(UnfinishedWriteError, match=rf"{TABLE}: the step {step} 2020-01-01 \(run a\)"):
        refuse_unfinished([TABLE])
    ended("a", "failed")
    with pytest.raises(UnfinishedWriteError):
        refuse_unfinished([TABLE])
    land("b", step="replay")
    ended("b")
    assert (unfinished(TABLE) or {})["run_id"] == "a"  # on whose rows the other has built
    ended("a")
    refuse_unfinished([TABLE])


def test_of_all_runs_those_are_read_that_have_written(monkeypatch: pytest.MonkeyPatch) -> None:
    read, brought = ops.read, []

    def spy(table: str, *arguments: Any, **more: Any) -> Any:
        found = read(table, *arguments, **more)
        brought.extend(found["run_id"].to_pylist() if table == "ops.runs" else ())
        return found

    land("a")
    for run_id in ("before", "a", "after"):
        ended(run_id)
    monkeypatch.setattr(ops, "read", spy)
    refuse_unfinished([TABLE])
    assert brought == ["a"]


def test_what_the_tasks_of_a_dag_have_built_is_whole_when_its_build_is_recorded() -> None:
    of_the_dag = {"status": "success", "airflow_run_id": "run of the DAG"}
    ops.append("ops.runs", [of_the_dag | {"run_id": "model", "step": "build", "dataset": TABLE}])
    land("run of the DAG", step="build")
    with pytest.raises(UnfinishedWriteError, match=r"the step build 2020-01-01 \(run run of the DAG\)"):
        refuse_unfinished([TABLE])
    ops.append("ops.runs", [of_the_dag | {"run_id": "whole", "step": "build", "dataset": "warehouse"}])
    refuse_unfinished([TABLE])
    put(STORED, step="build")  # by a dbt that a person has started
    refuse_unfinished([TABLE])


def test_a_part_of_a_build_is_not_released_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = names = [f"gold.{name}" for name in ("one", "two", "three")]
    monkeypatch.setattr(dbt_project, "stored_models", lambda: names)
    for name in names:
        put(tables.next_table(name))
        put(tables.next_table(name), "another build" if name == three else "the build", step="build")
    day = Interval.parse("2020-01-01")
    with pytest.raises(PartOfBuildError, match=f"the same build has written {two}, .*`lake gate {one} {two} --int"):
        refuse_part_of_build([one], day)
    refuse_part_of_build([one, two], day)
    refuse_part_of_build([three], day)
    put(tables.next_table(two), "gate", restored=0)  # it was taken back
    refuse_part_of_build([one], day)
    refuse_part_of_build([TABLE], day)


def test_what_is_released_or_was_taken_back_may_have_been_left_unfinished() -> None:
    version, _ = land("a")
    ops.append(release_log.LOG, [{"release_id": 1, "table_name": TABLE, "version": version}])
    refuse_unfinished([TABLE])
    land("b")
    put(STORED, "gate", restored=version)
    put(STORED, "c", step="land")
    ended("c")
    refuse_unfinished([TABLE])

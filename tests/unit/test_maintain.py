"""Maintenance: what is needed and by what, and that nothing else is kept, and nothing that is needed goes."""

from __future__ import annotations

import datetime as dt
import json
import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import CommitProperties, write_deltalake
from deltalake.exceptions import DeltaError
from typer.testing import CliRunner

from lakehouse import cli, contracts, locks, ops, release_log, tables
from lakehouse.interval import Interval
from lakehouse.maintenance import compaction, maintain, retention
from lakehouse.maintenance.maintain import MaintenanceError, needed_by_models, needed_by_releases, plan
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.registry import registry
from lakehouse.releases import fingerprints, release, unreleased
from lakehouse.steps import Run

NOW = dt.datetime.now(dt.UTC)
TABLE, STORED, ANOTHER = "gold.made_up", "gold_next.made_up", "gold.another"
PREDICTIONS, WHAT_IF = "ml.predictions_flight_delay", "ml_what_if.predictions_flight_delay"


@pytest.fixture(autouse=True)
def _lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    monkeypatch.setattr(registry, "registered", lambda: [])
    monkeypatch.setattr(locks, "writer", lambda name, **_: nullcontext(SimpleNamespace(check=lambda: None, token=1)))


def put(number: int, table: str = TABLE, **columns: Any) -> int:
    """A new version whose rows replace all others."""
    rows = pd.DataFrame({"number": [number] * 50, **columns})
    stored = tables.next_table(table)
    write_deltalake(tables.location(stored), pa.Table.from_pandas(rows, preserve_index=False), mode="overwrite")
    version = tables.head(stored)
    assert version is not None
    return version


def row(release_id: int, version: int, days_ago: float, table: str = TABLE) -> dict[str, Any]:
    at = NOW - dt.timedelta(days=days_ago)
    return {"release_id": release_id, "table_name": table, "version": version, "released_at": at}


def model(number: int, version: int, **tags: str) -> registry.ModelVersion:
    return registry.ModelVersion("late", number, "run", (), {f"version.{TABLE}": str(version), "seed": "1", **tags})


def plans(days: int = 0) -> dict[str, maintain.Plan]:
    return {each.table: each for each in plan(days, grace_hours=0)}


def files(version: int, table: str = TABLE) -> set[str]:
    stored = tables.next_table(table)
    return {f"{tables.location(stored)}/{name}" for name in fingerprints.data_files(stored, version)}


def test_what_readers_have_seen_within_the_time_is_needed() -> None:
    log = [row(1, 1, 50), row(2, 2, 40), row(3, 3, 20), row(4, 4, 10), row(5, 9, 45, "gold.other")]
    log.sort(key=lambda one: one["release_id"])
    assert needed_by_releases(log, NOW - dt.timedelta(days=30)) == {
        TABLE: {2: ["release 2"], 3: ["release 3"], 4: ["release 4, which readers see"]},  # 2 was seen until day 20
        "gold.other": {9: ["release 5, which readers see"]},
    }
    assert needed_by_releases(log, NOW)[TABLE].keys() == {4}


def test_what_models_were_trained_on_is_needed_until_they_are_archived() -> None:
    versions = [model(1, 5), model(2, 6, archived="true"), model(3, 7, archived="false")]
    assert needed_by_models(versions) == [
        (TABLE, 5, "model late version 1"), (TABLE, 7, "model late version 3"),
    ]  # fmt: skip


def test_only_the_files_of_needed_versions_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [put(number) for number in range(7)]
    assert versions == list(range(7))
    ops.append(release_log.LOG, [row(1, 1, 9), row(2, 2, 8), row(3, 3, 3), row(4, 4, 1)])
    monkeypatch.setattr(registry, "registered", lambda: [model(1, 1), model(2, 2, archived="true")])
    found = plans()[TABLE]
    assert set(found.files) == files(0) | files(2) | files(3) | files(5)  # 6 is the newest: not released yet
    assert [(pin.version, pin.why) for pin in found.pinned] == [
        (1, ("model late version 1",)),
        (4, ("release 4, which readers see",)),
    ]
    assert found.bytes == sum(Path(path).stat().st_size for path in found.files)
    assert all(pin.bytes == sum(Path(path).stat().st_size for path in files(pin.version)) for pin in found.pinned)
    maintain._remove(found.files)
    maintain._remove(found.files)  # again, as after a run that was killed
    assert plans()[TABLE].files == {}
    for version in (1, 4, 6):
        tables.check_kept(STORED, version)


def test_a_dry_run_says_what_would_be_done_what_is_kept_by_what_and_how_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(5):
        put(number)
    for each in (row(1, 1, 9), row(2, 3, 8), row(3, 4, 1)):
        ops.append(release_log.LOG, [each])
    monkeypatch.setattr(registry, "registered", lambda: [model(7, 1)])
    monkeypatch.setattr(maintain, "plan", partial(plan, grace_hours=0))
    days = {"days": "2013-03-01/2013-03-02", "files": 9, "bytes": 4321}
    monkeypatch.setattr(maintain, "upcoming", lambda: [maintain.Work(TABLE, "put files together, 9 → 1", **days)])
    there = {path: path.stat().st_size for path in Path(tables.location(STORED)).rglob("*") if path.is_file()}
    arguments = ["maintain", "--dry-run", "--keep-days", "0"]
    said = CliRunner(env={"COLUMNS": "200"}).invoke(cli.command_line(), arguments, catch_exceptions=False).stdout
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines() if line.startswith("│")]
    going = [Path(path) for number in (0, 2, 3) for path in files(number)]
    size = sum(there[path] for path in going)
    log = tables.delta(release_log.LOG)
    assert log is not None
    sizes = log.get_add_actions()["size_bytes"].to_pylist()
    assert len(sizes) == 3
    assert lines == [
        [TABLE, "put files together, 9 → 1", "2013-03-01/2013-03-02", "9", "4321"],
        [release_log.LOG, "put files together", "all", str(len(sizes)), str(sum(sizes))],
        [TABLE, "1", "model late version 7", str(sum(there[Path(path)] for path in files(1)))],
        [TABLE, "4", "release 3, which readers see", "0"],
        [TABLE, str(len(going)), str(size)],
    ]
    assert said.splitlines()[-1] == f"{len(going)} files of {size} bytes would go."
    assert there == {path: path.stat().st_size for path in Path(tables.location(STORED)).rglob("*") if path.is_file()}


def test_what_predictions_were_made_from_is_needed() -> None:
    features = model_folders.load("flight_delay").features.table
    for number in range(5):
        put(number, features)
    # Of a scoring that has left no record it is told by the release.
    made = put(0, PREDICTIONS, model_name=["flight_delay"] * 50, release_id=[2] * 25 + [4] * 25, run_id=["lost"] * 50)
    of_gone = put(1, "ml.predictions_gone", model_name=["gone"] * 50, release_id=[1] * 50, run_id=["lost"] * 50)
    for run_id in ("replaced", "asked"):
        put(2, WHAT_IF, model_name=["flight_delay"] * 50, release_id=[2] * 50, run_id=[run_id] * 50)
    read = [(tables.next_table(features), 3)]
    ops.append("ops.runs", [{"run_id": "asked", "step": "what_if", "versions_in": read}])
    ops.append(
        release_log.LOG,
        [
            row(1, 0, 9, features), row(2, 1, 8, features), row(3, 2, 7, features), row(4, 4, 6, features),
            row(5, made, 5, PREDICTIONS), row(6, of_gone, 4, "ml.predictions_gone"),
        ],
    )  # fmt: skip

    def wrong(name: str) -> Any:
        raise InvalidModelError(f"{name}: a typing error")

    found = plans()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_folders, "load", wrong)
        careful = {(pin.version, why) for pin in plans()[features].pinned for why in pin.why}
    assert careful >= {(pin.version, why) for pin in found[features].pinned for why in pin.why}
    assert [(pin.version, pin.why) for pin in found[features].pinned] == [
        (0, ("ml.predictions_gone, scored on release 1",)),
        (1, (f"{PREDICTIONS}, scored on release 2",)),
        (3, (f"{WHAT_IF}, scored on release 2",)),
        (4, ("release 4, which readers see", f"{PREDICTIONS}, scored on release 4")),
    ]
    assert set(found[features].files) == files(2, features)
    assert set(found[WHAT_IF].files) == files(0, WHAT_IF)
    assert [pin.version for pin in found[WHAT_IF].pinned] == [1]


def test_the_quarantine_of_a_kept_version_is_kept_with_it() -> None:
    bronze, quarantine = "bronze.made_up", "quarantine.made_up"

    def commit(number: int, table: str, **facts: Any) -> int:
        said = CommitProperties(custom_metadata={"userMetadata": json.dumps(facts)})
        rows = pa.table({"number": [number] * 50})
        write_deltalake(tables.location(tables.next_table(table)), rows, mode="overwrite", commit_properties=said)
        return tables.head(tables.next_table(table)) or 0

    pairs = []
    for number in range(5):
        beside = {quarantine: tables.head(quarantine)}
        version = commit(number, bronze, run_id=f"run {number}", step="land", interval="2020-01-01", goes_with=beside)
        pairs.append((version, commit(number, quarantine, run_id=f"run {number}")))
    compacted = commit(5, bronze, run_id="maintain", compacted=pairs[3][0])
    ages = [(1, pairs[0][0], 50), (2, pairs[1][0], 20), (3, pairs[2][0], 10), (4, compacted, 1)]
    ops.append(release_log.LOG, [row(number, version, ago, bronze) for number, version, ago in ages])
    found = plans(15)
    kept = {pin.version: pin.why for pin in found[quarantine].pinned}
    assert kept == {
        pairs[1][1]: (f"{bronze} version {pairs[1][0]}",),
        pairs[2][1]: (f"{bronze} version {pairs[2][0]}",),
        pairs[3][1]: (f"{bronze} version {compacted}",),
        pairs[4][1]: ("the newest version",),
    }


def test_what_was_left_by_killed_writes_goes_and_checksums_go_with_their_files() -> None:
    for number in range(2):
        put(number)
    ops.append(release_log.LOG, [row(1, 1, 1)])
    folder = Path(tables.location(STORED))
    left = folder / "part-left.parquet"
    left.write_bytes(b"x")
    (gone,), (kept,) = ([Path(path) for path in files(version)] for version in (0, 1))
    for file in (left, gone, kept):
        (folder / f".{file.name}.crc").write_bytes(b"crc")
        os.utime(folder / f".{file.name}.crc", (0, 0))
    os.utime(left, (0, 0))
    found = plans()[TABLE].files
    assert {str(left), str(gone)} <= set(found)
    assert str(kept) not in found and str(folder / f".{kept.name}.crc") not in found
    assert plan(0)[0].files.keys().isdisjoint({str(gone)})  # removed less than a day ago: it may be in use


def test_when_it_is_not_certain_what_is_needed_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        put(number)
    ops.append(release_log.LOG, [row(1, 3, 1)])
    monkeypatch.setattr(registry, "registered", lambda: [model(1, 2)])
    entry = Path(tables.location(STORED)) / "_delta_log" / f"{1:020}.json"
    entry.write_text("{")
    with pytest.raises(MaintenanceError, match=r"(?s)Version \d of gold_next\.made_up is needed .* Nothing is removed"):
        plan(0)


def test_the_platforms_own_tables_are_one_file_again_with_the_same_rows() -> None:
    for number in range(30):
        ops.append(release_log.LOG, [row(number, number, 1)])
    before = release_log.history()
    [work] = maintain.upcoming_ops()
    assert (work.table, work.files) == (release_log.LOG, 30)
    assert maintain.compact_ops(release_log.LOG, grace_hours=0) == (30, 1)
    assert maintain.upcoming_ops() == []
    assert release_log.history() == before
    folder = Path(tables.location(release_log.LOG))
    assert len(list(folder.glob("*.parquet"))) == 1
    assert maintain.compact_ops("ops.profiles") is None
    ops.append(release_log.LOG, [row(30, 30, 1)])
    assert len(release_log.history()) == 31


def test_the_versions_of_a_table_that_no_release_shows_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    days = Interval.parse("2013-03-01/2013-03-02")
    old = SimpleNamespace(days=days)
    monkeypatch.setattr(retention, "outdated", lambda *_: old)
    monkeypatch.setattr(retention, "forget", lambda *_: put(2, WHAT_IF))
    run, spec = Run("maintain", "the lake", None), model_folders.load("flight_delay")
    before = put(1, WHAT_IF)
    assert maintain._renew_without_release(WHAT_IF, spec, NOW.date(), run) == {"expired": str(days)}
    assert (run.versions_in, run.versions_out) == ({WHAT_IF: before}, {WHAT_IF: before + 1})

    contract = SimpleNamespace()
    monkeypatch.setattr(contracts, "load", lambda _source: contract)
    monkeypatch.setattr(retention, "first_kept", lambda *_: NOW.date())
    monkeypatch.setattr(retention, "planned", lambda *_: {"quarantine.planes": old})
    monkeypatch.setattr(retention, "expire", lambda stored, *_: put(2, stored))
    monkeypatch.setattr(unreleased, "pending", lambda _table: False)
    monkeypatch.setattr(unreleased, "withdraw", lambda *_: None)
    monkeypatch.setattr(compaction, "planned", lambda _table: None)
    before, run = put(1, "quarantine.planes"), Run("maintain", "the lake", None)
    put(1, "bronze.planes")
    assert maintain._renew("bronze.planes", NOW.date(), run) == {}
    assert (run.versions_in, run.versions_out) == ({"quarantine.planes": before}, {"quarantine.planes": before + 1})


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Two tables that have been released once."""
    names = (ANOTHER, TABLE)
    for table in names:
        ops.append(release_log.LOG, [row(1, put(1, table), 1, table)])
    fingerprints.record(dict.fromkeys(names, 0), "before")
    monkeypatch.setattr(release, "writers", lambda _names: nullcontext({}))
    monkeypatch.setattr(release, "catch_up", lambda: [])
    monkeypatch.setattr(unreleased, "withdraw", lambda *_: None)
    monkeypatch.setattr(release, "_point", lambda *_: None)
    monkeypatch.setattr(release, "_next_id", lambda: 2)
    monkeypatch.setattr(compaction, "planned", lambda _table: SimpleNamespace(days="some days"))
    monkeypatch.setattr(compaction, "compact", lambda table, _run: put(2, table))
    monkeypatch.setattr(maintain, "compact_ops", lambda *_: None)
    return names


def commits() -> dict[str, int]:
    found = {table: tables.head(table) for table in ("ops.releases", "ops.runs", fingerprints.LOG)}
    return {table: 0 if version is None else version + 1 for table, version in found.items()}


def test_what_a_maintenance_has_done_to_many_tables_is_one_release_and_one_run(
    two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain, "CHECKPOINT_COMMITS", 1)
    before, days = commits(), dict.fromkeys(two, "some days")
    assert maintain.maintain(30)["compacted"] == days
    assert {table: count - before[table] for table, count in commits().items()} == dict.fromkeys(before, 1)
    assert {table: each.version for table, each in release_log.released().items()} == dict.fromkeys(two, 1)
    assert release_log.history()[-1]["reason"] == f"maintenance: small files put together of {ANOTHER}, {TABLE}"
    [run] = ops.read("ops.runs").to_pylist()
    stored = [tables.next_table(table) for table in two]
    assert (dict(run["versions_in"]), dict(run["versions_out"])) == (dict.fromkeys(stored, 0), dict.fromkeys(stored, 1))
    assert json.loads(run["details"])["compacted"] == days
    for table in two:
        rows = [each for each in ops.read(fingerprints.LOG).to_pylist() if each["table_name"] == table]
        assert not list(fingerprints.check(table, [1], rows))
        assert any("checkpoint" in entry["path"] for each in rows for entry in each["log_entries"])


@pytest.mark.parametrize("error", [compaction.ChangedRowsError, DeltaError])
def test_what_was_done_before_a_table_that_fails_is_shown(
    two: tuple[str, str], monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def compact(table: str, _run: Run) -> int:
        if table == TABLE:
            raise compaction.ChangedRowsError("other rows")
        version = put(2, table)
        put(3, table)  # of somebody who has lost the lock: it is not what maintenance has made
        return version

    monkeypatch.setattr(compaction, "compact", compact)
    if error is DeltaError:
        [entry] = Path(tables.location(STORED)).glob("_delta_log/*0.json")
        entry.write_text(entry.read_text()[:-20])
    with pytest.raises(error):
        maintain.maintain(30)
    assert {table: each.version for table, each in release_log.released().items()} == {ANOTHER: 1, TABLE: 0}


def test_a_run_checks_the_locks_of_all_tables_that_nobody_may_write_meanwhile() -> None:
    def stale() -> None:
        raise locks.StaleWriterError("taken over")

    good, bad = SimpleNamespace(check=lambda: None), SimpleNamespace(check=stale)
    Run("release", TABLE, None, lock=good, beside=[good]).check_lock()  # type: ignore[arg-type, list-item]
    with pytest.raises(locks.StaleWriterError):
        Run("release", TABLE, None, lock=good, beside=[good, bad]).check_lock()  # type: ignore[arg-type, list-item]


def test_a_table_with_rows_that_wait_is_left_as_it_is(two: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    put(2, TABLE)
    monkeypatch.setattr(compaction, "planned", lambda _: SimpleNamespace(days="some days", files=[], parts=1, bytes=0))
    put_together, waits = maintain.upcoming()
    assert (put_together.table, put_together.what) == (ANOTHER, "put files together, 0 → 1")
    assert (waits.table, waits.files) == (TABLE, 0) and "have not been released" in waits.what
    monkeypatch.setattr(maintain, "CHECKPOINT_COMMITS", 1)
    assert maintain.maintain(30)["compacted"] == {ANOTHER: "some days"}
    assert fingerprints.newest_checkpoint(tables.next_table(TABLE)) is None

"""Maintenance on the engine: rows stay, files become few, old days go, and a kill at any point harms nothing."""

from __future__ import annotations

import datetime as dt
import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lakehouse import ops, release_log, table_days, tables
from lakehouse.data_files import data_files
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.maintenance import compaction, maintain, retention
from lakehouse.maintenance.compaction import ChangedRowsError
from lakehouse.maintenance.verify import DamagedError, verify
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec, Serving
from lakehouse.ml.predictions import create_table, lineage
from lakehouse.ml.scoring import LINEAGE
from lakehouse.provenance.impact import impact
from lakehouse.provenance.ledger import Ledger, ranges
from lakehouse.registry import registry
from lakehouse.release_log import Released, released
from lakehouse.releases import release as releases
from lakehouse.releases import unreleased
from lakehouse.releases.audit import gate
from lakehouse.releases.release import release
from lakehouse.releases.rollback import rollback
from lakehouse.steps import job, step
from tests.openlineage_receiver import receiving, told, versions_of
from tests.spark.apart import Apart
from tests.spark.made_up import put
from tests.spark.orders import Orders
from tests.spark.sources import new_source as new_source

land = job("land")
SOURCE, BRONZE = "flight_schedule", "bronze.flight_schedule"  # which no other test on this engine lands
DAYS = [Interval.parse(f"2013-01-{day:02}") for day in range(11, 15)]
FIRST_KEPT = DAYS[1].start


def only(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    """Of this table alone: those that other tests have left may have been damaged or removed by them."""
    everything = release_log.history
    monkeypatch.setattr(release_log, "history", lambda: [row for row in everything() if row["table_name"] == table])
    monkeypatch.setattr(compaction, "FEW_FILES", 3)
    monkeypatch.setattr(registry, "registered", lambda: [])


def release_unchecked(table: str, version: int, interval: Interval) -> int:
    """Release what a step has written as if its gate had let it pass."""
    now = dt.datetime.now(dt.UTC)
    ops.append("ops.gate_results", [{"table_name": table, "version": version, "verdict": "passed", "checked_at": now}])
    return release([table], interval)


def rows(table: str) -> list[Any]:
    return sorted(sql(f"select * from {table}").collect(), key=str)


def heads(*stored: str) -> dict[str, int | None]:
    return {table: tables.head(table) for table in stored}


def named() -> tuple[dict[str, int], dict[str, int]]:
    """The versions that the last maintenance says it has found and made."""
    runs = [run for run in ops.read("ops.runs").sort_by("ended_at").to_pylist() if run["step"] == "maintain"]
    return dict(runs[-1]["versions_in"]), dict(runs[-1]["versions_out"])


@pytest.fixture
def many(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> Orders:
    """Two releases, the second of four days with a file each."""
    only(monkeypatch, orders.table)
    monkeypatch.setattr(table_days, "interval_column", lambda _table: "day")
    orders.publish("2013-03-01")
    for day in range(2, 6):
        interval = orders.write(f"2013-03-{day:02}", rows=day)
    gate([orders.table], interval)
    release([orders.table], interval)
    return orders


def test_small_files_become_one_with_the_same_rows_and_the_same_past(many: Orders) -> None:
    before, shown = released()[many.table], rows(many.table)
    assert maintain.upcoming()[0].files == len(data_files(many.stored, "day")) >= 5
    outcome = maintain.maintain(30, grace_hours=0)
    assert outcome["compacted"] == {many.table: "2013-03-01/2013-03-05"}
    after = released()[many.table]
    assert (after.version, after.release_id > before.release_id) == (before.version + 1, True)
    assert rows(many.table) == shown
    [file] = data_files(many.stored, "day", after.version)
    assert (file.rows, file.first, file.last) == (24, dt.date(2013, 3, 1), dt.date(2013, 3, 5))
    verify([many.table])
    ledger = Ledger.read()
    assert ledger.verdict(many.table, after.version) == ledger.verdict(many.table, before.version) is not None
    assert maintain.maintain(30, grace_hours=0)["compacted"] == {}
    assert released()[many.table] == after

    # The next day goes on from it, and what is undone is what somebody has written.
    many.publish("2013-03-06")
    assert rows(many.table)[: len(shown)] == shown
    rollback(many.table)
    assert rows(many.table) == shown
    assert released()[many.table].version == after.version
    rollback(many.table, release_log.history()[0]["release_id"])
    assert len(rows(many.table)) == 10


def test_rows_that_would_change_are_never_shown(many: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    before, shown = released()[many.table], rows(many.table)
    faithful = compaction.replace

    def faulty(stored: str, query: str, *arguments: Any) -> int:
        return faithful(
            stored, query.replace("select *", "select * except (amount), amount + 1e-9 as amount"), *arguments
        )

    monkeypatch.setattr(compaction, "replace", faulty)
    with pytest.raises(ChangedRowsError, match=rf"{many.stored} where .*are not those of {before.version}"):
        maintain.maintain(30, grace_hours=0)
    assert (released()[many.table], rows(many.table)) == (before, shown)
    assert not unreleased.pending(many.table)


def test_rows_that_wait_for_their_release_are_left_alone(many: Orders) -> None:
    many.write("2013-03-06")
    waiting = tables.head(many.stored)
    assert maintain.maintain(30, grace_hours=0)["compacted"] == {}
    assert tables.head(many.stored) == waiting and unreleased.pending(many.table)


def test_a_log_gets_a_checkpoint_when_many_commits_have_come(many: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    assert maintain.checkpoint([many.table], "a run") == []
    monkeypatch.setattr(maintain, "CHECKPOINT_COMMITS", 4)
    assert maintain.checkpoint([many.table], "a run") == [many.table]
    assert maintain.checkpoint([many.table], "a run") == []
    assert len(rows(many.table)) == 24
    verify([many.table])
    [file] = Path(tables.location(many.stored)).glob("_delta_log/*.checkpoint.parquet")
    content = file.read_bytes()
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.raises(DamagedError, match=rf"1 fault .*\n.*{file.name}: its content has changed"):
        verify([many.table])
    file.write_bytes(content)


FEATURES = "gold.beside_features"


def said(spec: ModelSpec, step_name: str, day: Interval, on: Released, ago: int = 0) -> None:
    """What a model says of a day beside its predictions, in five rows."""
    table = spec.what_if_table if step_name == "what_if" else spec.shadow_table
    create_table(spec, table, {"flight_id": "string", "flight_date": "date"}, decided=True)
    with step(step_name, table, day, writes=table) as run:
        facts = lineage(2, step_name, spec.name, run.run_id, on.release_id)
        facts["scored_at"] -= dt.timedelta(ago)
        values = ", ".join(f"cast('{facts[name]}' as {type_}) as {name}" for name, type_ in LINEAGE.items())
        rows = sql(
            f"select concat('{day}', id) as prediction_id, concat('F', id) as flight_id, date'{day}' as flight_date, "
            f"id / 7 as score, id > 2 as decision, {values} from range(5)"
        )
        run.versions_in = {tables.next_table(on.table): on.version}
        run.versions_out = {table: tables.replace_interval(rows.coalesce(1), table, "flight_date", day, run)}


def test_what_models_say_beside_their_predictions_is_kept_small_and_goes_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model_folders.load("flight_delay").model_copy(update={"name": "beside"})
    specs = {"now": spec}
    monkeypatch.setattr(model_folders, "models", lambda: ["beside"])
    monkeypatch.setattr(model_folders, "load", lambda _name: specs["now"])
    only(monkeypatch, FEATURES)
    features = []
    for number in range(4):
        put(FEATURES, pd.DataFrame({"number": [number]}), tmp_path)
        features.append(released()[FEATURES])
    shadowed, asked, unneeded, _ = features
    for number, ago in enumerate((40, 40, 0, 0, 0)):
        said(spec, "shadow", Interval.parse(f"2013-03-0{min(number, 3) + 1}"), shadowed, ago)  # the last of them twice
    said(spec, "what_if", DAYS[0], asked, ago=40)
    before = {table: rows(table) for table in (spec.shadow_table, spec.what_if_table)}
    assert [len(each) for each in before.values()] == [20, 5]

    [planned] = [work for work in maintain.upcoming() if work.table == spec.shadow_table]
    assert (planned.what, planned.days) == ("put files together, 4 → 1", "2013-03-01/2013-03-04")
    pinned = {pin.version: pin.why for plan in maintain.plan(0, grace_hours=0) for pin in plan.pinned
              if plan.table == FEATURES}  # fmt: skip
    assert pinned[shadowed.version] == (f"{spec.shadow_table}, scored on release {shadowed.release_id}",)
    assert pinned[asked.version] == (f"{spec.what_if_table}, scored on release {asked.release_id}",)
    found = heads(*before)
    outcome = maintain.maintain(0, grace_hours=0)
    assert outcome["compacted"] == {spec.shadow_table: "2013-03-01/2013-03-04"} and outcome["expired"] == {}
    assert named() == ({spec.shadow_table: found[spec.shadow_table]}, heads(spec.shadow_table))
    assert {table: rows(table) for table in before} == before
    folder = Path(tables.location(spec.shadow_table))
    assert len(data_files(spec.shadow_table, "flight_date")) == len(list(folder.glob("*.parquet"))) == 1
    for each in (shadowed, asked):
        tables.check_kept(tables.next_table(FEATURES), each.version)
    with pytest.raises(tables.VersionGoneError):
        tables.check_kept(tables.next_table(FEATURES), unneeded.version)
    assert maintain.maintain(0, grace_hours=0)["files"] == 0

    specs["now"] = spec.model_copy(update={"serving": Serving(unreleased_days=30)})
    works = {work.table: (work.what.split(" that")[0], work.days) for work in maintain.upcoming()}
    assert works == {
        spec.shadow_table: ("delete 10 rows", "2013-03-01/2013-03-02"),
        spec.what_if_table: ("delete 5 rows", str(DAYS[0])),
    }
    found = heads(*before)
    assert maintain.maintain(0, grace_hours=0)["expired"] == {table: days for table, (_, days) in works.items()}
    assert named() == (found, heads(*before)) and found != heads(*before)
    left = [row for row in before[spec.shadow_table] if row["flight_date"] > dt.date(2013, 3, 2)]
    assert (rows(spec.shadow_table), rows(spec.what_if_table)) == (left, [])
    tables.check_kept(tables.next_table(FEATURES), shadowed.version)
    with pytest.raises(tables.VersionGoneError):
        tables.check_kept(tables.next_table(FEATURES), asked.version)
    assert maintain.upcoming() == [] and maintain.maintain(0, grace_hours=0)["files"] == 0


def test_days_that_go_from_quarantine_are_told_beside_those_of_its_table(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("maintained")
    table, stored = f"bronze.{source.name}", (f"bronze_next.{source.name}", f"quarantine.{source.name}")
    for number, day in enumerate(("2020-01-05", "2021-01-05")):
        source.put(day, f"id,person,amount,pieces,day\n{number},Ann,5,1,{day}\n{number + 2},Bo,500,1,{day}\n")
        source.land(day)
        source.publish(day)
    only(monkeypatch, table)
    before = heads(*stored)
    with receiving() as backend:
        outcome = maintain.maintain(0, grace_hours=0, today=dt.date(2021, 6, 1))
    assert outcome["expired"] == {table: "2020-01-05/2020-05-31"}
    assert [len(rows(each)) for each in (table, stored[1])] == [1, 1]
    after = heads(*stored)
    assert [{name: of[name] for name in stored} for of in named()] == [before, after]
    told_of = told(backend.events, "maintain.the lake")
    assert backend.faults == []
    for side, found in (("inputs", before), ("outputs", after)):
        assert {tables.reader_name(each): str(found[each]) for each in stored}.items() <= versions_of(
            told_of[side]
        ).items()


def maintained(where: str) -> None:
    """What a process of its own does, which dies there."""

    def die(module: Any, name: str, after: bool = True) -> None:
        original = getattr(module, name)

        def patched(*arguments: Any, **named: Any) -> None:
            if after:
                original(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(module, name, patched)

    one_by_one = maintain._remove

    def half(files: Any) -> None:
        one_by_one(list(files)[: len(files) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    {
        "after the deletion": lambda: die(retention, "expire"),
        "after its record": lambda: die(releases, "_record"),
        "after the rewriting": lambda: die(compaction, "replace"),
        "before the removal": lambda: die(maintain, "_remove", after=False),
        "in the removal": lambda: setattr(maintain, "_remove", half),
    }[where]()
    with pytest.MonkeyPatch.context() as patch:
        only(patch, BRONZE)
        patch.setattr(retention, "first_kept", lambda _contract, _today: FIRST_KEPT)
        maintain.maintain(0, grace_hours=0)


def killed(where: str) -> None:
    code, errors = Apart(maintained, where).ended()
    assert code == -signal.SIGKILL, errors[-3000:]


def test_days_that_are_no_longer_kept_go_and_a_kill_at_any_point_harms_nothing(
    drop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for interval in DAYS:
        release_unchecked(BRONZE, land(SOURCE, interval)["version"], interval)
    landed = released()[BRONZE].version
    everything = rows(BRONZE)
    kept = [row for row in everything if row["_interval"] >= FIRST_KEPT]
    assert 0 < len(kept) < len(everything)

    killed("after the deletion")
    assert rows(BRONZE) == everything and unreleased.pending(BRONZE)
    killed("after the rewriting")
    assert rows(BRONZE) == everything and unreleased.pending(BRONZE)
    stored, shown = tables.next_table(BRONZE), len(release_log.history())
    killed("after its record")
    assert rows(BRONZE) == everything  # of the views alone: it is recorded already, and shown by the next run
    killed("before the removal")
    assert rows(BRONZE) == kept and len(data_files(stored, "_interval", released()[BRONZE].version)) == 1
    [record] = release_log.history()[shown:]  # days that have gone and files put together: one release
    assert (
        record["reason"]
        == f"maintenance: days that are no longer kept deleted of {BRONZE}; small files put together of {BRONZE}"
    )
    killed("in the removal")
    assert rows(BRONZE) == kept

    only(monkeypatch, BRONZE)
    monkeypatch.setattr(retention, "first_kept", lambda _contract, _today: FIRST_KEPT)
    outcome = maintain.maintain(0, grace_hours=0)
    assert outcome["files"] > 0 and outcome["expired"] == outcome["compacted"] == {}
    assert maintain.maintain(0, grace_hours=0)["files"] == 0
    assert rows(BRONZE) == kept
    verify([BRONZE])
    with pytest.raises(tables.VersionGoneError):
        tables.check_kept(tables.next_table(BRONZE), landed)

    now, ledger = released()[BRONZE].version, Ledger.read()
    days = {ranges(own): write.step for write, own in ledger.owners(BRONZE, now, None)}
    assert days == {str(interval): "land" for interval in DAYS[1:]}
    assert [each["visible_days"] for each in impact(f"{SOURCE}_{DAYS[0]}.csv").tables] == [""]
    assert [each["visible_days"] for each in impact(f"{SOURCE}_{DAYS[1]}.csv").tables] == [str(DAYS[1])]

    # What has come to an end can be landed again, as any day can.
    land(SOURCE, DAYS[0])
    gate([BRONZE], DAYS[0])
    release([BRONZE], DAYS[0])
    assert {row["_interval"] for row in rows(BRONZE)} == {interval.start for interval in DAYS}

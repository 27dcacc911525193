"""Replay: quarantined rows join those that they came with, once, and never without them."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import traceback
from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lakehouse import contracts, ops, readers, release_log, tables
from lakehouse.cli import command_line
from lakehouse.interval import Interval
from lakehouse.landing.batches import RejectedBatchError, parse
from lakehouse.provenance.explain import Explainer, files_of
from lakehouse.provenance.impact import impact
from lakehouse.quality.suites import InvalidSuiteError
from lakehouse.readers import jsonl
from lakehouse.readers.batch import SourceError, UnfitRuleError
from lakehouse.releases import release
from lakehouse.releases.audit import GateFailedError
from lakehouse.releases.unreleased import UnfinishedWriteError
from lakehouse.steps import step
from tests.openlineage_receiver import receiving, told, versions_of
from tests.spark.counters import appending
from tests.spark.sources import BOUNDS, UNIQUE, Source, expect
from tests.spark.sources import new_source as new_source
from tests.spark.test_maintenance import release_unchecked

DAY, NEXT = "2020-01-05", "2020-01-06"
LAYERS = ("bronze", "quarantine")
HEADER = "id,person,amount,pieces,day\n"
WIDE = expect("column_values_to_be_between", column="amount", min_value=0, max_value=1000, mostly=0.5)


def lines(*rows: str) -> str:
    return HEADER + "".join(row + "\n" for row in rows)


def heads(source: Source) -> tuple[int | None, ...]:
    return tuple(tables.head(tables.next_table(f"{layer}.{source.name}")) for layer in LAYERS)


def take_in(source: Source, day: str) -> int:
    """Land a day and release it; the gate is asked about what is replayed."""
    return release_unchecked(f"bronze.{source.name}", source.land(day)["version"], Interval.parse(day))


def behind(source: Source, day: str) -> dict[str, tuple[str, int]]:
    """The files that the visible rows of a day are explained by, each with its hash and rows."""
    table = f"bronze.{source.name}"
    shown = Explainer()._input(table, release_log.released()[table].version, frozenset({dt.date.fromisoformat(day)}))
    return {file["file"]: (file["sha256"], file["rows"]) for _, file in files_of([shown])}


def delivered(source: Source, day: str, rows: int) -> dict[str, tuple[str, int]]:
    """The same of the file that is in the drop folder now."""
    file = source.file(day)
    return {f"{source.name}/{file.name}": (hashlib.sha256(file.read_bytes()).hexdigest(), rows)}


def made_from(source: Source, day: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """What has become of a file: how its landings ended; step, version and visible days of each write of its rows."""
    found = impact(source.file(day).name)
    return [each["status"] for each in found.landings], [
        (each["step"], each["version"], each["visible_days"]) for each in found.tables
    ]


def test_rows_that_pass_now_join_the_interval_and_the_others_stay_with_new_reasons(
    new_source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lakehouse")
    source = new_source("replay_join")
    source.put(
        DAY,
        lines("1,Ann,5,1,2020-01-05", '2,"Bo, jr",500,1,2020-01-05', "3,Cy,5000,x,2020-01-05", "4,Di,7,2,2020-01-05"),
    )
    source.put(NEXT, lines("9,Ed,1,1,2020-01-06"))
    first = take_in(source, DAY)
    take_in(source, NEXT)
    bounds = "expect_column_values_to_be_between(amount, 0..100)"
    assert source.bad("_source_row, _reasons, _codes, _raw, _columns") == [
        {"_source_row": 2, "_reasons": [bounds], "_codes": ["rule"], "_raw": '2,"Bo, jr",500,1,2020-01-05',
         "_columns": HEADER.strip().split(",")},
        {"_source_row": 3, "_reasons": ["pieces: 'x' is not of type INT", bounds], "_codes": ["type", "rule"],
         "_raw": "3,Cy,5000,x,2020-01-05", "_columns": HEADER.strip().split(",")},
    ]  # fmt: skip

    source.rules(UNIQUE, WIDE)
    before = heads(source)
    tried = source.replay(DAY, dry_run=True)
    assert heads(source) == before
    assert "1 quarantined rows would be replayed, 1 would stay: " in caplog.text
    assert "row 3: pieces: 'x' is not of type INT" in caplog.text
    with receiving() as backend, appending() as added:
        outcome = source.replay(DAY)
    event, stored = told(backend.events, f"replay.bronze.{source.name}"), [f"{layer}.{source.name}" for layer in LAYERS]
    assert (backend.faults, added) == ([], {"ops.runs": 1})
    assert versions_of(event["inputs"]) == dict(zip(stored, map(str, before), strict=True))
    assert versions_of(event["outputs"]) == dict(zip(stored, map(str, heads(source)), strict=True))
    assert tried == outcome | {"version": before[0], "unreleased": False} and outcome["unreleased"]
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (4, 3, 1)
    assert outcome["rows_replayed"] == 1
    second = source.publish(DAY)
    assert second > first
    assert source.rows("id, person, _source_row, _source_file", f"bronze.{source.name}") == [
        {"id": 1, "person": "Ann", "_source_row": 1, "_source_file": f"replay_join/replay_join_{DAY}.csv"},
        {"id": 2, "person": "Bo, jr", "_source_row": 2, "_source_file": f"replay_join/replay_join_{DAY}.csv"},
        {"id": 4, "person": "Di", "_source_row": 4, "_source_file": f"replay_join/replay_join_{DAY}.csv"},
        {"id": 9, "person": "Ed", "_source_row": 1, "_source_file": f"replay_join/replay_join_{NEXT}.csv"},
    ]
    wide = "expect_column_values_to_be_between(amount, 0..1000)"
    assert source.bad() == [
        {"_source_row": 3, "_reasons": ["pieces: 'x' is not of type INT", wide], "_codes": ["type", "rule"]}
    ]
    recorded = ops.read("ops.runs").filter(ops_is(source, "replay")).to_pylist()[-1]
    assert (recorded["rows_in"], recorded["rows_out"], recorded["rows_quarantined"]) == (4, 3, 1)

    before = heads(source)
    again = source.replay(DAY)
    assert (again["rows_replayed"], again["rows_quarantined"], again["unreleased"]) == (0, 1, False)
    assert source.publish(DAY) == source.publish(NEXT) == second
    assert heads(source) == before

    source.put(DAY, lines("1,Ann,5,1,2020-01-05"))
    take_in(source, DAY)
    assert [row["id"] for row in source.rows("id")] == [1, 9]
    assert source.bad() == []


def ops_is(source: Source, step: str) -> Any:
    return (pc.field("dataset") == f"bronze.{source.name}") & (pc.field("step") == step)


def test_a_batch_that_was_rejected_whole_replaces_what_was_there_of_its_day(new_source: Any) -> None:
    source = new_source("replay_whole")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05"))
    take_in(source, DAY)
    landed = tables.head(tables.next_table(f"bronze.{source.name}"))
    source.put(
        DAY,
        lines(
            "1,Ann,500,1,2020-01-05", "2,Secret Name,500,1,2020-01-05", "3,Cy,-1,1,2020-01-05", "4,Di,4,1,2020-01-05"
        ),
    )
    with pytest.raises(RejectedBatchError) as error:
        source.land(DAY)
    assert error.value.code == "below_mostly"
    assert [row["_reasons"] for row in source.bad()][3] == []
    before = heads(source)
    with pytest.raises(RejectedBatchError, match=r"3 of 4 rows break"):
        source.replay(DAY)
    assert heads(source) == before
    assert [row["id"] for row in source.rows("id")] == [1]

    source.rules(UNIQUE, WIDE)
    outcome = source.replay(DAY)
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (4, 3, 1)
    source.publish(DAY)
    assert source.rows("id, amount") == [
        {"id": 1, "amount": 500.0},
        {"id": 2, "amount": 500.0},
        {"id": 4, "amount": 4.0},
    ]
    assert behind(source, DAY) == delivered(source, DAY, rows=4)
    replayed = outcome["version"]
    assert made_from(source, DAY) == (
        ["success", "failed"], [("land", landed, ""), ("replay", replayed, DAY)],
    )  # fmt: skip
    before = heads(source)
    assert source.replay(DAY)["rows_replayed"] == 0
    assert heads(source) == before


def test_a_day_of_a_range_is_judged_as_it_would_be_alone(new_source: Any) -> None:
    source = new_source("replay_range")
    days = ("2020-01-04", DAY, NEXT)
    for day, amounts in zip(days, ((1, 1, 1, 500), (500, 500, 500, 1), (1,) * 20), strict=True):
        first = int(day[-2:]) * 100
        source.put(day, lines(*(f"{first + n},Ann,{amount},1,{day}" for n, amount in enumerate(amounts))))
    whole = f"{days[0]}/{NEXT}"
    for again in (source.land, source.replay):
        with pytest.raises(
            RejectedBatchError, match=rf"{whole}: of {DAY}, 3 of 4 rows break .*\(amount, 0\.\.100\)"
        ) as e:
            again(whole)
        assert e.value.code == "below_mostly"
        assert f"{DAY}.csv row 1" in str(e.value) and f"{days[0]}.csv" not in str(e.value)
        assert source.rows() == [] and len(source.bad()) == 28
    # The good days of it can be taken in.
    outcome = source.replay(NEXT)
    assert outcome["rows_out"] == 20
    source.publish(NEXT)
    assert behind(source, NEXT) == delivered(source, NEXT, rows=20)
    assert made_from(source, NEXT) == (["failed"], [("replay", outcome["version"], NEXT)])
    assert made_from(source, DAY) == (["failed"], [])
    assert source.replay(days[0])["rows_out"] == 3
    source.put(DAY, HEADER)
    with pytest.raises(SourceError, match=f"{DAY}.csv has no rows"):
        source.land(whole)


NAMED = expect("column_values_to_not_be_null", column="id", mostly=0.5)


UNREAD = {
    "2020-01-01": ("{n},Ann,much,1,2020-01-05", "be_between(amount, 0..100)"),
    "2020-01-02": ("{n},Ann,NaN,1,2020-01-05", "be_between(amount, 0..100)"),
    "2020-01-03": ("{n},Ann,1,1", "not_be_null(id)"),  # a record that cannot be taken apart has no value at all
    "2020-01-04": (",Ann,1,1,2020-01-05", "not_be_null(id)"),
    "2020-01-05": ("one,Ann,1,1,2020-01-05", "not_be_null(id)"),
}
"""The bad rows of each day, and the rule that they break."""


def test_values_that_cannot_be_read_count_as_bad_ones(new_source: Any) -> None:
    source = new_source("replay_unread")
    source.rules(BOUNDS, NAMED)
    good = [f"{n},Ann,1,1,2020-01-05" for n in range(3)]
    for day, (bad, _) in UNREAD.items():
        source.put(day, lines(*good, *(bad.format(n=n) for n in range(10, 13))))
    source.land(f"{min(UNREAD)}/{max(UNREAD)}")  # the half of each day is good, as the rules demand
    assert Counter(str(row["_interval"]) for row in source.bad("_interval")) == dict.fromkeys(UNREAD, 3)
    for day, (bad, rule) in UNREAD.items():
        source.put(day, lines(*good[:2], *(bad.format(n=n) for n in range(10, 13))))
        with pytest.raises(RejectedBatchError) as error:
            source.land(day)
        assert error.value.code == "below_mostly"
        assert f"3 of 5 rows break expect_column_values_to_{rule}, 3 of them because" in str(error.value)


def test_five_bad_rows_are_shown_of_many(new_source: Any) -> None:
    source = new_source("replay_five")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05", *(f"{n},Ann,50{n},1,2020-01-05" for n in range(2, 10))))
    with pytest.raises(RejectedBatchError, match="8 of 9 rows break") as error:
        source.land(DAY)
    shown = re.findall(r"csv row (\d+): \S+\(amount, 0\.\.100\) \(amount = (\d+)\.0\)", str(error.value))
    assert shown == [(str(n), f"50{n}") for n in range(2, 7)]
    assert len(source.bad()) == 9


def test_what_is_less_than_critical_is_landed_and_recorded(new_source: Any) -> None:
    source = new_source("replay_severities")
    source.rules(UNIQUE, *(BOUNDS | {"severity": severity, "kwargs": {**BOUNDS["kwargs"], "max_value": limit}}
                           for severity, limit in (("warning", 100), ("info", 99))))  # fmt: skip
    source.put(DAY, lines(*(f"{n},Ann,500,1,2020-01-05" for n in range(5))))
    assert source.land(DAY)["rows_quarantined"] == 0
    source.publish(DAY)
    found = ops.read("ops.gate_results").filter(pc.field("table_name") == f"bronze.{source.name}").to_pylist()
    assert {(row["severity"], row["success"], row["unexpected_count"], row["verdict"]) for row in found} == {
        ("critical", True, 0, "passed"), ("warning", False, 5, "passed"), ("info", False, 5, "passed"),
    }  # fmt: skip


def test_uniqueness_is_judged_over_the_landed_rows_too(new_source: Any) -> None:
    source = new_source("replay_unique")
    source.put(
        DAY, lines("1,Ann,5,1,2020-01-05", "1,Bo,500,1,2020-01-05", "3,Cy,500,1,2020-01-05", "4,Di,7,1,2020-01-05")
    )
    source.rules(BOUNDS)
    source.land(DAY)
    source.rules(UNIQUE, WIDE)
    assert source.replay(DAY)["rows_replayed"] == 1
    assert [row["id"] for row in source.rows("id")] == [1, 3, 4]
    assert [row["_codes"] for row in source.bad()] == [["rule"]]


def test_when_the_gate_shuts_a_replay_the_rows_are_back_in_quarantine(new_source: Any) -> None:
    source = new_source("replay_gate")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05", "2,Bo,500,1,2020-01-05"))
    take_in(source, DAY)
    source.rules(WIDE, expect("table_row_count_to_be_between", max_value=1))
    assert source.replay(DAY)["rows_replayed"] == 1
    assert source.bad() == []
    with pytest.raises(GateFailedError):
        source.publish(DAY)
    assert [row["id"] for row in source.rows("id")] == [1]
    assert [row["_source_row"] for row in source.bad()] == [2]
    source.rules(WIDE)
    assert source.replay(DAY)["rows_replayed"] == 1
    source.publish(DAY)
    assert [row["id"] for row in source.rows("id", f"bronze.{source.name}")] == [1, 2]


def test_one_command_replays_gates_and_releases_and_the_second_time_changes_nothing(
    new_source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lakehouse")
    source = new_source("replay_command")
    table = f"bronze.{source.name}"
    source.put(
        DAY, lines("1,Ann,5,1,2020-01-05", "2,Bo,500,1,2020-01-05", "3,Cy,5000,1,2020-01-05", "4,Di,4,1,2020-01-05")
    )
    first = take_in(source, DAY)

    def command(*options: str) -> list[dict[str, Any]]:
        arguments = ["replay", source.name, "--interval", DAY, *options]
        done = CliRunner().invoke(command_line(), arguments, catch_exceptions=False)
        assert done.exit_code == 0
        return [json.loads(line) for line in done.stdout.splitlines()]

    def state() -> Any:
        return heads(source), release_log.history(), source.rows("id, amount", table), source.bad()

    source.rules(UNIQUE, WIDE)
    before = state()
    [tried] = command("--dry-run")
    assert tried["rows_replayed"] == 1 and state() == before

    replayed, gated, released = command()
    assert replayed["rows_replayed"] == 1 and gated == {table: replayed["version"]}
    assert released["release_id"] > first
    assert [row["id"] for row in source.rows("id", table)] == [1, 2, 4]
    assert [row["_source_row"] for row in source.bad()] == [3]

    before = state()
    caplog.clear()
    assert command() == [replayed | {"rows_replayed": 0, "unreleased": False}]
    assert state() == before
    assert f"{source.name} {DAY}: 0 quarantined rows replayed, 1 stay in quarantine" in caplog.messages

    # A shut gate has withdrawn the rows; now that the suite keeps them out, there is nothing to release.
    source.put(NEXT, lines("5,Ed,5,1,2020-01-06", "6,Flo,500,1,2020-01-06", "7,Gil,4,1,2020-01-06"))
    source.rules(UNIQUE, BOUNDS)
    take_in(source, NEXT)
    source.rules(UNIQUE, WIDE, expect("column_max_to_be_between", column="amount", max_value=50))
    shut = CliRunner().invoke(command_line(), ["replay", source.name, "--interval", NEXT])
    assert shut.exit_code == 1 and isinstance(shut.exception, GateFailedError)
    source.rules(UNIQUE, BOUNDS)
    before = state()
    done = CliRunner().invoke(command_line(), ["replay", source.name, "--interval", NEXT], catch_exceptions=False)
    assert (done.exit_code, json.loads(done.stdout)["rows_replayed"], state()) == (0, 0, before)


def test_a_replay_that_was_killed_before_its_view_was_moved_is_completed_by_repeating_it(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("replay_hidden")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05", "2,Bo,500,1,2020-01-05"))
    take_in(source, DAY)
    source.rules(UNIQUE, WIDE)
    assert source.replay(DAY)["unreleased"]
    with monkeypatch.context() as patched:
        patched.setattr(release, "_point", lambda *_: None)
        source.publish(DAY)
    table = f"bronze.{source.name}"
    assert [row["id"] for row in source.rows("id", table)] == [1]
    assert source.replay(DAY)["unreleased"]
    source.publish(DAY)
    assert [row["id"] for row in source.rows("id", table)] == [1, 2]
    assert not source.replay(DAY)["unreleased"]


def test_a_replay_that_was_killed_half_way_is_completed(new_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = new_source("replay_killed")
    source.put(
        DAY, lines("1,Ann,5,1,2020-01-05", "2,Bo,500,1,2020-01-05", "3,Cy,7000,1,2020-01-05", "4,Di,4,1,2020-01-05")
    )
    take_in(source, DAY)
    source.rules(WIDE)
    write = tables.replace_interval

    def killed(df: Any, stored: str, *rest: Any, **more: Any) -> int:
        if stored.startswith("quarantine."):
            raise KeyboardInterrupt
        return write(df, stored, *rest, **more)

    monkeypatch.setattr(tables, "replace_interval", killed)
    with pytest.raises(KeyboardInterrupt):
        source.replay(DAY)
    monkeypatch.setattr(tables, "replace_interval", write)
    with pytest.raises(UnfinishedWriteError, match="the step replay 2020-01-05"):  # a row would be in both tables
        source.publish(DAY)
    outcome = source.replay(DAY)
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (4, 3, 1)
    source.publish(DAY)
    assert [row["id"] for row in source.rows("id")] == [1, 2, 4]
    assert [row["_source_row"] for row in source.bad()] == [3]


def test_rows_that_are_in_both_tables_leave_the_quarantine(new_source: Any) -> None:
    source = new_source("replay_both")
    table, quarantine = f"bronze.{source.name}", f"quarantine.{source.name}"
    source.put(DAY, lines("1,Ann,5,1,2020-01-05", "2,Bo,500,1,2020-01-05"))
    take_in(source, DAY)
    before = tables.head(quarantine)
    assert before is not None
    source.rules(UNIQUE, WIDE)
    source.replay(DAY)
    source.publish(DAY)
    with step("test", table, None, writes=tables.next_table(table)) as run:
        tables.restore(quarantine, before, run)
    assert len(source.bad()) == 1
    outcome = source.replay(DAY)
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_replayed"]) == (2, 2, 0)
    assert source.bad() == [] and [row["id"] for row in source.rows("id")] == [1, 2]


def test_json_rows_are_replayed_as_they_were_read(new_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = new_source("replay_json", "jsonl")
    good = '{"id": 1, "person": "Ann", "amount": 5, "pieces": 1, "day": "2020-01-05"}\n'
    source.put(
        DAY, good + good.replace("1, ", "4, ") + good.replace("1, ", "2, ").replace("5,", "500.25,") + '{"id": 3\n'
    )
    assert source.land(DAY)["rows_quarantined"] == 2
    source.publish(DAY)
    source.rules(UNIQUE, WIDE)
    assert replay_as_the_dag_does(source, monkeypatch)["rows_replayed"] == 1
    visible = source.rows("id, amount, _source_row", f"bronze.{source.name}")
    assert visible[2] == {"id": 2, "amount": 500.25, "_source_row": 3}


def test_typed_rows_are_replayed_as_they_would_land(new_source: Any) -> None:
    at = {"logicalType": "timestamp"}
    source = new_source("replay_typed", "parquet", "ignore", at=at, local=at, note={"logicalType": "string"})
    moment = dt.datetime(2020, 1, 5, 10, 30, 0, 123456)
    columns = {
        "id": pa.array([1, 2], pa.int64()),
        "amount": pa.array([5.1, 500.1], pa.float32()),
        "pieces": pa.array([1.0, 12.0]),
        "day": pa.array([moment.date()] * 2),
        "at": pa.array([moment] * 2, pa.timestamp("us", "UTC")),
        "local": pa.array([moment] * 2, pa.timestamp("us")),
        "note": pa.array([0.1] * 2, pa.float32()),
        "Not taken": pa.array(["x", "y"]),
    }
    source.put(DAY, parquet(columns))
    assert source.land(DAY)["rows_quarantined"] == 1
    assert json.loads(source.bad("_raw")[0]["_raw"])["Not taken"] == "y"
    source.publish(DAY)
    source.rules(UNIQUE, WIDE)
    assert source.replay(DAY)["rows_replayed"] == 1
    replayed = source.rows()
    known = {"id": 2, "amount": float(np.float32(500.1)), "pieces": 12, "at": moment, "local": moment, "note": "0.1"}
    assert {name: replayed[1][name] for name in known} == known
    source.land(DAY)
    assert source.rows() == replayed


def test_a_column_that_came_by_drift_keeps_its_type(new_source: Any) -> None:
    source = new_source("replay_evolved", "parquet", "evolve")
    moment = dt.datetime(2020, 1, 5, 10, 30, 0, 123456)
    columns = {
        "id": pa.array([1, 2]),
        "amount": pa.array([5.0, 500.0]),
        "day": pa.array([moment.date()] * 2),
        "floor": pa.array([3, 4], pa.int32()),
        "ratio": pa.array([0.1, 0.2], pa.float32()),
        "lift": pa.array([True, False]),
        "seen_at": pa.array([moment] * 2, pa.timestamp("us", "UTC")),
        "heard_at": pa.array([moment] * 2, pa.timestamp("us")),
        "since": pa.array([moment.date()] * 2),
        "colour": pa.array(["red", "blue"]),
    }
    source.put(DAY, parquet(columns))
    assert source.land(DAY)["rows_quarantined"] == 1
    source.publish(DAY)
    source.rules(UNIQUE, WIDE)
    assert source.replay(DAY)["rows_replayed"] == 1
    source.publish(DAY)
    replayed = source.rows()
    assert [row["floor"] for row in replayed] == [3, 4]
    assert replayed[1]["seen_at"] == replayed[1]["heard_at"] == moment
    source.land(DAY)
    assert source.rows() == replayed
    source.publish(DAY)

    wider = {"id": pa.array([3, 4]), "floor": pa.array([5, 2**40]), "seen_at": pa.array(["2020-01-06", None])}
    source.put(NEXT, parquet(columns | wider | {"amount": pa.array([5.0, 5.0])}))
    take_in(source, NEXT)
    assert source.bad() == [
        {"_source_row": 2, "_reasons": ["floor: '1099511627776' is not of type INT"], "_codes": ["type"]}
    ]
    landed = source.rows("id, floor, seen_at", f"bronze.{source.name}")[2:]
    assert landed == [{"id": 3, "floor": 5, "seen_at": dt.datetime(2020, 1, 6)}]


def parquet(columns: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


MOMENTS = [dt.datetime(2020, 1, 5), dt.datetime(2020, 1, 5, 10, 30), dt.datetime(2020, 1, 5, 0, 0, 0, 1)]
DELIVERED = {
    "truth": pa.array([True, False, True]),
    "small": pa.array([1, 0, -5], pa.int16()),
    "whole": pa.array([1, 1577836800, 2**24 + 1], pa.int32()),
    "long": pa.array([0, 2**53 + 1, 10**15], pa.int64()),
    "single": pa.array([12.0, 0.1, float("nan")], pa.float32()),
    "double": pa.array([12.0, 0.1, 1e300]),
    "money": pa.array([Decimal("12.000"), Decimal("12.345"), Decimal("-0.100")], pa.decimal128(8, 3)),
    "date": pa.array(MOMENTS, pa.date32()),
    "local": pa.array(MOMENTS, pa.timestamp("us")),
    "moment": pa.array(MOMENTS, pa.timestamp("us", "UTC")),
    "bytes": pa.array([b"1", b"true", b"2020-01-05 10:30:00"]),
    "text": pa.array(["12.345", "9007199254740993", "2020-01-05T00:00:00Z"]),
    "words": pa.array(["2020-01-05 soon", "16777217", "1e300"]),
}
DECLARED = {
    "boolean": {"logicalType": "boolean"},
    "i8": {"logicalType": "integer", "logicalTypeOptions": {"format": "i8"}},
    "i32": {"logicalType": "integer"},
    "i64": {"logicalType": "integer", "logicalTypeOptions": {"format": "i64"}},
    "f32": {"logicalType": "number", "logicalTypeOptions": {"format": "f32"}},
    "f64": {"logicalType": "number"},
    "decimal": {"logicalType": "number", "physicalType": "decimal(10,2)"},
    "date": {"logicalType": "date"},
    "timestamp": {"logicalType": "timestamp"},
    "string": {"logicalType": "string"},
}
REFUSED = {
    "date": {"text": [0, 1], "words": [0, 1, 2], "local": [1, 2], "moment": [1, 2], "bytes": [0, 1, 2], "date": []},
    "timestamp": {"text": [0, 1], "words": [0, 1, 2], "local": [], "moment": [], "bytes": [0, 1], "date": []},
    "i32": {"truth": [0, 1, 2], "small": [], "whole": [], "long": [1, 2], "single": [1, 2], "double": [1, 2],
            "money": [1, 2], "local": [0, 1, 2]},
    "boolean": {"truth": [], "small": [2], "double": [0, 1, 2], "date": [0, 1, 2], "bytes": [2]},
    "decimal": {"text": [0, 1, 2], "money": [1], "double": [2], "whole": [1], "truth": [0, 1, 2]},
    "f64": {"text": [1, 2], "long": [1], "words": [0], "double": [], "single": [2], "truth": [0, 1, 2]},
    "f32": {"text": [1, 2], "whole": [2], "words": [0, 1, 2], "long": [1, 2]},
    "string": {name: [] for name in DELIVERED},
}  # fmt: skip
"""Of some types of a contract, the places of the values that are none of it, by what is delivered."""


def test_a_value_is_of_a_type_for_a_replay_if_it_is_for_landing(new_source: Any) -> None:
    """Every type that Parquet can deliver, as every type that a contract can declare."""
    columns = {f"{found}_as_{kind}": (found, kind) for found in DELIVERED for kind in DECLARED}
    undeclared = dict.fromkeys(("person", "amount", "pieces", "day"))
    declared = {name: DECLARED[kind] for name, (_, kind) in columns.items()}
    source = new_source("replay_types", "parquet", "ignore", **undeclared, **declared)
    values = {"id": pa.array([0, 1, 2])} | {name: DELIVERED[found] for name, (found, _) in columns.items()}
    source.put(DAY, parquet(values))
    contract = contracts.load(source.name)
    landing = readers.read(contract, Interval.parse(DAY)).rows
    kept = jsonl.as_text(landing).select("_interval", "_source_file", "_source_row", "_raw", "_columns")
    replaying = readers.reread(kept, contract).rows
    landed, replayed = (
        [row.asDict(recursive=True) for row in parse(rows, contract, {}).orderBy("_source_row").collect()]
        for rows in (landing, replaying)
    )
    for one, other in zip(landed, replayed, strict=True):
        for name in columns:
            assert repr(one[name]) == repr(other[name]), (name, one["_raw"])
        assert faults_of(one) == faults_of(other)
    refused = {
        name: [place for place, row in enumerate(landed) if name in {column for column, _ in faults_of(row)}]
        for name in columns
    }
    wanted = {f"{found}_as_{kind}": places for kind, each in REFUSED.items() for found, places in each.items()}
    assert {name: refused[name] for name in wanted} == wanted


def faults_of(row: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault["column"], fault["code"]) for fault in row["_faults"]]


def test_files_of_several_types_are_kept_as_records_that_can_be_replayed(new_source: Any) -> None:
    source = new_source("replay_mixed", "parquet", "ignore")
    for day, type_, ids in ((DAY, pa.float32(), [1, 2]), (NEXT, pa.float64(), [3, 4])):
        columns = {
            "id": pa.array(ids),
            "person": pa.array(["Ann", "Bo"]),
            "amount": pa.array([5.5, 500.5], type_),
            "pieces": pa.array([1, 2]),
            "day": pa.array([dt.date.fromisoformat(day)] * 2),
        }
        source.put(day, parquet(columns))
    days = f"{DAY}/{NEXT}"
    assert source.land(days)["rows_quarantined"] == 2
    assert [json.loads(row["_raw"])["person"] for row in source.bad("_raw")] == ["Bo", "Bo"]
    source.publish(days)
    source.rules(UNIQUE, WIDE)
    assert source.replay(days)["rows_replayed"] == 2
    assert [row["amount"] for row in source.rows("amount")] == [5.5, 500.5] * 2


def test_what_landing_has_refused_for_its_types_a_replay_refuses_too(new_source: Any) -> None:
    source = new_source("replay_refused", "parquet", "evolve")
    columns = {
        "id": pa.array([1, 2, 3]),
        "pieces": pa.array([None, None, True]),
        "day": pa.array([MOMENTS[0], MOMENTS[1], MOMENTS[0]], pa.timestamp("us", "UTC")),
    }
    source.put(DAY, parquet(columns))
    assert source.land(DAY)["rows_quarantined"] == 2
    source.publish(DAY)
    before = [(row["_source_row"], row["_codes"]) for row in source.bad()]
    assert before == [(2, ["type"]), (3, ["type"])]
    assert source.replay(DAY)["rows_replayed"] == 0
    assert [(row["_source_row"], row["_codes"]) for row in source.bad()] == before


def replay_as_the_dag_does(source: Source, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the tasks of ``replay_<source>`` one after the other, and give what the first returns."""
    from lakehouse.airflow import source_tasks, table_tasks

    params = {"dry_run": False}
    context = {
        "partition_key": DAY,
        "params": params,
        "dag": SimpleNamespace(dag_id=f"replay_{source.name}", params=params),
        "dag_run": SimpleNamespace(conf={}),
        "task": SimpleNamespace(outlets=[]),
    }
    for module in (source_tasks, table_tasks):
        monkeypatch.setattr(module, "get_current_context", lambda: context)
    outcome: dict[str, Any] = source_tasks.replay.function(source.name)
    table = f"bronze.{source.name}"
    assert table_tasks.gate.function([table])
    assert table_tasks.release.function([table]) == release_log.released()[table].release_id
    return outcome


def test_nothing_in_quarantine_is_nothing_to_do(new_source: Any) -> None:
    source = new_source("replay_nothing")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05"))
    source.land(DAY)
    before = heads(source)
    assert source.replay(DAY)["rows_replayed"] == 0
    assert heads(source) == before


def test_a_rule_about_a_column_that_is_not_there_is_named_and_nothing_changes(new_source: Any) -> None:
    source = new_source("replay_misspelt")
    source.put(DAY, lines("1,Ann,5,1,2020-01-05", "2,Bob,soon,1,2020-01-05"))
    source.land(DAY)
    before = heads(source)
    source.rules(BOUNDS | {"kwargs": {"column": "amuont", "min_value": 0}})
    with pytest.raises(InvalidSuiteError, match=r"the table has no column 'amuont'\. Did you mean amount"):
        source.replay(DAY)
    assert heads(source) == before


def test_a_rule_about_a_column_that_only_rejected_rows_have_is_known_to_their_replay(new_source: Any) -> None:
    def one_of(*colours: str) -> dict[str, Any]:
        return expect("column_values_to_be_in_set", column="colour", value_set=list(colours))

    source = new_source("replay_of_drift", "csv", "evolve")
    source.put(DAY, "id,person,amount,pieces,day,colour\n1,Ann,5,1,2020-01-05,red\n2,Bob,6,1,2020-01-05,blue\n")
    source.rules(UNIQUE, one_of("green"))
    with pytest.raises(RejectedBatchError):
        source.land(DAY)
    source.rules(UNIQUE, one_of("red", "blue"))
    assert source.replay(DAY)["rows_replayed"] == 2
    source.publish(DAY)
    assert [row["colour"] for row in source.rows()] == ["red", "blue"]


def test_examples_mask_personal_columns_and_the_quarantine_does_not(new_source: Any) -> None:
    source = new_source("replay_masked", person={"logicalType": "integer", "tags": ["pii"]})
    source.put(DAY, lines("1,Joan D'Arc,500,1,2020-01-05", "2,42,700,1,2020-01-05"))
    with pytest.raises(RejectedBatchError) as error:
        source.land(DAY)
    message = str(error.value)
    assert "Joan" not in message and "person: '***' is not of type INT" in message
    assert "(amount = 700.0)" in message
    assert source.bad()[0]["_reasons"][0] == "person: 'Joan D'Arc' is not of type INT"
    source.rules(UNIQUE, expect("column_values_to_be_between", column="person", max_value=1))
    with pytest.raises(RejectedBatchError) as error:
        source.land(DAY)
    assert "(person = ***)" in str(error.value) and "42" not in str(error.value)


def test_examples_mask_columns_that_nobody_has_classified(new_source: Any) -> None:
    source = new_source("replay_unknown", drift="evolve")
    source.rules(expect("column_values_to_not_match_regex", column="phone", regex="^555", mostly=0.9))
    source.put(DAY, "id,person,amount,pieces,day,phone\n1,Ann,5,1,2020-01-05,555-0100\n2,Bo,5,1,2020-01-05,666-0100\n")
    with pytest.raises(RejectedBatchError, match=r"\(phone = \*\*\*\)") as error:
        source.land(DAY)
    assert "555-0100" not in str(error.value)


def test_a_rule_that_does_not_fit_its_column_quotes_no_personal_value(new_source: Any) -> None:
    source = new_source("replay_unfit")
    source.put(DAY, lines("1,Joan,5,1,2020-01-05", "2,Joan,500,1,2020-01-05"))
    source.land(DAY)
    source.rules(expect("column_values_to_be_between", column="person", max_value=1))
    for again in (source.replay, source.land):
        with pytest.raises(UnfitRuleError, match="CAST_INVALID_INPUT") as error:
            again(DAY)
        recorded = ops.read("ops.runs").sort_by("ended_at").to_pylist()[-1]
        traceback_ = "".join(traceback.format_exception(error.value))
        assert recorded["status"] == "failed"
        assert "Joan" not in f"{recorded}{traceback_}"


def test_dates_that_jump_back_go_to_quarantine_and_the_gate_lets_the_others_pass(new_source: Any) -> None:
    source = new_source("replay_dates")
    kind = "column_values_to_be_increasing_within_tolerance"
    source.rules(expect(kind, column="day", tolerance_days=2, mostly=0.5))
    days = ("05", "09", "07", "06", "01", "08", "12")
    source.put(DAY, lines(*(f"{n},Ann,1,1,2020-01-{day}" for n, day in enumerate(days))))
    assert source.land(DAY)["rows_quarantined"] == 2
    source.publish(DAY)
    assert [row["_source_row"] for row in source.bad()] == [4, 5]
    assert source.bad()[0]["_reasons"] == [f"expect_{kind}(day, 2 days)"]

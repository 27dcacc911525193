"""Rolling back, and publishing in spite of a gate: what readers see, and what the next write starts from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from rich.console import Console
from rich.tree import Tree
from typer.testing import CliRunner

import lakehouse
from lakehouse import ops, release_log, tables
from lakehouse.cli import command_line
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.provenance import trees
from lakehouse.provenance.explain import Explainer
from lakehouse.quality import suites
from lakehouse.releases import release, unreleased
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.override import OverrideError, override
from lakehouse.releases.rollback import RollbackError, rollback
from lakehouse.releases.unreleased import WithdrawnError
from lakehouse.steps import job
from lakehouse.tables import VersionGoneError

land = job("land")
TABLE, STORED = "bronze.airports", "bronze_next.airports"
DAYS = [Interval.parse(f"2013-01-{day}") for day in ("08", "09", "10", "11")]


def publish(interval: Interval, table: str = TABLE) -> int:
    land(table.partition(".")[2], interval)
    gate([table], interval)
    return release.release([table], interval)


def days(name: str = TABLE) -> list[str]:
    """The days that a table holds, by its rows."""
    found = spark().sql(f"select distinct cast(_interval as string) from {name} order by 1").collect()
    return [row[0] for row in found]


def text(*intervals: Interval) -> list[str]:
    return [str(interval) for interval in intervals]


def shown() -> int:
    return release_log.released()[TABLE].version


@pytest.fixture(scope="module")
def two(drop: Path) -> list[int]:
    """Releases of the first two days."""
    return [publish(DAYS[0]), publish(DAYS[1])]


@pytest.fixture
def three(two: list[int]) -> list[int]:
    """Releases of the first three days, and nothing of the fourth, whatever the tests before have done."""
    rollback(TABLE, two[-1])
    return [*two, publish(DAYS[2])]


@pytest.fixture
def turned_down(three: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Interval], str]:
    """Lands a day that the gate then turns down; gives the gate's run id."""

    def turn_down(interval: Interval) -> str:
        suite = json.loads(suites.suite_path(TABLE).read_text())
        suite["expectations"].append(
            {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 1}, "severity": "critical"}
        )
        strict = tmp_path / "airports.json"
        strict.write_text(json.dumps(suite))
        land("airports", interval)
        with monkeypatch.context() as patched:
            patched.setattr(suites, "suite_path", lambda name: strict)
            with pytest.raises(GateFailedError):
                gate([TABLE], interval)
        return ops.read("ops.gate_results").sort_by("checked_at").to_pylist()[-1]["run_id"]

    return turn_down


def last_release() -> dict[str, Any]:
    return release_log.history()[-1]


def test_readers_go_back_and_the_next_write_goes_on_from_there(three: list[int]) -> None:
    before = set(days())
    outcome = rollback(TABLE, by="ada")
    assert set(days()) == before - {str(DAYS[2])} == set(lakehouse.read(TABLE)["_interval"].astype(str))
    assert days(STORED) == days()
    assert not unreleased.pending(TABLE)
    assert outcome["undone"][TABLE] == text(DAYS[2])
    row = last_release()
    assert (row["released_by"], row["rollback_to"]) == ("ada", three[1])
    assert row["reason"] == f"rollback to release {three[1]}"

    publish(DAYS[3])
    assert set(days()) == before - {str(DAYS[2])} | {str(DAYS[3])}
    publish(DAYS[2])
    assert set(days()) == before | {str(DAYS[3])}


def test_a_release_that_is_tried_again_does_not_bring_rolled_back_rows_back(three: list[int]) -> None:
    rollback(TABLE)
    for again in (gate, release.release):
        with pytest.raises(WithdrawnError, match="withdrawn by the step rollback"):
            again([TABLE], DAYS[2])
    assert str(DAYS[2]) not in days()
    gate([TABLE], DAYS[1])  # whose rows are still there


def test_rows_that_nobody_has_seen_go_with_a_roll_back(three: list[int]) -> None:
    land("airports", DAYS[3])
    rollback(TABLE)
    assert days(STORED) == days()
    with pytest.raises(WithdrawnError, match="withdrawn by the step rollback"):
        gate([TABLE], DAYS[3])


def test_a_roll_back_that_was_killed_before_its_views_followed_is_completed_by_its_retry(
    three: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(release, "_point", lambda table, version: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rollback(TABLE, three[0])
    assert str(DAYS[2]) in days()
    releases = len(release_log.history())
    rollback(TABLE, three[0])
    assert str(DAYS[2]) not in days()
    assert len(release_log.history()) == releases


def test_a_roll_back_that_was_killed_before_it_was_recorded_has_changed_nothing(
    three: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(release, "_record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rollback(TABLE)
    assert unreleased.pending(TABLE)
    land("airports", DAYS[3])
    assert set(text(*DAYS)) <= set(days(STORED))


def test_a_set_goes_back_whole_or_not_at_all(three: list[int]) -> None:
    other = "bronze.planes"
    for interval in DAYS[:2]:
        publish(interval, other)
    for source in ("airports", "planes"):
        land(source, DAYS[3])
    both = [TABLE, other]
    gate(both, DAYS[3])
    one = release.release(both, DAYS[3])
    rollback(str(one))
    for table in both:
        assert str(DAYS[3]) not in days(table)
        assert last_release()["release_id"] == release_log.released()[table].release_id
    publish(DAYS[3], other)
    publish(DAYS[3])
    with pytest.raises(RollbackError, match="released again since"):
        rollback(str(one), None)


def test_a_version_that_is_no_longer_kept_is_refused_and_nothing_changes(three: list[int]) -> None:
    old, new = (set(tables.delta(STORED, release_log.released(each)[TABLE].version).file_uris()) for each in three[1:])
    gone, *_ = sorted(new - old)
    rollback(TABLE)
    lost = Path(gone)
    aside = lost.rename(lost.with_suffix(".aside"))
    head, releases = tables.head(STORED), len(release_log.history())
    with pytest.raises(VersionGoneError, match="can no longer be read"):
        rollback(TABLE, three[2])
    assert (tables.head(STORED), len(release_log.history())) == (head, releases)
    aside.rename(lost)


def test_a_person_publishes_what_a_gate_has_turned_down(
    turned_down: Callable[[Interval], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "lakehouse")
    before = set(days())
    run_id = turned_down(DAYS[3])
    assert set(days()) == before
    one = override(run_id, "counted by hand", by="ada")
    assert set(days()) == before | {str(DAYS[3])} == set(days(STORED))
    row = last_release()
    assert (row["release_id"], row["override_of"], row["reason"], row["released_by"], row["interval_start"]) == (
        one, run_id, "counted by hand", "ada", DAYS[3].start,
    )  # fmt: skip
    assert release_log.sets(TABLE)[0]["reason"] == "override: counted by hand"
    rule = f"{TABLE}: expect_table_row_count_to_be_between"
    assert f"published in spite of: {rule}" in caplog.text
    [run] = ops.read("ops.runs").filter(pc.field("run_id") == row["run_id"]).to_pylist()
    assert run["step"] == "override"
    assert {"override_of": run_id, "broken": [rule], "by": "ada"}.items() <= json.loads(run["details"]).items()
    tree = Tree("prediction")
    trees._add_input(tree, Explainer()._input(TABLE, row["version"], frozenset({DAYS[3].start})))
    with (console := Console(width=300)).capture() as explained:
        console.print(tree)
    assert f"release {one}, an OVERRIDE of gate {run_id} by ada: counted by hand" in explained.get()
    again = CliRunner().invoke(command_line(), ["release", "--override", run_id, "--reason", "once more"])
    assert json.loads(again.stdout) == {"release_id": one}, again.output
    assert not unreleased.pending(TABLE)
    gate([TABLE], DAYS[3])
    rollback(TABLE)
    assert set(days()) == before
    with pytest.raises(OverrideError, match="released since that gate"):
        override(run_id, "once more")


def test_an_override_does_not_take_back_what_has_come_since(turned_down: Callable[[Interval], str]) -> None:
    run_id = turned_down(DAYS[3])
    land("airports", DAYS[0])
    with pytest.raises(OverrideError, match=r"written since version \d+ was judged .* by the step land"):
        override(run_id, "too late")
    gate([TABLE], DAYS[0])
    release.release([TABLE], DAYS[0])
    with pytest.raises(OverrideError, match="released since that gate"):
        override(run_id, "too late")


def test_an_override_needs_a_bad_verdict_and_a_reason(three: list[int]) -> None:
    passed = ops.read("ops.gate_results").sort_by("checked_at").to_pylist()[-1]["run_id"]
    with pytest.raises(OverrideError, match="has passed"):
        override(passed, "why not")
    with pytest.raises(OverrideError, match="No gate has the run id 'nothing'"):
        override("nothing", "why not")
    with pytest.raises(OverrideError, match="needs a reason"):
        override(passed, " ")


def test_what_json_has_no_value_for_is_printed_all_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    from lakehouse.cli.printing import print_rows

    print_rows("select x'00ff' as b, interval '25' hour as i, double('NaN') as n, map('a', 1.10BD) as m", as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"b": "00ff", "i": "1 day, 1:00:00", "n": None, "m": {"a": "1.10"}}]


def test_a_query_sees_every_table_and_view_as_of_a_release(
    three: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    from lakehouse.cli.printing import print_rows

    spark().sql("create schema if not exists silver").collect()
    spark().sql(f"create or replace view silver.airport_days as select _interval as day from {TABLE}").collect()
    query = (
        "select distinct cast(v.day as string) as viewed, cast(t._interval as string) as stored "
        f"from silver.airport_days v full join {TABLE} t on v.day = t._interval order by 1"
    )
    for number, expected in ((1, DAYS[:2]), (2, DAYS[:3])):
        print_rows(query, as_json=True, release=three[number])
        seen = [(row["viewed"], row["stored"]) for row in json.loads(capsys.readouterr().out)]
        assert [pair for pair in seen if pair[0] in text(*DAYS)] == [(day, day) for day in text(*expected)]

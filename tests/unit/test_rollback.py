"""Where a roll back leads to, decided from the rows of ops.releases alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse import dbt_project, ops, release_log, tables
from lakehouse.release_log import NotReleasedError
from lakehouse.releases import release, silver_views, unreleased
from lakehouse.releases.rollback import RollbackError, Target, plan, views_then
from lakehouse.releases.unreleased import _withdrawn_by
from lakehouse.steps import Run


def row(release_id: int, table: str, version: int, rollback_to: int | None = None) -> dict[str, Any]:
    day = dt.date(2013, 1, release_id)
    return {
        "release_id": release_id,
        "table_name": table,
        "version": version,
        "rollback_to": rollback_to,
        "interval_start": day,
        "interval_end": day,
    }


LOG = [
    row(1, "gold.a", 1),
    row(2, "gold.a", 2),
    row(2, "gold.b", 5),
    row(3, "gold.a", 3),
    row(3, "gold.b", 6),
    row(4, "gold.b", 7),
]


def test_a_table_goes_back_to_the_release_before_or_to_a_named_one() -> None:
    assert plan(LOG, "gold.a") == {"gold.a": Target(2, 2)}
    assert plan(LOG, "gold.b", 2) == {"gold.b": Target(5, 2)}
    assert plan(LOG, "gold.a", 4) == {"gold.a": Target(3, 3)}


def test_a_release_goes_back_as_one_set() -> None:
    assert plan(LOG[:-1], "3") == {"gold.a": Target(2, 2), "gold.b": Target(5, 2)}
    assert plan(LOG, "3", 2) == {"gold.a": Target(2, 2), "gold.b": Target(5, 2)}


@pytest.mark.parametrize(
    ("what", "to", "message"),
    [
        ("3", None, r"gold\.b has been released again since, by release 4"),
        ("3", 3, "goes to an earlier one"),
        ("9", None, "There is no release 9"),
        ("3", 9, "There is no release 9"),
        ("2", 1, r"gold\.b had no release before or at 1"),
        ("gold.b", 1, r"gold\.b had no release before or at 1"),
    ],
)
def test_what_makes_no_sense_is_refused(what: str, to: int | None, message: str) -> None:
    with pytest.raises(RollbackError, match=message):
        plan(LOG, what, to)


def test_an_unknown_table_is_named_with_those_that_there_are() -> None:
    with pytest.raises(NotReleasedError, match=r"gold\.a, gold\.b"):
        plan(LOG, "gold.c")


def test_a_second_step_back_has_to_say_how_far() -> None:
    rolled_back = [*LOG, row(5, "gold.a", 2, rollback_to=2)]
    with pytest.raises(RollbackError, match="rolled back already, to release 2"):
        plan(rolled_back, "gold.a")
    assert plan(rolled_back, "gold.a", 1) == {"gold.a": Target(1, 1)}
    assert plan(rolled_back, "3", 2)["gold.a"] == Target(2, 2)  # completes one that was interrupted
    assert plan(rolled_back, "5") == {"gold.a": Target(3, 3)}  # takes the roll back back


def test_a_release_of_maintenance_is_gone_over_and_not_back_to() -> None:
    maintained = [*LOG, {**row(5, "gold.a", 4), "maintains": 3}]
    assert plan(maintained, "gold.a") == plan(LOG, "gold.a") == {"gold.a": Target(2, 2)}
    with pytest.raises(RollbackError, match=r"made by maintenance .* rolled back: 3 of gold.a, 2 of gold.b\."):
        plan([*maintained, {**row(5, "gold.b", 3), "maintains": 2}], "5")
    written = [*maintained, row(6, "gold.a", 5)]
    # The version that maintenance has made is what readers saw before: the one that it was made of may be gone.
    assert plan(written, "gold.a") == plan(written, "6") == {"gold.a": Target(4, 5)}
    assert plan(written, "gold.a", 3) == {"gold.a": Target(3, 3)}


def commits(*facts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"version": version, "userMetadata": each} for version, each in reversed(list(enumerate(facts)))]


def wrote(day: str) -> dict[str, Any]:
    return {"step": "land", "interval": day}


def restored(version: int, step: str = "rollback") -> dict[str, Any]:
    return {"step": step, "interval": None, "restored": version}


@pytest.mark.parametrize(
    ("log", "by"),
    [
        (commits({}, wrote("A")), None),
        (commits({}, wrote("A"), restored(0)), "rollback"),
        (commits({}, wrote("A"), restored(0, "gate"), wrote("B")), "gate"),
        (commits({}, wrote("A"), restored(0), wrote("A")), None),
        (commits({}, wrote("A"), wrote("B"), restored(1)), None),
        (commits({}, wrote("A"), restored(0, "gate"), restored(1, "override")), None),
        (commits({}, wrote("A"), wrote("A"), restored(1, "land"), wrote("B")), "land"),
        (commits({}, wrote("B"), restored(0)), None),
    ],
)
def test_whether_the_newest_write_of_an_interval_is_still_in_a_table(log: list[dict[str, Any]], by: str | None) -> None:
    assert _withdrawn_by(log, "A") == by


def test_views_go_back_with_their_release_unless_another_has_changed_them_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {1: {"silver.a": "1", "silver.b": "1"}, 2: {"silver.a": "2"}, 3: {"silver.b": "3"}, 4: {}}
    log = [row(number, "gold.a", number) | {"views": list(views.items())} for number, views in changes.items()]
    monkeypatch.setattr(release_log, "history", lambda: log)
    assert release_log.views() == {"silver.a": "2", "silver.b": "3"}
    assert views_then(log, 2, None) == {"silver.a": "1"}
    assert views_then(log, 4, None) == {}
    assert views_then(log, 4, 2) == {"silver.a": "2", "silver.b": "1"}
    log.append(row(5, "gold.b", 5) | {"views": [("silver.a", "5")]})
    with pytest.raises(RollbackError, match=r"silver\.a has got another query since, by release 5"):
        views_then(log, 2, None)
    assert views_then(log, 1, None) == {}  # it had none before that one could go back to


def test_the_retry_of_a_roll_back_that_was_recorded_finds_the_queries_where_they_shall_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {1: "1", 2: "2", 3: "1"}  # the last is the roll back of the second
    log = [row(number, "gold.a", number) | {"views": [("silver.a", query)]} for number, query in changes.items()]
    monkeypatch.setattr(release_log, "history", lambda: log)
    assert views_then(log, 2, None) == {"silver.a": "1"}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What publishing a table at the version that readers see has recorded; a view has the query 1."""
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    write_deltalake(tables.location("gold_next.a"), pa.table({"n": [1]}))
    views = [("silver.a", "1")]
    ops.append(release_log.LOG, [{"release_id": 1, "table_name": "gold.a", "version": 0, "views": views}])
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(release, "_record", lambda *arguments: calls.append(arguments) or 2)
    monkeypatch.setattr(release, "_point", lambda _table, _version: None)
    monkeypatch.setattr(silver_views, "show", lambda: [])
    return calls


@pytest.mark.parametrize(("query", "is_new"), [("1", False), ("2", True)])
def test_a_query_goes_back_also_where_its_tables_are_there_already(
    recorded: list[tuple[Any, ...]], query: str, is_new: bool
) -> None:
    run = Run("rollback", "gold.a", None)
    released = release.publish({"gold.a": 0}, run, reason="", by="", marks={}, queries={"silver.a": query})
    assert (released, len(recorded)) == ((2, 1) if is_new else (1, 0))
    if is_new:
        changed, *_, queries = recorded[0]
        assert (changed, queries) == ({"gold.a": 0}, {"silver.a": query})


def test_queries_wait_for_the_last_table_of_their_build(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = {"gold.a", "gold.b"}
    monkeypatch.setattr(dbt_project, "stored_models", lambda: ["gold.a", "gold.b", "gold.c"])
    monkeypatch.setattr(unreleased, "pending", lambda table, _: table in waiting)
    monkeypatch.setattr(silver_views, "built", lambda: {"silver.a": "1"})
    monkeypatch.setattr(release_log, "released", dict)
    assert silver_views.due_with(["gold.a"]) == silver_views.due_with(["ml.a"]) == {}
    assert silver_views.due_with(["gold.a", "gold.b"]) == {"silver.a": "1"}
    waiting.remove("gold.b")
    assert silver_views.due_with(["gold.a"]) == {"silver.a": "1"}

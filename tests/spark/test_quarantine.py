"""Quarantine after a roll back or an override: every row that was delivered is visible or set aside, never both."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse import ops, quarantine, release, tables
from lakehouse.audit import GateFailedError
from lakehouse.batches import RejectedBatchError
from lakehouse.override import override
from lakehouse.rollback import rollback
from lakehouse.steps import step
from tests.spark.sources import BOUNDS, UNIQUE, Source, expect
from tests.spark.sources import new_source as new_source

DAY, NEXT, LAST = "2020-01-05", "2020-01-06", "2020-01-07"
WIDE = expect("column_values_to_be_between", column="amount", min_value=0, max_value=1000, mostly=0.5)


def delivery(source: Source, day: str, *amounts: int) -> None:
    """A file with a row for each amount; those of more than 100 break a rule."""
    first = int(day[-2:]) * 10
    rows = [f"{first + n},Ann,{amount},1,{day}\n" for n, amount in enumerate(amounts)]
    source.put(day, "id,person,amount,pieces,day\n" + "".join(rows))


def publish(source: Source, day: str, *amounts: int) -> int:
    delivery(source, day, *amounts)
    source.land(day)
    return source.publish(day)


def rows(source: Source) -> tuple[list[int], list[int]]:
    """The ids that readers see, and the places of the rows in quarantine, with their days."""
    seen = [row["id"] for row in source.rows("id", f"bronze.{source.name}")]
    return seen, [int(str(row["_interval"])[-2:]) * 10 + row["_source_row"] - 1 for row in source.bad("*")]


def test_a_roll_back_takes_the_rows_in_quarantine_along_and_another_one_brings_them_back(new_source: Any) -> None:
    source = new_source("follow_back")
    publish(source, DAY, 1, 500)
    publish(source, NEXT, 2, 3, 700)
    assert rows(source) == ([50, 60, 61], [51, 62])
    undone = rollback(f"bronze.{source.name}")["release_id"]
    assert rows(source) == ([50], [51])
    assert source.replay(NEXT)["rows_replayed"] == 0
    rollback(str(undone))
    assert rows(source) == ([50, 60, 61], [51, 62])
    source.rules(UNIQUE, WIDE)
    assert source.replay(NEXT)["rows_replayed"] == 1
    source.publish(NEXT)
    assert rows(source) == ([50, 60, 61, 62], [51])


def test_a_withdrawal_that_was_killed_half_way_is_completed(new_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    source = new_source("follow_withdrawal")
    publish(source, DAY, 1, 500)
    delivery(source, DAY, 1, 2)
    source.land(DAY)  # is not released
    restore = tables.restore

    def killed(stored: str, *arguments: Any) -> None:
        if stored.startswith("quarantine."):
            raise KeyboardInterrupt
        restore(stored, *arguments)

    table = f"bronze.{source.name}"
    with step("gate", table, None, writes=tables.next_table(table)) as run:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(tables, "restore", killed)
            release.withdraw(table, run)
        assert rows(source) == ([50], [])
        release.withdraw(table, run)
        assert rows(source) == ([50], [51])
        head = tables.head(f"quarantine.{source.name}")
        release.withdraw(table, run)
        assert tables.head(f"quarantine.{source.name}") == head


def test_a_replay_that_is_rolled_back_puts_its_rows_back_into_quarantine(new_source: Any) -> None:
    source = new_source("follow_replay")
    publish(source, DAY, 1, 2, 500, 5000)
    source.rules(UNIQUE, WIDE)
    source.replay(DAY)
    source.publish(DAY)
    assert rows(source) == ([50, 51, 52], [53])
    rollback(f"bronze.{source.name}")
    assert rows(source) == ([50, 51], [52, 53])
    assert source.replay(DAY)["rows_replayed"] == 1
    source.publish(DAY)
    assert rows(source) == ([50, 51, 52], [53])


def test_a_delivery_that_was_rejected_whole_is_still_there_after_a_roll_back(new_source: Any) -> None:
    source = new_source("follow_rejected")
    publish(source, DAY, 1, 500)
    publish(source, NEXT, 2, 700)
    delivery(source, LAST, 800, 900, 3)
    with pytest.raises(RejectedBatchError):
        source.land(LAST)
    rollback(f"bronze.{source.name}")
    assert rows(source) == ([50], [51, 70, 71, 72])
    source.rules(UNIQUE, WIDE)
    assert source.replay(LAST)["rows_replayed"] == 3
    source.publish(LAST)
    assert rows(source) == ([50, 70, 71, 72], [51])


def test_an_override_brings_back_what_its_landing_had_set_aside(new_source: Any) -> None:
    source = new_source("follow_override")
    publish(source, DAY, 1, 500)
    source.rules(UNIQUE, BOUNDS, expect("table_row_count_to_be_between", max_value=2))
    with pytest.raises(GateFailedError):
        publish(source, NEXT, 2, 3, 700)
    assert rows(source) == ([50], [51])
    override(ops.read("ops.gate_results").sort_by("checked_at").to_pylist()[-1]["run_id"], "counted by hand")
    assert rows(source) == ([50, 60, 61], [51, 62])


def test_a_roll_back_that_was_killed_before_the_quarantine_followed_is_completed_by_its_retry(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("follow_killed")
    table = f"bronze.{source.name}"
    first = publish(source, DAY, 1, 500)
    publish(source, NEXT, 2, 700)
    with monkeypatch.context() as patched:
        patched.setattr(quarantine, "follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rollback(table, first)
    assert release.released()[table].version != tables.head(f"bronze_next.{source.name}")
    rollback(table, first)
    assert rows(source) == ([50], [51])
    head = tables.head(f"quarantine.{source.name}")
    rollback(table, first)
    assert tables.head(f"quarantine.{source.name}") == head

"""Quarantine after a roll back or an override: every row that was delivered is visible or set aside, never both."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from lakehouse import ops, release_log, tables
from lakehouse.interval import Interval
from lakehouse.landing import quarantine
from lakehouse.landing.batches import RejectedBatchError
from lakehouse.locks import StaleWriterError
from lakehouse.maintenance.maintain import maintain
from lakehouse.releases import release, unreleased
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.releases.override import override
from lakehouse.releases.rollback import rollback
from lakehouse.releases.unreleased import UnfinishedWriteError
from lakehouse.steps import Run, step
from tests.spark.sources import BOUNDS, UNIQUE, Source, expect
from tests.spark.sources import new_source as new_source
from tests.spark.test_maintenance import only, release_unchecked

DAY, NEXT, LAST = "2020-01-05", "2020-01-06", "2020-01-07"
WIDE = expect("column_values_to_be_between", column="amount", min_value=0, max_value=1000, mostly=0.5)


def delivery(source: Source, day: str, *amounts: int) -> None:
    """A file with a row for each amount; those of more than 100 break a rule."""
    first = int(day[-2:]) * 10
    rows = [f"{first + n},Ann,{amount},1,{day}\n" for n, amount in enumerate(amounts)]
    source.put(day, "id,person,amount,pieces,day\n" + "".join(rows))


def publish(source: Source, day: str, *amounts: int) -> int:
    delivery(source, day, *amounts)
    return release_unchecked(f"bronze.{source.name}", source.land(day)["version"], Interval.parse(day))


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
            unreleased.withdraw(table, run)
        assert rows(source) == ([50], [])
        unreleased.withdraw(table, run)
        assert rows(source) == ([50], [51])
        head = tables.head(f"quarantine.{source.name}")
        unreleased.withdraw(table, run)
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


def test_a_delivery_that_was_rejected_whole_and_then_replayed_is_where_it_was_at_each_release(new_source: Any) -> None:
    source = new_source("follow_replayed")
    delivery(source, DAY, 800, 900, 3)
    with pytest.raises(RejectedBatchError):
        source.land(DAY)
    publish(source, NEXT, 2)
    source.rules(UNIQUE, WIDE)
    assert source.replay(DAY)["rows_replayed"] == 3
    source.publish(DAY)
    assert rows(source) == ([50, 51, 52, 60], [])
    undone = rollback(f"bronze.{source.name}")["release_id"]
    assert rows(source) == ([60], [50, 51, 52])
    rollback(str(undone))
    assert rows(source) == ([50, 51, 52, 60], [])


def test_an_override_brings_back_what_its_landing_had_set_aside(new_source: Any) -> None:
    source = new_source("follow_override")
    publish(source, DAY, 1, 500)
    source.rules(UNIQUE, BOUNDS, expect("table_row_count_to_be_between", max_value=2))
    delivery(source, NEXT, 2, 3, 700)
    source.land(NEXT)
    with pytest.raises(GateFailedError):
        source.publish(NEXT)
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
    assert release_log.released()[table].version != tables.head(f"bronze_next.{source.name}")
    rollback(table, first)
    assert rows(source) == ([50], [51])
    head = tables.head(f"quarantine.{source.name}")
    rollback(table, first)
    assert tables.head(f"quarantine.{source.name}") == head


def test_a_roll_back_over_maintenance_takes_the_rows_in_quarantine_along(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("follow_maintained")
    table = f"bronze.{source.name}"
    only(monkeypatch, table)
    publish(source, DAY, 1, 500)
    publish(source, NEXT, 2, 700)
    publish(source, LAST, 3)
    outcome = maintain(30, grace_hours=0, today=dt.date(2020, 1, 8))
    assert outcome["compacted"][table] == f"{DAY}/{LAST}"
    compacted = release_log.released()[table].release_id
    publish(source, NEXT, 2, 3)
    assert rows(source) == ([50, 60, 61, 70], [51])
    rollback(table, compacted)
    assert rows(source) == ([50, 60, 70], [51, 61])
    assert source.replay(NEXT)["rows_replayed"] == 0


def test_a_landing_that_was_killed_before_its_bad_rows_were_written_is_not_released(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("half_landed")
    table = f"bronze.{source.name}"
    publish(source, DAY, 1, 500)
    delivery(source, NEXT, 2, 700)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(
            tables, "replace_interval", of_quarantine(lambda _rows: (_ for _ in ()).throw(KeyboardInterrupt))
        )
        source.land(NEXT)
    refused(table)
    assert source.replay(NEXT)["rows_replayed"] == 0  # takes back what is not whole
    assert not unreleased.pending(table) and source.bad("_source_row") == [{"_source_row": 2}]
    source.land(NEXT)
    source.publish(NEXT)
    assert rows(source) == ([50, 60], [51, 61])


def of_quarantine(change: Callable[[Any], Any]) -> Callable[..., int]:
    """Writes an interval, of a quarantine other rows than it is told."""
    write = tables.replace_interval

    def changed(df: Any, stored: str, *rest: Any, **more: Any) -> int:
        return write(change(df) if stored.startswith("quarantine.") else df, stored, *rest, **more)

    return changed


def refused(table: str) -> None:
    """Neither gate nor release go on with what a step has left in a table."""
    day = Interval.parse(NEXT)
    for again in (gate, release.release):
        with pytest.raises(UnfinishedWriteError, match=rf"{table}: the step land {NEXT} .*Run it again"):
            again([table], day)


@pytest.mark.parametrize("amounts", [(2, 700), (800, 900, 3)])  # taken in part, and rejected whole
def test_bad_rows_that_were_not_written_are_missed(
    new_source: Any, monkeypatch: pytest.MonkeyPatch, amounts: tuple[int, ...]
) -> None:
    source = new_source(f"missed_{len(amounts)}")
    publish(source, DAY, 1, 500)
    delivery(source, NEXT, *amounts)
    written = sum(amount <= 100 for amount in amounts) if len(amounts) == 2 else 0
    with monkeypatch.context() as patched:
        patched.setattr(tables, "replace_interval", of_quarantine(lambda rows: rows.limit(0)))
        with pytest.raises(RuntimeError, match=f"{len(amounts)} rows came in, but {written} were written and 0 quaran"):
            source.land(NEXT)
    if written:
        refused(f"bronze.{source.name}")


def test_the_bad_rows_of_days_that_lie_in_one_file_are_counted_for_each(new_source: Any) -> None:
    source = new_source("days_of_one_file")
    for day in (DAY, NEXT):
        delivery(source, day, 1, 500)
    counted = ("rows_in", "rows_out", "rows_quarantined")
    assert [source.land(f"{DAY}/{NEXT}")[name] for name in counted] == [4, 2, 2]
    source.publish(f"{DAY}/{NEXT}")
    for amounts, expected in (((1,), [1, 1, 0]), ((1, 2, 500), [3, 2, 1])):
        delivery(source, NEXT, *amounts)
        assert [source.land(NEXT)[name] for name in counted] == expected
        source.publish(NEXT)
    assert rows(source) == ([50, 60, 61], [51, 62])


def test_a_writer_that_loses_its_lock_while_it_writes_fails_and_what_it_wrote_is_not_released(
    new_source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = new_source("stolen")
    table = f"bronze.{source.name}"
    publish(source, DAY, 1, 500)
    delivery(source, NEXT, 2, 700)
    said, writes = Run.commit, []

    def stolen(run: Run) -> dict[str, Any]:
        """The lock has been checked, and the rows are written next: the last that the step writes."""
        assert run.lock is not None
        writes.append(run)
        if len(writes) == 2:
            taken = "update writer_tokens set token = token + 1 where table_name = %s"
            run.lock.connection.execute(taken, [run.lock.table])
        return said(run)

    with monkeypatch.context() as patched, pytest.raises(StaleWriterError, match="Another writer has taken over"):
        patched.setattr(Run, "commit", stolen)
        source.land(NEXT)
    assert unreleased.pending(table)
    refused(table)
    source.land(NEXT)
    source.publish(NEXT)
    assert rows(source) == ([50, 60], [51, 61])

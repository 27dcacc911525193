"""Write, gate, release: what readers see at each moment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest

import lakehouse
from lakehouse import locks, ops, release_log, tables
from lakehouse.engine import spark, sql
from lakehouse.interval import Interval
from lakehouse.locks import StaleWriterError, TableLockedError, writer
from lakehouse.platform import doctor
from lakehouse.quality import suites
from lakehouse.releases import release, unreleased
from lakehouse.releases.as_of import as_of
from lakehouse.releases.audit import GateFailedError, gate
from lakehouse.settings import settings
from lakehouse.steps import job, step
from tests.spark.orders import Orders

land = job("land")
TABLE = "bronze.airlines"
FIRST, SECOND = Interval.parse("2013-01-14"), Interval.parse("2013-01-15")


def visible() -> int:
    return spark().sql(f"select count(*) from {TABLE}").collect()[0][0]


@pytest.fixture(scope="module")
def first(drop: Path) -> None:
    """A release that every test has before it."""
    land("airlines", FIRST)
    gate([TABLE], FIRST)
    release.release([TABLE], FIRST)


@pytest.fixture(autouse=True)
def _nothing_pending(request: pytest.FixtureRequest) -> None:
    """Takes back what the test before has left unreleased; those of tables of their own need none of it."""
    if "orders" in request.fixturenames:
        return
    request.getfixturevalue("first")
    if unreleased.pending(TABLE):
        with step("test", TABLE, None, writes="bronze_next.airlines") as run:
            unreleased.withdraw(TABLE, run)


def test_readers_see_a_write_only_after_its_release() -> None:
    before = visible()
    landed = land("airlines", SECOND)
    assert visible() == before
    gate([TABLE], SECOND)
    assert visible() == before
    release.release([TABLE], SECOND)
    assert visible() == len(lakehouse.read(TABLE))
    assert release_log.released()[TABLE].version == landed["version"]


def test_a_gate_that_fails_takes_nothing_back_while_a_build_writes(orders: Orders) -> None:
    interval = orders.write("2013-01-01", carrier="'ZZ'")
    head = tables.head(orders.stored)

    def somebody_waits() -> bool:
        with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
            query = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            return connection.execute(query).fetchone() != (0,)

    with ThreadPoolExecutor(1) as pool:
        with writer("gold_next"):
            gated = pool.submit(gate, [orders.table], interval)
            deadline = time.monotonic() + 120
            while not (gated.done() or somebody_waits()):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert not gated.done() and tables.head(orders.stored) == head
        with pytest.raises(GateFailedError):
            gated.result(timeout=120)
    assert not unreleased.pending(orders.table)


@pytest.fixture
def pair(orders: Orders) -> Iterator[list[Orders]]:
    """Two tables that are released as one set, with a first day that is visible."""
    both = [orders, Orders(f"{orders.table}_too", orders.folder)]
    both[1].create()
    for each in both:
        interval = each.write("2013-01-01")
    gate(names := [each.table for each in both], interval)
    release.release(names, interval)
    yield both
    both[1].drop()


def shown(pair: list[Orders]) -> list[list[str]]:
    """The days that readers see of each table."""
    return [
        [row[0] for row in spark().sql(f"select distinct cast(day as string) from {each.table} order by 1").collect()]
        for each in pair
    ]


def test_a_set_of_which_one_table_fails_becomes_visible_nowhere(pair: list[Orders]) -> None:
    good, bad = pair
    names, releases = [good.table, bad.table], len(release_log.history())
    good.write("2013-01-02")
    interval = bad.write("2013-01-02", carrier="'ZZ'")
    with pytest.raises(GateFailedError, match=bad.table):
        gate(names, interval)
    for step_ in (gate, release.release):
        with pytest.raises(unreleased.WithdrawnError, match="withdrawn by the step gate"):
            step_(names, interval)
    assert shown(pair) == [["2013-01-01"]] * 2
    assert len(release_log.history()) == releases
    for each in pair:
        assert not unreleased.pending(each.table)
        head = spark().sql(f"select distinct cast(day as string) from {each.stored}").collect()
        assert [row[0] for row in head] == ["2013-01-01"]


def test_a_set_whose_release_was_killed_between_two_views_is_completed_by_its_retry(
    pair: list[Orders], monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in pair:
        interval = each.write("2013-01-02")
    gate(names := [each.table for each in pair], interval)
    point, pointed = release._point, []

    def killed(table: str, version: int) -> None:
        if pointed:
            raise KeyboardInterrupt
        pointed.append(table)
        point(table, version)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(release, "_point", killed)
        release.release(names, interval)
    assert sorted(map(len, shown(pair))) == [1, 2]
    # What was recorded is the truth meanwhile, also for a query on several tables.
    numbers = sorted({row["release_id"] for row in release_log.history() if row["table_name"] in names})
    joined = "select * from {} join {} using (day, id)".format(*names)
    assert [sql(as_of(joined, number)).count() for number in numbers] == [10, 20]
    releases = len(release_log.history())
    one = release.release(names, interval)
    assert shown(pair) == [["2013-01-01", "2013-01-02"]] * 2
    assert len(release_log.history()) == releases
    assert {release_log.released()[name].release_id for name in names} == {one}


def test_what_has_not_passed_a_gate_cannot_be_released() -> None:
    land("airlines", SECOND)
    with pytest.raises(release.NotAuditedError, match=r"lake gate bronze\.airlines"):
        release.release([TABLE], SECOND)


def test_a_version_that_breaks_its_suite_is_withdrawn_and_stays_so_when_the_gate_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = visible()
    suite = json.loads(suites.suite_path(TABLE).read_text())
    suite["expectations"].append(
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"max_value": 1}, "severity": "critical"}
    )
    strict = tmp_path / "airlines.json"
    strict.write_text(json.dumps(suite))
    monkeypatch.setattr(suites, "suite_path", lambda name: strict)
    landed = land("airlines", SECOND)
    with pytest.raises(GateFailedError, match="expect_table_row_count_to_be_between"):
        gate([TABLE], SECOND)
    assert visible() == before
    assert not unreleased.pending(TABLE)
    [verdict] = {
        row["verdict"]
        for row in ops.read("ops.gate_results").to_pylist()
        if (row["table_name"], row["version"]) == (TABLE, landed["version"])
    }
    assert verdict == "failed"
    monkeypatch.undo()
    with pytest.raises(unreleased.WithdrawnError, match="withdrawn by the step gate because"):
        gate([TABLE], SECOND)
    land("airlines", SECOND)
    gate([TABLE], SECOND)


def test_the_next_write_starts_from_the_released_rows() -> None:
    before = visible()
    land("airlines", SECOND)  # never released
    with step("test", TABLE, None, writes="bronze_next.airlines") as run:
        unreleased.withdraw(TABLE, run)
    assert spark().sql("select count(*) from bronze_next.airlines").collect()[0][0] == before
    assert not unreleased.pending(TABLE)


def test_releasing_twice_is_one_release() -> None:
    first = release.release([TABLE], FIRST)
    rows = ops.read("ops.releases").num_rows
    assert release.release([TABLE], FIRST) == first
    assert ops.read("ops.releases").num_rows == rows


def test_a_release_that_was_killed_before_its_views_followed_is_completed_by_its_retry() -> None:
    before = visible()
    spark().sql(f"create or replace view {TABLE} as select * from bronze_next.airlines version as of 0").collect()
    assert visible() == 0 and TABLE in release.outdated()
    release.release([TABLE], FIRST)
    assert visible() == before and TABLE not in release.outdated()


def test_a_view_that_somebody_has_dropped_is_found_and_shown_again() -> None:
    before = visible()
    sql(f"drop view {TABLE}").collect()
    [finding] = [each for each in doctor.examine() if each.subject == "released views"]
    assert TABLE in finding.found and "lake maintain" in finding.way_out
    release.release([TABLE], FIRST)
    assert visible() == before and TABLE not in release.outdated()


def test_an_earlier_release_can_still_be_read() -> None:
    first = release_log.released()[TABLE].release_id
    before = visible()
    land("airlines", SECOND)
    gate([TABLE], SECOND)
    release.release([TABLE], SECOND)
    assert len(lakehouse.read(TABLE, release_id=first)) == before


def test_a_number_is_given_once_though_the_database_is_younger_than_the_tables() -> None:
    newest = max(row["release_id"] for row in release_log.history())
    with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
        connection.execute("select setval('release_id', 1)")
    land("airlines", SECOND)
    gate([TABLE], SECOND)
    assert release.release([TABLE], SECOND) == newest + 1
    assert release_log.released()[TABLE].release_id == newest + 1


def test_a_release_waits_for_who_writes_its_table(monkeypatch: pytest.MonkeyPatch) -> None:
    land("airlines", SECOND)
    gate([TABLE], SECOND)
    monkeypatch.setattr(locks, "writer", partial(writer, timeout_seconds=1))
    with writer("bronze_next.airlines"), pytest.raises(TableLockedError, match=r"bronze_next\.airlines"):
        release.release([TABLE], SECOND)


def test_one_writer_at_a_time() -> None:
    with writer("bronze_next.airlines"), pytest.raises(TableLockedError), writer("bronze_next.airlines", 1):
        pass


def test_a_writer_that_is_not_heard_of_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SILENCE_SECONDS", 1)
    with writer("bronze_next.airlines") as paused:
        with writer("bronze_next.airlines", timeout_seconds=5) as fresh:
            assert fresh.token > paused.token
        with pytest.raises(StaleWriterError, match=r"bronze_next\.airlines was lost: terminating connection"):
            paused.check()


@pytest.mark.parametrize(("heartbeat", "gives_way"), [(0.2, True), (60, False)], ids=["is heard of", "never gives way"])
def test_a_writer_that_takes_its_time_keeps_its_lock(
    monkeypatch: pytest.MonkeyPatch, heartbeat: float, gives_way: bool
) -> None:
    monkeypatch.setattr(locks, "SILENCE_SECONDS", 3)
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", heartbeat)
    with writer("bronze_next.airlines", gives_way=gives_way) as slow:
        time.sleep(5)
        with pytest.raises(TableLockedError), writer("bronze_next.airlines", timeout_seconds=1):
            pass
        slow.check()


def test_a_writer_whose_lock_has_passed_on_does_not_commit() -> None:
    head = tables.head("bronze_next.airlines")
    with pytest.raises(StaleWriterError), writer("bronze_next.airlines") as stale:
        stale.connection.execute("select pg_advisory_unlock_all()")
        with writer("bronze_next.airlines") as fresh:
            assert fresh.token > stale.token
        stale.check()
    assert tables.head("bronze_next.airlines") == head

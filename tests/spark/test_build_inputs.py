"""A build names the versions of its sources that it has really read, whatever is released meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from lakehouse import ops, release, tables, warehouse
from lakehouse.audit import gate
from lakehouse.interval import Interval
from lakehouse.provenance import Ledger
from lakehouse.steps import job

land = job("land")
SOURCE, GOLD = "bronze.planes", "gold.dim_planes"
DAYS = [Interval.parse(f"2013-01-{day}") for day in (16, 17, 18, 19)]


def publish(interval: Interval) -> int:
    land("planes", interval)
    gate([SOURCE], interval)
    release.release([SOURCE], interval)
    return release.released()[SOURCE].version


def read_by(version: int) -> int:
    """The version of the source that the newest build of a version says it has read."""
    [write] = [each for each in Ledger.read().writes() if (each.table, each.version) == (GOLD, version)]
    return write.reads[SOURCE]


@pytest.fixture(scope="module", autouse=True)
def _published(drop: Any) -> None:
    publish(DAYS[0])


def test_a_release_that_readers_do_not_see_yet_was_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = release.released()[SOURCE].version
    with monkeypatch.context() as patched:
        patched.setattr(release, "_point", lambda _table, _version: None)  # killed after it was recorded
        recorded = publish(DAYS[1])
    assert recorded > before
    warehouse.build(DAYS[1], "+dim_planes")
    head = tables.head(tables.next_table(GOLD))
    assert head is not None and read_by(head) == before
    release.release([SOURCE], DAYS[1])
    warehouse.build(DAYS[1], "+dim_planes")
    head = tables.head(tables.next_table(GOLD))
    assert head is not None and read_by(head) == recorded


def test_a_release_in_the_middle_of_a_build_makes_it_build_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dbt, landings, built = warehouse.run_dbt, iter([lambda: publish(DAYS[2])]), []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        seconds = dbt(*arguments, **named)
        built.append(release.released()[SOURCE].version)
        next(landings, lambda: None)()
        return seconds

    monkeypatch.setattr(warehouse, "run_dbt", interrupted)
    warehouse.build(DAYS[2], "+dim_planes")
    before, now = built
    assert now == release.released()[SOURCE].version > before
    head = tables.head(tables.next_table(GOLD))
    assert head is not None and read_by(head) == now
    runs = ops.read("ops.runs").sort_by("ended_at").to_pylist()
    whole = next(run for run in reversed(runs) if run["dataset"] == "warehouse")
    assert dict(whole["versions_in"])[tables.next_table(SOURCE)] == now


def test_sources_that_do_not_come_to_rest_stop_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(100))
    monkeypatch.setattr(warehouse, "sources", lambda: {SOURCE: [next(numbers), 1]})
    monkeypatch.setattr(warehouse, "run_dbt", lambda *_arguments, **_named: {})
    with pytest.raises(warehouse.BuildFailedError, match=rf"{SOURCE}: released again and again .* 3 times"):
        warehouse.build(DAYS[3])

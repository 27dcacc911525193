"""When the scores of a day are compared with those of the days before it."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest

from lakehouse.interval import Interval
from lakehouse.releases import shift

TABLE = "ml.predictions_flight_delay"
DAY = Interval.parse("2013-03-20")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The releases."""
    rows: list[dict[str, Any]] = []
    monkeypatch.setattr(shift, "history", lambda: rows)
    monkeypatch.setattr(shift, "released", lambda: {TABLE: SimpleNamespace(version=3)})
    monkeypatch.setattr("lakehouse.tables.head", lambda table: 4)
    return rows


def row(table: str, first: str | None, last: str | None) -> dict[str, Any]:
    days = {f"interval_{end}": day and dt.date.fromisoformat(day) for end, day in (("start", first), ("end", last))}
    return {"table_name": table, **days}


def test_with_six_days_before_it_the_engine_is_not_asked(log: list[dict[str, Any]]) -> None:
    log += [row(TABLE, "2013-03-01", "2013-03-06"), row(TABLE, None, None), row("gold.x", "2013-03-01", "2013-03-10")]
    log += [row(TABLE, "2013-02-01", "2013-02-19"), row(TABLE, "2013-03-20", "2013-03-20")]
    assert shift.rules(TABLE, DAY) == ()
    log.append(row(TABLE, "2013-03-07", "2013-03-07"))
    assert [each.severity for each in shift.rules(TABLE, DAY)] == ["warning", "critical"]
    assert shift.rules(TABLE, None) == shift.rules("gold.fct_flights", DAY) == ()

"""Alerts: what events add up to, and what is due when."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lakehouse import tables
from lakehouse.alerts import Alert, Cause, due, fold, of_gates, of_measures
from lakehouse.interval import Interval
from lakehouse.settings import AlertRoute

NOON = dt.datetime(2013, 3, 1, 12, tzinfo=dt.UTC)
DAY = Interval.parse("2013-03-01")
CRITICAL = Cause("bronze.weather", DAY, "expect_x", "critical", "broken", 7, "run")
WARNING = Cause("bronze.weather", DAY, "expect_y", "warning", "odd")


def route(**arguments: Any) -> AlertRoute:
    return AlertRoute(notifier="a.B", **arguments)


def event(number: int, kind: str, minutes: int = 0, **columns: Any) -> dict[str, Any]:
    raised = {
        "table_name": "bronze.weather",
        "version": 7,
        "interval_start": DAY.start,
        "interval_end": DAY.end,
        "rule": "expect_x",
        "severity": "critical",
        "message": "broken",
        "run_id": "run",
    }
    empty = dict.fromkeys([*raised, "route", "by"])
    more = raised if kind == "raised" else {}
    return empty | {"alert_id": number, "at": NOON + dt.timedelta(minutes=minutes), "event": kind} | more | columns


def test_events_add_up_to_alerts() -> None:
    events = [
        event(1, "raised"),
        event(1, "sent", 1, route="mail"),
        event(2, "raised", 2, interval_start=None, interval_end=None),
        event(1, "sent", 3, route="chat"),
        event(1, "acknowledged", 4, by="ada"),
        event(2, "resolved", 5),
    ]
    first, second = fold(events)
    assert (first.cause, first.sent, first.acknowledged_by) == (CRITICAL, {"mail", "chat"}, "ada")
    assert (second.cause.interval, second.resolved_at) == (None, NOON + dt.timedelta(minutes=5))
    assert not first.unanswered and not second.unanswered


def test_an_answer_by_a_clock_that_is_behind_counts() -> None:
    [alert] = fold([event(1, "acknowledged", -5, by="ada"), event(1, "raised")])
    assert alert.acknowledged_by == "ada"


def test_severities_decide_who_is_told() -> None:
    alerts = [Alert(1, NOON, CRITICAL), Alert(2, NOON, WARNING)]
    routes = {"all": route(), "night": route(severities=["critical"]), "nobody": route(severities=["info"])}
    found = {name: [a.alert_id for a in chosen] for name, chosen in due(alerts, routes, NOON).items()}
    assert found == {"all": [1, 2], "night": [1]}


def test_a_route_is_told_once_and_an_escalation_waits() -> None:
    routes = {"mail": route(), "boss": route(after_minutes=30)}
    sent = [Alert(1, NOON, CRITICAL, sent=frozenset({"mail"}))]
    assert due(sent, routes, NOON + dt.timedelta(minutes=29)) == {}
    assert due(sent, routes, NOON + dt.timedelta(minutes=30)) == {"boss": sent}


@pytest.mark.parametrize("what", [{"acknowledged_by": "ada"}, {"resolved_at": NOON}])
def test_nobody_is_told_of_what_has_been_seen_or_is_over(what: dict[str, Any]) -> None:
    assert (
        due([Alert(1, NOON, CRITICAL, **what)], {"boss": route(after_minutes=30)}, NOON + dt.timedelta(hours=1)) == {}
    )


def test_the_same_rule_of_the_same_days_is_the_same_cause_whatever_the_version() -> None:
    again = Cause("bronze.weather", DAY, "expect_x", "critical", "still broken", 9, "another run")
    assert again.key == CRITICAL.key
    assert Cause("bronze.weather", None, "expect_x", "critical", "", 7).key != (
        Cause("bronze.weather", None, "expect_x", "critical", "", 8).key
    )


def test_a_route_that_is_not_clear_is_refused() -> None:
    with pytest.raises(ValidationError, match="severities"):
        route(severities=["fatal"])
    with pytest.raises(ValidationError, match="notifier"):
        AlertRoute(notifier="slack please")
    with pytest.raises(ValidationError, match="after"):
        route(after=3)


def test_a_model_is_an_alert_when_it_as_a_whole_or_its_data_is_red_and_one_drifted_feature_is_none() -> None:
    whose = {"model_name": "m", "model_version": 3, "role": "champion", "run_id": "r", "reference": 0.25}
    rows = [
        whose | {"metric": metric, "segment": segment, "value": 0.5, "verdict": verdict}
        for metric, segment, verdict in [
            ("skill", "all", "red"),
            ("psi", "score", "red"),
            ("psi", "feature=x", "red"),
            ("null_share", "feature=x", "red"),
            ("skill", "origin=JFK", "red"),
            ("drifted_share", "all", "green"),
        ]
    ]
    days = Interval.parse("2013-03-01/2013-03-07")
    causes, judged = of_measures(rows, days)
    assert judged == {("models.m", days)}
    assert [cause.rule for cause in causes] == ["skill", "psi of score", "null_share of x"]
    assert causes[2].message == "champion version 3: null_share of x is 0.5, to be compared with 0.25"
    assert of_measures([row | {"verdict": "green"} for row in rows], days) == ([], {("models.m", days)})


def test_a_gate_without_a_verdict_has_found_nothing_to_be_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    run = {"run_id": "r", "dataset": "bronze.weather", "interval_start": DAY.start, "interval_end": DAY.end}
    causes, judged = of_gates([run | {"status": "failed", "error": "WithdrawnError: it is not there any more"}])
    assert ([cause.rule for cause in causes], judged) == (["gate"], set())
    assert of_gates([run | {"status": "success", "error": None}]) == ([], {("bronze.weather", DAY)})

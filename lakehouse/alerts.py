"""Alerts: what a person should look at, each cause once, until somebody has seen it or it is over.

``ops.alerts`` keeps what has happened to each alert. Who is told, how and when is said by the setting ``alerts``;
:mod:`lakehouse.airflow.alerts` raises and sends them.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pyarrow.compute as pc

from lakehouse import locks, ops
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.settings import AlertRoute, settings
from lakehouse.steps import user

LOG = "ops.alerts"

log = logging.getLogger("lakehouse")

Scope = tuple[str, Interval | None]
"""A table, as readers name it, and the days."""


class NoSuchAlertError(LakeError, LookupError):
    """There is no alert of that number."""


@dataclass(frozen=True)
class Cause:
    """Why there is an alert.

    Attributes:
        table: The table that it is about, as readers name it.
        interval: The days that it is about.
        rule: What is broken: an expectation, ``gate`` when it came to no verdict, ``late`` or ``delivery`` of a source.
        severity: ``critical``, ``warning`` or ``info``.
        message: What a person has to know.
        version: The version that was judged.
        run_id: The gate's run.
    """

    table: str
    interval: Interval | None
    rule: str
    severity: str
    message: str
    version: int | None = None
    run_id: str | None = None

    @property
    def scope(self) -> Scope:
        """What has to be judged again to know whether the cause is gone."""
        return self.table, self.interval

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two causes the same: a step that is tried again writes another version of the same days."""
        return self.table, self.interval or self.version, self.rule, self.severity


@dataclass(frozen=True)
class Alert:
    """An alert, and what has happened to it.

    Attributes:
        alert_id: Its number.
        raised_at: When it was raised.
        cause: Why.
        sent: The routes that it was sent by.
        acknowledged_by: Who has seen it.
        resolved_at: When its cause was found to be gone.
    """

    alert_id: int
    raised_at: dt.datetime
    cause: Cause
    sent: frozenset[str] = frozenset()
    acknowledged_by: str | None = None
    resolved_at: dt.datetime | None = None

    @property
    def unanswered(self) -> bool:
        """Whether nobody has seen it, and its cause is not known to be gone."""
        return self.acknowledged_by is None and self.resolved_at is None

    def __str__(self) -> str:
        days = f" {self.cause.interval}" if self.cause.interval else ""
        return f"#{self.alert_id} {self.cause.severity}: {self.cause.table}{days}: {self.cause.message}"


def read() -> list[Alert]:
    """All alerts, the oldest first."""
    return fold(ops.read(LOG).sort_by("at").to_pylist())


def fold(events: Iterable[Mapping[str, Any]]) -> list[Alert]:
    """The alerts that events have led to.

    Args:
        events: Rows of ``ops.alerts``, the oldest first.
    """
    found: dict[int, Alert] = {}
    # By the clock of another machine, an answer may be older than what it answers.
    for event in sorted(events, key=lambda event: event["event"] != "raised"):
        number = event["alert_id"]
        match event["event"]:
            case "raised":
                found[number] = Alert(number, event["at"], _cause(event))
            case "sent":
                found[number] = replace(found[number], sent=found[number].sent | {event["route"]})
            case "acknowledged":
                found[number] = replace(found[number], acknowledged_by=event["by"])
            case "resolved":
                found[number] = replace(found[number], resolved_at=event["at"])
    return [found[number] for number in sorted(found)]


def due(alerts: Iterable[Alert], routes: Mapping[str, AlertRoute], now: dt.datetime) -> dict[str, list[Alert]]:
    """What is to be sent by which route.

    Args:
        alerts: All alerts.
        routes: The setting ``alerts``.
        now: The present.
    """
    open_ = [alert for alert in alerts if alert.unanswered]
    found = {
        name: [
            alert
            for alert in open_
            if alert.cause.severity in route.severities
            and name not in alert.sent
            and now - alert.raised_at >= dt.timedelta(minutes=route.after_minutes)
        ]
        for name, route in routes.items()
    }
    return {name: chosen for name, chosen in found.items() if chosen}


def report(causes: Iterable[Cause], judged: Collection[Scope] = ()) -> None:
    """Raise an alert for each cause that has none yet, and end those whose cause is gone.

    An alert that somebody has acknowledged stays the alert of its cause.

    Args:
        causes: What is broken now.
        judged: Everything that has been looked at.
    """
    unique = {cause.key: cause for cause in causes}
    with locks.writer(LOG) as lock:
        known = read()
        now = dt.datetime.now(dt.UTC)
        open_ = {alert.cause.key: alert for alert in known if alert.resolved_at is None}
        events: list[dict[str, Any]] = [
            {"alert_id": alert.alert_id, "at": now, "event": "resolved"}
            for key, alert in open_.items()
            if alert.cause.scope in judged and key not in unique
        ]
        number = max((alert.alert_id for alert in known), default=0)
        for key, cause in unique.items():
            if key not in open_:
                number += 1
                events.append({"alert_id": number, "at": now, "event": "raised", **_columns(cause)})
        if events:
            lock.check()
            ops.append(LOG, events)


def acknowledge(alert_id: int, by: str | None = None) -> Alert:
    """Say that somebody has seen an alert: it is sent to nobody else.

    Args:
        alert_id: Its number.
        by: Who; the user of the process without it.

    Raises:
        NoSuchAlertError: There is no such alert.
    """
    with locks.writer(LOG) as lock:
        alert = next((alert for alert in read() if alert.alert_id == alert_id), None)
        if alert is None:
            raise NoSuchAlertError(
                f"There is no alert {alert_id}. `lake alerts list --all` shows those that there are."
            )
        if alert.acknowledged_by is None:
            alert = replace(alert, acknowledged_by=by or user())
            event = {"event": "acknowledged", "by": alert.acknowledged_by}
            lock.check()
            ops.append(LOG, [{"alert_id": alert_id, "at": dt.datetime.now(dt.UTC), **event}])
        return alert


def outstanding() -> dict[str, list[Alert]]:
    """What is to be sent now, by the name of the route."""
    return due(read(), settings().alerts, dt.datetime.now(dt.UTC))


def deliver(send: Callable[[AlertRoute, list[Alert]], None]) -> None:
    """Send what is due, as one message by each route.

    Args:
        send: Sends some alerts by a route.
    """
    routes = settings().alerts
    with locks.writer(LOG) as lock, ExitStack() as others:
        # The stack calls all of them, even when one fails; what was not sent is due the next time.
        for name, chosen in outstanding().items():
            others.callback(_deliver, lock, send, name, routes[name], chosen)


def of_gates(runs: Collection[Mapping[str, Any]]) -> tuple[list[Cause], set[Scope]]:
    """What some gates have found to be broken, and all that they have judged.

    Args:
        runs: Their rows of ``ops.runs``.
    """
    results = ops.read("ops.gate_results")
    ids = pc.cast([run["run_id"] for run in runs], results["run_id"].type)
    rows = results.filter(pc.is_in(results["run_id"], value_set=ids)).to_pylist()
    causes: list[Cause] = []
    judged: set[Scope] = set()
    for run in runs:
        interval = Interval(run["interval_start"], run["interval_end"]) if run["interval_start"] else None
        own = [row for row in rows if row["run_id"] == run["run_id"]]
        judged |= {(row["table_name"], interval) for row in own}
        # One that has failed without a verdict, since its rows were withdrawn for one, has found nothing to be gone.
        if own or run["status"] == "success":
            judged.add((run["dataset"], interval))
        # Without a history to compare with, success is null: nothing is known to be broken.
        broken = [row for row in own if row["success"] is False]
        many = Counter((row["table_name"], *_rule(row)) for row in broken)
        for row in reversed(broken):
            rule, severity = _rule(row)
            count = many[row["table_name"], rule, severity]
            message = row["details"] + (f" (and {count - 1} more of that kind)" if count > 1 else "")
            causes.append(Cause(row["table_name"], interval, rule, severity, message, row["version"], run["run_id"]))
        if run["status"] == "failed" and not any(row["verdict"] == "failed" for row in own):
            causes.append(Cause(run["dataset"], interval, "gate", "critical", run["error"], run_id=run["run_id"]))
    return causes, judged


def of_measures(rows: Iterable[Mapping[str, Any]], interval: Interval | None) -> tuple[list[Cause], set[Scope]]:
    """What monitoring has found red of whole models, or of their data.

    One feature that has drifted is no cause: how many have is judged, too. One that is missing is.

    Args:
        rows: Rows of ``ops.model_metrics``.
        interval: The days that they are about.
    """
    causes: list[Cause] = []
    judged: set[Scope] = set()
    for row in rows:
        scope = f"models.{row['model_name']}", interval
        judged.add(scope)
        whole = row["segment"] == "all" or row["metric"] == "null_share" or row["segment"] == "score"
        if row["verdict"] == "red" and whole:
            where = "" if row["segment"] == "all" else f" of {row['segment'].removeprefix('feature=')}"
            rule = f"{row['metric']}{where}"
            message = (
                f"{row['role']} version {row['model_version']}: {rule} is {row['value']:.4g}, "
                f"to be compared with {row['reference']:.4g}"
            )
            causes.append(Cause(*scope, rule, "warning", message, row["model_version"], row["run_id"]))
    return causes, judged


def _rule(row: Mapping[str, Any]) -> tuple[str, str]:
    column = f"({row['column_name']})" if row["column_name"] else ""
    return f"{row['expectation']}{column}", row["severity"]


def _deliver(
    lock: locks.WriterLock,
    send: Callable[[AlertRoute, list[Alert]], None],
    name: str,
    route: AlertRoute,
    chosen: list[Alert],
) -> None:
    lock.check()
    log.info("%d alerts go to the route %s", len(chosen), name)
    send(route, chosen)
    now = dt.datetime.now(dt.UTC)
    ops.append(LOG, [{"alert_id": alert.alert_id, "at": now, "event": "sent", "route": name} for alert in chosen])


def _columns(cause: Cause) -> dict[str, Any]:
    return {
        "table_name": cause.table,
        "version": cause.version,
        "interval_start": cause.interval and cause.interval.start,
        "interval_end": cause.interval and cause.interval.end,
        "rule": cause.rule,
        "severity": cause.severity,
        "message": cause.message,
        "run_id": cause.run_id,
    }


def _cause(event: Mapping[str, Any]) -> Cause:
    return Cause(
        event["table_name"],
        Interval(event["interval_start"], event["interval_end"]) if event["interval_start"] else None,
        event["rule"],
        event["severity"],
        event["message"],
        event["version"],
        event["run_id"],
    )

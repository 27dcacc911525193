"""Roll back a model: make an earlier champion score again, and score again what the withdrawn one has scored."""

from __future__ import annotations

import datetime as dt
from typing import Any

from lakehouse import release_log
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.registry import roles
from lakehouse.release_log import released
from lakehouse.releases.audit import gate
from lakehouse.releases.release import release
from lakehouse.steps import job, step, user


def run(
    model: str,
    reason: str,
    to: int | None = None,
    since: dt.date | None = None,
    rescore: bool = False,
    by: str | None = None,
) -> dict[str, Any]:
    """Make an earlier version champion again.

    A rollback that was cut off while it scored goes on when it is called again with ``rescore``.

    Args:
        model: Name of a model folder.
        reason: Why.
        to: The version, which was champion before; the champion before the present one without it.
        since: First day that it is champion of again; every day that it may score without it.
        rescore: Also score, gate and release again the days whose visible predictions are the withdrawn version's.
        by: Who wants it; the user of the process without it.

    Returns:
        ``model_version``, ``event``, ``champion``, ``reason``, ``rescored`` (intervals).

    Raises:
        lakehouse.registry.roles.RoleError: There is no such champion to go back to, or no reason.
    """
    spec = model_folders.load(model)
    table, column = spec.predictions_table, spec.features.interval_column
    event = _unfinished(model, table, column, to) if rescore else None
    if event is None:
        with step("rollback_model", model, None, writes=f"models.{model}") as this:
            version = roles.previous(model) if to is None else roles.former(model, to)
            event = roles.appoint(spec, version, roles.ROLLED_BACK, reason, by or user(), this, since)
            this.details = {"event": event["event"], "reason": reason, "champion_before": event["champion_before"]}
    rescored = []
    for interval in _scored_by(table, column, event) if rescore else []:
        job("score")(model, interval)
        gate([table], interval)
        release([table], interval)
        rescored.append(str(interval))
    return {**roles.outcome(event), "rescored": rescored}


def _unfinished(model: str, table: str, column: str, to: int | None) -> dict[str, Any] | None:
    """The rollback that is in force, if days of the withdrawn version are visible: its scoring was cut off."""
    event = roles.in_office(roles.events(model))
    if event is None or event["event"] != roles.ROLLED_BACK or to not in (None, event["model_version"]):
        return None
    return event if _scored_by(table, column, event) else None


def _scored_by(table: str, column: str, event: dict[str, Any]) -> list[Interval]:
    if table not in released() or event["champion_before"] is None:
        return []
    withdrawn = [("model_version", "=", event["champion_before"]), (column, ">=", event["serves_from"])]
    rows = release_log.read(table, columns=[column], where=withdrawn)
    return [Interval(day, day) for day in sorted(set(rows[column]))]

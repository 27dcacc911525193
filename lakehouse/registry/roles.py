"""Roles: which version of a model is champion on which day, who decided it, and on what evidence.

``ops.model_events`` is what counts, and is only ever added to; the aliases in MLflow show it. A version serves from
the first day that it could have known of, the day after its training window; and of days that readers saw the
champion's predictions of when it was decided about, from the day after the last. So a past interval is scored by the
version that served then, never by one that came later or has seen its outcome.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import ops
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.registry import registry
from lakehouse.registry.registry import CHALLENGER, CHAMPION, ModelVersion

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.registry.comparison import Comparison
    from lakehouse.steps import Run

PROMOTED, KEPT, ROLLED_BACK, REGISTERED = "promoted", "kept out", "rolled back", "registered"
REJECTED = "rejected"
Event = dict[str, Any]
"""A row of ``ops.model_events``."""

APPOINTMENTS = (PROMOTED, ROLLED_BACK)
"""Events after which the version of the event is champion."""


class NoChampionError(LakeError, LookupError):
    """No version of a model may score an interval."""


class RoleError(LakeError):
    """A role cannot be given as asked; nothing has changed."""


def events(name: str) -> list[dict[str, Any]]:
    """What has happened to the roles of a model's versions, oldest first.

    Args:
        name: The model.
    """
    log: list[dict[str, Any]] = ops.read("ops.model_events", where=pc.field("model_name") == name).to_pylist()
    return sorted(log, key=lambda row: row["at"])


def in_office(log: Sequence[Event], day: dt.date | None = None) -> Event | None:
    """The event that made the champion of a day.

    Args:
        log: Outcome of :func:`events`.
        day: A day that is scored; the present without it.
    """
    found = [row for row in log if row["event"] in APPOINTMENTS and (day is None or row["serves_from"] <= day)]
    return found[-1] if found else None


def succession(log: Sequence[Event], day: dt.date) -> list[int]:
    """The versions that a day could be scored with, the champion last and the one to fall back to before it.

    Args:
        log: Outcome of :func:`events`.
        day: The day that is scored.

    Returns:
        Versions in the order in which they became champion, less those that were taken back since.
    """
    line: list[int] = []
    for row in log:
        if row["event"] not in APPOINTMENTS or row["serves_from"] > day:
            continue
        gone = {row["model_version"], row["champion_before"] if row["event"] == ROLLED_BACK else None}
        line = [number for number in line if number not in gone] + [row["model_version"]]
    return line


def challenging(log: Sequence[Event], day: dt.date | None = None) -> int | None:
    """The version that challenges the champion of a day.

    The newest that waits for a person; without one, the last that was decided about, if it was kept out.

    Args:
        log: Outcome of :func:`events`.
        day: The day that is scored; the present without it.
    """
    decided = [row for row in log if day is None or row["serves_from"] <= day]
    if (number := waiting(decided)) is not None:
        return number
    if not decided or decided[-1]["event"] != KEPT:
        return None
    return None if _number(decided[-1]) == _number(in_office(log, day)) else _number(decided[-1])


def may_be_shown(log: Sequence[Event], number: int) -> bool:
    """Whether readers may see what a challenger says: not of one that was not compared, or would not pass the gate.

    Args:
        log: Outcome of :func:`events`; its newest word about the version counts, also for the days before it.
        number: The challenger.
    """
    newest = [row for row in log if row["model_version"] == number][-1]
    if newest["event"] != KEPT:
        return True
    found = json.loads(newest["evidence"]) if newest.get("evidence") else {"gate_open": False}
    # Of a decision that does not say so, every rule of the gate has to hold.
    return bool(found.get("gate_open", all(found.get("gate", {}).values())))


def waiting(log: Sequence[Event]) -> int | None:
    """The newest version that waits for a person, whatever has been decided about others meanwhile.

    One that is older than the champion waits no longer.

    Args:
        log: Outcome of :func:`events`.
    """
    last = {row["model_version"]: row["event"] for row in log}
    champion = _number(in_office(log)) or 0
    return max((each for each, event in last.items() if event == REGISTERED and each > champion), default=None)


def champion(name: str, day: dt.date | None = None, expected: int | None = None) -> ModelVersion:
    """The version that scores a day. Call once per run and keep the answer: it can change.

    Args:
        name: The model.
        day: The day; the present without it.
        expected: The version that it has to be; any without it.

    Raises:
        NoChampionError: The model has not been trained, no version was good enough, all have seen later data, or it
            is not the expected version.
    """
    log = events(name)
    event = in_office(log, day)
    if event is not None:
        if expected not in (None, event["model_version"]):
            raise another_champion(name, event["model_version"], day, expected)
        return registry.version(name, event["model_version"])
    raise no_champion(name, log, day)


def another_champion(name: str, number: int, day: dt.date | None, expected: int | None) -> NoChampionError:
    """That a day has another champion than was expected.

    Args:
        name: The model.
        number: The champion.
        day: The day; the present without it.
        expected: The version that the caller believed to be champion.
    """
    return NoChampionError(
        f"Version {expected} of {name} is not the champion{f' of {day}' if day else ''}: that is version "
        f"{number}. `lake models {name}` says why; ask for that one, or for none."
    )


def no_champion(name: str, log: Sequence[Event], day: dt.date | None) -> NoChampionError:
    """Why no version may score a day, and what to do.

    Args:
        name: The model.
        log: Outcome of :func:`events`.
        day: The day; the present without it.
    """
    present = in_office(log)
    if present is not None:
        first = min(row["serves_from"] for row in log if row["event"] in APPOINTMENTS)
        return NoChampionError(
            f"No version of {name} may score {day}: the champion, version {present['model_version']}, serves from "
            f"{present['serves_from']} on, and no version served before {first}. Train one on "
            f"earlier days: lake train {name} --interval FIRST/LAST. What a version would have said all the same, "
            "having seen the outcomes, says lake score --what-if VERSION, apart from the predictions."
        )
    return NoChampionError(
        f"The model {name} has no champion. Train it first: lake train {name} --interval FIRST/LAST; "
        "a version that does not beat the baseline does not become champion."
    )


def decide(
    spec: ModelSpec,
    version: ModelVersion,
    comparison: Comparison,
    run: Run,
    by: str,
    approved: bool | None = None,
    note: str = "",
) -> dict[str, Any]:
    """Act on a comparison: alone, or together with what a person has answered.

    Args:
        spec: The model.
        version: The version that was compared.
        comparison: Outcome of :func:`lakehouse.registry.comparison.compare`.
        run: The step that does it, which holds the model's lock.
        by: Who wants it, or has answered.
        approved: The answer; None when nobody was asked.
        note: What that person has added.

    Returns:
        The event.
    """
    won = comparison.decision.promote
    event = (PROMOTED if won else KEPT) if approved is None else (PROMOTED if won and approved else REJECTED)
    answer = "" if approved is None else f"{'approved' if approved else 'turned down'} by {by}"
    words = ", ".join(filter(None, [answer, note.strip()]))
    reason = f"{words}; {comparison}" if words else str(comparison)
    return _record(spec, version, event, reason, by, run, comparison.champion, **comparison.facts())


def keep_out(spec: ModelSpec, version: ModelVersion, reason: str, by: str, run: Run) -> dict[str, Any]:
    """Keep a version out that cannot be compared fairly: it challenges the champion in the shadow alone.

    Args:
        spec: The model.
        version: The version.
        reason: Why it cannot.
        by: Who wanted it compared.
        run: The step that does it, which holds the model's lock.
    """
    return _record(spec, version, KEPT, f"not compared: {reason}", by, run, _number(in_office(events(spec.name))))


def appoint(
    spec: ModelSpec, version: ModelVersion, event: str, reason: str, by: str, run: Run, since: dt.date | None = None
) -> dict[str, Any]:
    """Make a version champion by a person's word.

    Args:
        spec: The model.
        version: The version.
        event: ``promoted`` or ``rolled back``.
        reason: Why.
        by: Who says so.
        run: The step that does it, which holds the model's lock.
        since: First day that it is champion of. Without it a version that is promoted follows the champion, and one
            that is rolled back to has every day that it may score.

    Raises:
        RoleError: There is no reason, it is the champion already, or it has seen the day ``since``.
    """
    if not reason.strip():
        raise RoleError("This needs a reason: it is kept with the model's history.")
    first = serves_from(spec, version)
    if since is not None and since < first:
        raise RoleError(f"{spec.name} version {version.version} has seen data of {since}: it serves from {first}.")
    before = _number(in_office(events(spec.name)))
    if before == version.version:
        raise RoleError(f"{spec.name} version {before} is the champion already.")
    if since is not None or event == ROLLED_BACK:
        return _record(spec, version, event, reason.strip(), by, run, before, serves_from=since or first)
    return _record(spec, version, event, reason.strip(), by, run, before)


def register(spec: ModelSpec, version: ModelVersion, by: str, run: Run) -> dict[str, Any]:
    """Note that a version waits for a person to promote it.

    Args:
        spec: The model.
        version: The version.
        by: Who has trained it.
        run: The step that does it.
    """
    reason = f"waits for an approval, in the DAG promote_{spec.name} or by lake promote {spec.name}@{version.version}"
    return _record(spec, version, REGISTERED, reason, by, run, _number(in_office(events(spec.name))))


def show(name: str) -> None:
    """Make MLflow say what ``ops.model_events`` says, where a run that was killed has left it behind.

    Args:
        name: The model.
    """
    log = events(name)
    if log:
        newest = log[-1]
        # Of a version that was deleted there, nothing can be shown.
        there = {each.version for each in registry.versions(name)}
        if newest["model_version"] in there:
            registry.set_reason(name, newest["model_version"], f"{newest['event']}: {newest['reason']}")
        for alias, number in ((CHAMPION, _number(in_office(log))), (CHALLENGER, challenging(log))):
            registry.set_alias(name, alias, number if number in there else None)


def previous(name: str) -> ModelVersion:
    """The version that was champion before the present one.

    Args:
        name: The model.

    Raises:
        RoleError: There was none.
    """
    office = in_office(events(name))
    before = office and office["champion_before"]
    if office is None or not isinstance(before, int):
        raise RoleError(f"{name} has no champion before the present one to go back to. See `lake models {name}`.")
    if office["event"] == ROLLED_BACK:
        raise RoleError(
            f"{name} has been rolled back already, from version {before} to {office['model_version']}. "
            "Say with --to which version it shall be."
        )
    return registry.version(name, before)


def former(name: str, number: int) -> ModelVersion:
    """A version that was champion, to go back to.

    Args:
        name: The model.
        number: The version.

    Raises:
        lakehouse.registry.registry.UnknownVersionError: There is no such version.
        RoleError: It was never champion.
    """
    version = registry.version(name, number)
    if not any(row["event"] in APPOINTMENTS and row["model_version"] == number for row in events(name)):
        raise RoleError(
            f"{name} version {number} was never champion, so there is no way back to it. To make it champion: "
            f"lake promote {name}@{number}."
        )
    return version


def _record(
    spec: ModelSpec, version: ModelVersion, event: str, reason: str, by: str, run: Run, before: int | None, **facts: Any
) -> dict[str, Any]:
    row = {
        "at": dt.datetime.now(dt.UTC),
        "model_name": spec.name,
        "model_version": version.version,
        "event": event,
        "champion_before": before,
        # Who is turned down challenges nobody on any day; others come after what has been served.
        "serves_from": serves_from(spec, version) if event == REJECTED else follows_from(spec, version, before),
        "reason": reason,
        "decided_by": by,
        "run_id": run.run_id,
        "release_id": int(version.tags["release_id"]),
        **facts,
    }
    run.check_lock()
    ops.append("ops.model_events", [row])
    registry.set_reason(spec.name, version.version, f"{event}: {reason}")
    show(spec.name)
    run.say("%s version %d %s: %s", spec.name, version.version, event, reason)
    return row


def _number(event: Event | None) -> int | None:
    return None if event is None else int(event["model_version"])


def serves_from(spec: ModelSpec, version: ModelVersion) -> dt.date:
    """The first day that a version may score: those before it are in its training window, or their outcomes are.

    Args:
        spec: The model.
        version: The version.
    """
    return spec.serves_from(Interval.parse(version.tags["training_window"]).end)


def follows_from(spec: ModelSpec, version: ModelVersion, before: int | None) -> dt.date:
    """The first day that a version may score in the place of a champion, or beside it.

    A day whose predictions readers have seen had its champion; what is decided afterwards changes nothing of it.

    Args:
        spec: The model.
        version: The version that something is decided about.
        before: The champion; without one, no day has been served.
    """
    first = serves_from(spec, version)
    if before is None:
        return first
    from lakehouse.quality.freshness import newest_day
    from lakehouse.release_log import history

    served = newest_day(spec.predictions_table, history())
    return first if served is None else max(first, served + dt.timedelta(days=1))


def outcome(event: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to know of an event.

    Args:
        event: A row of ``ops.model_events``.
    """
    won = event["event"] in APPOINTMENTS
    return {
        "model_version": event["model_version"],
        "event": event["event"],
        "champion": event["model_version"] if won else event["champion_before"],
        "reason": event["reason"],
    }

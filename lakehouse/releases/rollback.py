"""Roll back: make an earlier released state of tables visible again, as a new release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lakehouse import release_log, steps, tables
from lakehouse.errors import LakeError
from lakehouse.release_log import LOG, NotReleasedError
from lakehouse.releases import release as releases
from lakehouse.releases import unreleased
from lakehouse.steps import step


class RollbackError(LakeError):
    """What was asked for makes no sense, or is not clear; nothing has changed."""


@dataclass(frozen=True)
class Target:
    """Where one table goes back to.

    Attributes:
        version: The Delta version that readers saw then.
        release_id: The release that had made it visible.
    """

    version: int
    release_id: int


def rollback(what: str, to: int | None = None, by: str | None = None) -> dict[str, Any]:
    """Point readers back at what they saw before, and have the next write go on from there.

    The earlier versions have passed their gates, or were published by a person's word, so they are not checked again.

    Args:
        what: A release, whose tables all go back as one set, or one table.
        to: The release whose state they go back to; without it the state right before the release that is undone.
        by: Who wants it; the user of the process without it.

    Returns:
        ``release_id``, ``versions`` by table, and ``undone``: table to the intervals that were released since and are
        no longer visible.

    Raises:
        RollbackError: The request makes no sense.
        lakehouse.tables.VersionGoneError: A version is no longer kept.
    """
    names = sorted(plan(release_log.history(), what, to))
    with releases.writers(names) as held, step("rollback", ", ".join(names), None, writes=LOG) as run:
        run.beside = held.values()
        log = release_log.history()
        targets = plan(log, what, to)
        undone = {table: _intervals_since(log, table, target) for table, target in targets.items()}
        for table in names:
            if unreleased.pending(table):
                run.say("%s: rows that were not released are withdrawn with it", table)
        if to is None and what.isdigit():
            reason = f"rollback of release {what}"
        else:
            reason = f"rollback to release {to or targets[what].release_id}"
        release_id = releases.publish(
            {table: target.version for table, target in targets.items()},
            run,
            reason=reason,
            by=by or steps.user(),
            marks={table: {"rollback_to": target.release_id} for table, target in targets.items()},
            queries=views_then(log, int(what), to) if what.isdigit() and tables.of_warehouse(names) else None,
        )
        for table, intervals in sorted(undone.items()):
            shown = ", ".join(intervals) or "none"
            run.say("%s: version %d; days no longer visible as released: %s", table, targets[table].version, shown)
        return {
            "release_id": release_id,
            "versions": {table: target.version for table, target in targets.items()},
            "undone": undone,
        }


def plan(log: list[dict[str, Any]], what: str, to: int | None = None) -> dict[str, Target]:
    """Where each table that is meant goes back to.

    Args:
        log: The rows of ``ops.releases``, oldest first.
        what: Number of a release, or name of a table.
        to: A release to go back to.

    Raises:
        RollbackError: The request makes no sense.
    """
    known = {row["release_id"] for row in log}
    if to is not None and to not in known:
        raise RollbackError(f"There is no release {to}. `lake releases` lists them.")
    if what.isdigit():
        return _plan_release(log, int(what), to, known)
    return {what: _plan_table(log, what, to)}


def views_then(log: list[dict[str, Any]], release_id: int, to: int | None) -> dict[str, str]:
    """The queries that views without rows go back to, together with the tables of a release.

    Args:
        log: The rows of ``ops.releases``, oldest first.
        release_id: The release whose tables go back.
        to: A release to go back to; without it only what the release has changed goes back.

    Raises:
        RollbackError: A view has got yet another query since.
    """
    then = release_log.views(release_id - 1 if to is None else to)
    if to is not None:
        return then
    of_release = {name for row in log if row["release_id"] == release_id for name, _ in row["views"] or ()}
    then = {name: query for name, query in then.items() if name in of_release}
    now = {name: (query, row["release_id"]) for row in log for name, query in row["views"] or ()}
    later = {name: now[name][1] for name, query in then.items() if now[name][0] != query}
    if others := {name: by for name, by in later.items() if by != release_id}:
        name, by = min(others.items())
        raise RollbackError(
            f"{name} has got another query since, by release {by}. Roll back {by} first, or say with --to which state "
            f"release {release_id} shall go back to."
        )
    return then


def _plan_release(log: list[dict[str, Any]], release_id: int, to: int | None, known: set[int]) -> dict[str, Target]:
    if release_id not in known:
        raise RollbackError(f"There is no release {release_id}. `lake releases` lists them.")
    if to is not None and to >= release_id:
        raise RollbackError(f"Release {to} is not before release {release_id}: a roll back goes to an earlier one.")
    if maintained := [row for row in log if row["release_id"] == release_id and _is_maintenance(row)]:
        carried = ", ".join(f"{row['maintains']} of {row['table_name']}" for row in maintained)
        raise RollbackError(
            f"Release {release_id} was made by maintenance and brought nothing new. It carries on other releases, "
            f"which can be rolled back: {carried}."
        )
    now = _state(_of_writers(log), None)
    targets: dict[str, Target] = {}
    for table in (row["table_name"] for row in log if row["release_id"] == release_id):
        row = _state(log, release_id - 1 if to is None else to).get(table)
        if row is None:
            raise RollbackError(
                f"{table} had no release before {release_id if to is None else f'or at {to}'}: there is nothing to go "
                "back to. Roll back the other tables of the set by name."
            )
        if to is None and now[table]["release_id"] != release_id and now[table]["version"] != row["version"]:
            later = now[table]["release_id"]
            raise RollbackError(
                f"{table} has been released again since, by release {later}. Roll back {later} first, or say with "
                f"--to which state all tables of release {release_id} shall go back to."
            )
        targets[table] = Target(row["version"], row["release_id"])
    return targets


def _plan_table(log: list[dict[str, Any]], table: str, to: int | None) -> Target:
    now = _state(_of_writers(log), None)
    if table not in now:
        raise NotReleasedError(
            f"{table} is neither a released table nor the number of a release. Released tables: "
            f"{', '.join(sorted(now)) or 'none yet'}."
        )
    current = now[table]
    if to is None and current["rollback_to"] is not None:
        raise RollbackError(
            f"{table} has been rolled back already, to release {current['rollback_to']} (by release "
            f"{current['release_id']}). Say with --to how far it shall go; --to {current['rollback_to']} completes "
            "that one, if it was interrupted."
        )
    row = _state(log, current["release_id"] - 1 if to is None else to).get(table)
    if row is None:
        raise RollbackError(
            f"{table} had no release before {current['release_id'] if to is None else f'or at {to}'}: there is nothing "
            "to go back to."
        )
    return Target(row["version"], row["release_id"])


def _state(log: list[dict[str, Any]], as_of: int | None) -> dict[str, dict[str, Any]]:
    return {row["table_name"]: row for row in log if as_of is None or row["release_id"] <= as_of}


def _of_writers(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The releases that brought something new: going back over one of maintenance would change nothing."""
    return [row for row in log if not _is_maintenance(row)]


def _is_maintenance(row: dict[str, Any]) -> bool:
    return row.get("maintains") is not None


def _intervals_since(log: list[dict[str, Any]], table: str, target: Target) -> list[str]:
    """The intervals of a table that were released after the target, as they are written: a day, or FIRST/LAST."""
    spans = {
        (row["interval_start"], row["interval_end"])
        for row in log
        if row["table_name"] == table and row["release_id"] > target.release_id and row["interval_start"]
    }
    return [str(start) if start == end else f"{start}/{end}" for start, end in sorted(spans)]

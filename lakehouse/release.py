"""Release: point the views that people read at audited versions, and say so in ``ops.releases``.

``ops.releases`` is the truth. The set of versions is recorded there in one commit, and the views follow it;
a release that is killed between the two is completed by running it again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.compute as pc

from lakehouse import ops, tables
from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.settings import settings
from lakehouse.steps import Run, step

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.interval import Interval


class NotAuditedError(LakeError):
    """A version has not passed its gate, so it must not become visible."""


class NotReleasedError(LakeError, LookupError):
    """A table has no released version."""


@dataclass(frozen=True)
class Released:
    """What readers see of one table.

    Attributes:
        table: Name that readers use.
        version: Delta version of the stored table behind it.
        release_id: The release that made it visible.
    """

    table: str
    version: int
    release_id: int


def released(as_of: int | None = None) -> dict[str, Released]:
    """The released version of every table.

    Args:
        as_of: A release: the state right after it. The present state without it.
    """
    log = ops.read("ops.releases")
    if as_of is not None:
        log = log.filter(pc.less_equal(log["release_id"], as_of))
    state: dict[str, Released] = {}
    for row in log.sort_by("release_id").to_pylist():
        state[row["table_name"]] = Released(row["table_name"], row["version"], row["release_id"])
    return state


def pending(table: str) -> bool:
    """Whether the stored table holds rows that have not been released.

    Args:
        table: Name that readers use.
    """
    stored = tables.next_table(table)
    version = tables.head(stored)
    if version is None:
        return False
    state = released().get(table)
    base = state.version if state else 0
    if version == base:
        return False
    return tables.last_commit(stored)["userMetadata"].get("restored") != base


def withdraw(table: str, run: Run) -> None:
    """Bring the stored table back to its released version, so that the next write starts from good rows.

    Does nothing when there is nothing unreleased in it.

    Args:
        table: Name that readers use.
        run: The step that does it.
    """
    if pending(table):
        state = released().get(table)
        base = state.version if state else 0
        stored = tables.next_table(table)
        # The oldest of the unreleased commits comes last: what it found is what goes with the released rows.
        beside = {name: at for commit in tables.lineage(stored, since=base) for name, at in _goes_with(commit)}
        tables.restore(stored, base, run)
        for name, at in beside.items():
            if tables.head(name) != at:
                tables.restore(name, at, run)
        run.say("%s: unreleased rows withdrawn, back at version %d", table, base)


def _goes_with(commit: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """Tables that hold the other part of what a commit wrote, and their versions before it."""
    beside: dict[str, int] = commit.get("goes_with", {})
    return beside.items()


def release(names: list[str], interval: Interval | None, reason: str = "gate passed") -> int:
    """Release the audited heads of a set of tables: all of them in one release, or none.

    A second call for the same heads changes nothing and returns the release that there is.

    Args:
        names: Tables by the name that readers use.
        interval: The days whose data is new in them.
        reason: Why these versions become visible.

    Returns:
        The id of the release.

    Raises:
        NotAuditedError: A head has no gate verdict, or a bad one.
    """
    with step("release", ", ".join(sorted(names)), interval) as run:
        state = released()
        audited = _audited()
        heads: dict[str, int] = {}
        for table in sorted(names):
            version = tables.head(tables.next_table(table))
            if version is None:
                raise NotReleasedError(f"{table} has not been written yet: there is nothing to release.")
            seen = state.get(table)
            if seen and not pending(table):
                heads[table] = seen.version
            elif audited.get((table, version)) == "passed":
                heads[table] = version
            else:
                raise NotAuditedError(
                    f"Version {version} of {table} has {audited.get((table, version), 'no')} gate verdict. "
                    f"Run `lake gate {table} --interval DAYS` first; what it finds is in ops.gate_results."
                )
        changed = {t: v for t, v in heads.items() if t not in state or state[t].version != v}
        run.versions_out = heads
        release_id = (
            _record(changed, state, interval, reason, run) if changed else max(state[t].release_id for t in heads)
        )
        run.details["release_id"] = release_id
        for table, version in heads.items():
            _point(table, version)
        run.say("release %d: %s", release_id, ", ".join(f"{t} at version {v}" for t, v in sorted(heads.items())))
        return release_id


def read(
    table: str,
    *,
    release_id: int | None = None,
    columns: list[str] | None = None,
    where: list[tuple[str, str, Any]] | None = None,
) -> pd.DataFrame:
    """Read a released table into pandas, without Spark.

    Args:
        table: Such as ``gold.fct_flights``; the platform's own ``ops.*`` tables too.
        release_id: State of the lake right after this release; the present without it.
        columns: Columns to read; all without it.
        where: Conditions that all hold, as ``[("carrier", "=", "UA")]``.

    Raises:
        NotReleasedError: No version of the table has been released (by then).
    """
    layer, _ = tables.split(table)
    version: int | None = None
    if layer in tables.GATED_LAYERS:
        state = released(release_id).get(table)
        if state is None:
            known = ", ".join(sorted(released(release_id))) or "none yet"
            raise NotReleasedError(f"{table} has no released version. Released tables: {known}.")
        version = state.version
    log = tables.delta(tables.next_table(table), version)
    if log is None:
        raise NotReleasedError(f"There is no table {table}.")
    frame: pd.DataFrame = log.to_pandas(columns=columns, filters=where)
    return frame


def _record(
    changed: dict[str, int], state: dict[str, Released], interval: Interval | None, reason: str, run: Run
) -> int:
    release_id = _next_id()
    now = dt.datetime.now(dt.UTC)
    ops.append(
        "ops.releases",
        [
            {
                "release_id": release_id,
                "released_at": now,
                "table_name": table,
                "version": version,
                "previous_version": state[table].version if table in state else None,
                "interval_start": interval and interval.start,
                "interval_end": interval and interval.end,
                "reason": reason,
                "run_id": run.run_id,
            }
            for table, version in sorted(changed.items())
        ],
    )
    return release_id


def _next_id() -> int:
    with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
        connection.execute("create sequence if not exists release_id")
        row = connection.execute("select nextval('release_id')").fetchone()
        assert row is not None
        return int(row[0])


def _audited() -> dict[tuple[str, int], str]:
    results = ops.read("ops.gate_results").select(["checked_at", "table_name", "version", "verdict"])
    return {(row["table_name"], row["version"]): row["verdict"] for row in results.sort_by("checked_at").to_pylist()}


def _point(table: str, version: int) -> None:
    sql(
        f"create or replace view {table} tblproperties ('lake.version' = '{version}') "
        f"as select * from {tables.next_table(table)} version as of {version}"
    ).collect()

"""Release: point the views that people read at audited versions, and say so in ``ops.releases``.

``ops.releases`` is the truth. The set of versions is recorded there in one commit, and the views follow it;
a release that is killed between the two is completed by running it again.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.compute as pc

from lakehouse import locks, ops, release_log, tables
from lakehouse.engine import spark, sql
from lakehouse.errors import LakeError
from lakehouse.landing import quarantine
from lakehouse.releases import fingerprints, silver_views, unreleased
from lakehouse.settings import settings
from lakehouse.steps import Run, step, user

if TYPE_CHECKING:
    from lakehouse.interval import Interval


_VERSION = re.compile(r" version as of (\d+)$")


class NotAuditedError(LakeError):
    """A version has not passed its gate, so it must not become visible."""


def release(names: list[str], interval: Interval | None) -> int:
    """Release the audited heads of a set of tables: all of them in one release, or none.

    With the last tables of the warehouse that wait for it, the views that hold no rows get the queries that dbt has
    built last. A second call for the same heads changes nothing and returns the release that there is.

    Args:
        names: Tables by the name that readers use.
        interval: The days whose data is new in them.

    Returns:
        The id of the release.

    Raises:
        NotAuditedError: A head has no gate verdict, or a bad one.
        lakehouse.releases.unreleased.WithdrawnError: What was written for the interval has been taken back.
        lakehouse.releases.unreleased.UnfinishedWriteError: What was written is of a step that has not come to its end.
        lakehouse.releases.unreleased.PartOfBuildError: Other tables of the same build wait for their release.
    """
    # Without the writers' locks, whoever writes next could take back what is just being released.
    with writers(names) as held, step("release", ", ".join(sorted(names)), interval, writes=release_log.LOG) as run:
        run.beside = held.values()
        state = release_log.released()
        unreleased.refuse_withdrawn(names, interval)
        unreleased.refuse_unfinished(names, state)
        unreleased.refuse_part_of_build(names, interval, state)
        audited = _audited(names)
        heads: dict[str, int] = {}
        for table in sorted(names):
            version = tables.head(tables.next_table(table))
            if version is None:
                raise release_log.NotReleasedError(f"{table} has not been written yet: there is nothing to release.")
            seen = state.get(table)
            if seen and not unreleased.pending(table, state):
                heads[table] = seen.version
            elif audited.get((table, version)) == "passed":
                heads[table] = version
            else:
                raise NotAuditedError(
                    f"Version {version} of {table} has {audited.get((table, version), 'no')} gate verdict. "
                    f"Run `lake gate {table} --interval DAYS` first; what it finds is in ops.gate_results."
                )
        changed = {t: v for t, v in heads.items() if t not in state or state[t].version != v}
        run.versions_in = {tables.next_table(table): state[table].version for table in heads if table in state}
        run.versions_out = {tables.next_table(table): version for table, version in heads.items()}
        release_id = (
            _record(changed, state, interval, "gate passed", run, queries=silver_views.due_with(names, state))
            if changed
            else max(state[t].release_id for t in heads)
        )
        run.details["release_id"] = release_id
        _show(heads, run)
        if tables.of_warehouse(names):
            silver_views.show()
        run.say(
            "release %d: %s%s",
            release_id, ", ".join(f"{t} at version {v}" for t, v in sorted(heads.items())),
            "" if changed else "; nothing new",
        )  # fmt: skip
        return release_id


def publish(
    versions: dict[str, int],
    run: Run,
    *,
    reason: str,
    by: str,
    marks: dict[str, dict[str, Any]],
    queries: Mapping[str, str] | None = None,
) -> int:
    """Make given versions of tables visible that are not their heads, and go on from there: one release for all.

    The stored tables are restored first. Killed before the release is recorded, they count as unreleased and go back to
    what readers see; killed after it, the same call completes it. What a source has in quarantine follows its table.

    Args:
        versions: Table, by the name that readers use, to the version that readers shall see.
        run: The step that does it; it holds the lock of ``LOG``, and those of the tables are taken here.
        reason: Why these versions become visible.
        by: Who wants it.
        marks: Table to further columns of its row in ``ops.releases``.
        queries: Views that hold no rows to the queries that they shall have.

    Returns:
        The id of the release, which is the present one when nothing changes.

    Raises:
        lakehouse.tables.VersionGoneError: A version is no longer kept. Nothing has changed.
    """
    for table, version in versions.items():
        tables.check_kept(tables.next_table(table), version)
        quarantine.check_kept(table, version)
    state = release_log.released()
    changed = {t: version for t, version in versions.items() if t not in state or state[t].version != version}
    if queries and not queries.items() <= release_log.views().items():
        changed = versions  # a query alone can go back, too, and a release is about tables
    for table, version in sorted(versions.items()):
        stored = tables.next_table(table)
        if tables.head(stored) != version and tables.last_commit(stored)["userMetadata"].get("restored") != version:
            tables.restore(stored, version, run)
    release_id = (
        _record(changed, state, run.interval, reason, run, by, marks, queries)
        if changed
        else max(state[table].release_id for table in versions)
    )
    for table, version in sorted(versions.items()):
        run.check_lock()
        quarantine.follow(table, version, run)
    _show(versions, run)
    if tables.of_warehouse(versions):
        silver_views.show()
    run.versions_in = {tables.next_table(table): state[table].version for table in versions if table in state}
    run.versions_out = {tables.next_table(table): version for table, version in versions.items()}
    run.details |= {"release_id": release_id, "reason": reason, "by": by}
    return release_id


def carry_over(versions: dict[str, int], run: Run, reason: str) -> int:
    """Make versions visible that maintenance has made of those that readers see: the same rows, or some of them.

    The rows were audited when they were written, so they are not gated again; the caller has proven what they are.

    Args:
        versions: Table, by the name that readers use, to the version that readers shall see.
        run: The step that does it; it holds the locks of ``LOG`` and of the tables.
        reason: Why these versions become visible.

    Returns:
        The id of the release.
    """
    state = release_log.released()
    # Of several maintenances in a row, each carries on what a step has written.
    carried = {row["table_name"]: row.get("maintains") or row["release_id"] for row in release_log.history()}
    marks = {table: {"maintains": carried[table]} for table in versions}
    release_id = _record(versions, state, None, reason, run, user(), marks)
    _show(versions, run)
    return release_id


def visible(layers: Iterable[str] = tables.GATED_LAYERS) -> dict[str, int]:
    """The versions that the views show, as the engine knows it: during a release, not yet what is recorded.

    Args:
        layers: Those whose views are asked for.
    """
    return {
        f"{layer}.{name}": int(match[1])
        for layer in layers
        for name, query in silver_views.queries(layer).items()
        if (match := _VERSION.search(query))
    }


def behind(table: str) -> bool:
    """Whether the view of a table does not show the version that is released: whoever released it was killed.

    Args:
        table: Name that readers use.
    """
    state = release_log.released().get(table)
    return state is not None and visible([tables.split(table)[0]]).get(table) != state.version


def outdated() -> list[str]:
    """The views that readers do not find as they are released: missing, of another version or with another query.

    Returns:
        Their names; also while somebody releases, who points them after he has recorded it.
    """
    return _outdated(release_log.released()) + silver_views.outdated()


def catch_up() -> list[str]:
    """Point the views at what was released, where whoever has released it was killed before it got that far.

    Returns:
        The tables whose views did not show what they should, and the views without rows that had another query.
    """
    state = release_log.released()
    late = _outdated(state)
    for table in late:
        _point(table, state[table].version)
    return late + silver_views.show()


def _outdated(state: Mapping[str, release_log.Released]) -> list[str]:
    shown = visible()
    return sorted(table for table, each in state.items() if shown.get(table) != each.version)


@contextmanager
def writers(names: Iterable[str]) -> Iterator[dict[str, locks.WriterLock]]:
    """Keep every writer of some tables out: those of single tables, and those that write a whole layer.

    Args:
        names: Tables by the name that readers use.

    Yields:
        Stored table, and layer that is written whole, to its lock.
    """
    stored = {tables.next_table(name) for name in names}
    whole = {tables.split(name)[0] for name in stored} & tables.WRITTEN_WHOLE
    with ExitStack() as stack:
        yield {name: stack.enter_context(locks.writer(name)) for name in sorted(stored | whole)}


def _record(
    changed: dict[str, int],
    state: dict[str, release_log.Released],
    interval: Interval | None,
    reason: str,
    run: Run,
    by: str | None = None,
    marks: dict[str, dict[str, Any]] | None = None,
    queries: Mapping[str, str] | None = None,
) -> int:
    run.check_lock()
    # Before the release: a version that is visible has fingerprints.
    fingerprints.record(changed, run.run_id)
    before = release_log.views() if queries else {}
    others = [(name, query) for name, query in sorted((queries or {}).items()) if before.get(name) != query]
    release_id = _next_id()
    now = dt.datetime.now(dt.UTC)
    # Right before the commit: whoever has taken over may have released another version by now, or withdrawn this one.
    run.check_lock()
    ops.append(
        release_log.LOG,
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
                "released_by": by,
                "views": others or None,
                **(marks or {}).get(table, {}),
            }
            for table, version in sorted(changed.items())
        ],
    )
    return release_id


def _next_id() -> int:
    with psycopg.connect(settings().postgres_url("lake"), autocommit=True) as connection:
        # A database that is younger than the tables, or was restored, must not give a number for the second time.
        newest = max((row["release_id"] for row in release_log.history()), default=0)
        row = connection.execute(
            "select setval('release_id', greatest(nextval('release_id'), %s))", [newest + 1]
        ).fetchone()
        assert row is not None
        return int(row[0])


def _audited(names: list[str]) -> dict[tuple[str, int], str]:
    columns = ["checked_at", "table_name", "version", "verdict"]
    results = ops.read("ops.gate_results", columns, where=pc.field("table_name").isin(names))
    return {(row["table_name"], row["version"]): row["verdict"] for row in results.sort_by("checked_at").to_pylist()}


def _show(versions: Mapping[str, int], run: Run) -> None:
    """Point views at versions that are recorded as released."""
    for table, version in sorted(versions.items()):
        # Whoever has taken over may have released another version since it was recorded, and points the view himself.
        run.check_lock()
        _point(table, version)


def _point(table: str, version: int) -> None:
    # Not `create or replace`: Spark drops the view then, and a reader would find none for a moment.
    verb = "alter" if spark().catalog.tableExists(table) else "create"
    sql(f"{verb} view {table} as select * from {tables.next_table(table)} version as of {version}").collect()

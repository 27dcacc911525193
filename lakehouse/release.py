"""Release: point the views that people read at audited versions, and say so in ``ops.releases``.

``ops.releases`` is the truth. The set of versions is recorded there in one commit, and the views follow it;
a release that is killed between the two is completed by running it again.
"""

from __future__ import annotations

import datetime as dt
import getpass
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import psycopg
import pyarrow.compute as pc

from lakehouse import fingerprints, locks, ops, quarantine, tables
from lakehouse.engine import spark, sql
from lakehouse.errors import LakeError
from lakehouse.settings import settings
from lakehouse.steps import Run, step

if TYPE_CHECKING:
    import pandas as pd

    from lakehouse.interval import Interval


WRITTEN_WHOLE = {"gold_next"}
"""Layers whose tables are written together, under one lock."""

LOG = "ops.releases"
"""What is visible. Its writer lock is held by whoever decides that, so that two cannot decide at once."""


WRITES_OF_STEPS = ("land", "replay", "score", "build")
"""Steps whose commits name the run that made them; in Airflow, dbt names the run of the DAG."""


_QUERY = re.compile(r"^View Text: (.*?)\nView Original Text: ", re.MULTILINE | re.DOTALL)
_VERSION = re.compile(r" version as of (\d+)$")


class NotAuditedError(LakeError):
    """A version has not passed its gate, so it must not become visible."""


class WithdrawnError(LakeError):
    """What was written has been taken back since."""


class UnfinishedWriteError(LakeError):
    """What was written is of a step that has not come to its end."""


class PartOfBuildError(LakeError):
    """Other tables of the same build are not released with it."""


class NotReleasedError(LakeError, LookupError):
    """A table has no released version."""


class UnknownReleaseError(NotReleasedError):
    """There is no release of a number."""


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


def released(as_of: int | None = None, *, at: dt.datetime | None = None) -> dict[str, Released]:
    """The released version of every table.

    Args:
        as_of: A release: the state right after it. The present state without it.
        at: A moment: the state that readers saw then.

    Raises:
        UnknownReleaseError: There is no such release.
    """
    state: dict[str, Released] = {}
    log = history()
    if as_of is not None and as_of not in {row["release_id"] for row in log}:
        raise UnknownReleaseError(f"There is no release {as_of}. `lake releases` lists them.")
    for row in log:
        if (as_of is None or row["release_id"] <= as_of) and (at is None or row["released_at"] <= at):
            state[row["table_name"]] = Released(row["table_name"], row["version"], row["release_id"])
    return state


def history() -> list[dict[str, Any]]:
    """The rows of ``ops.releases``, oldest release first."""
    rows: list[dict[str, Any]] = (
        ops.read(LOG).sort_by([("release_id", "ascending"), ("table_name", "ascending")]).to_pylist()
    )
    return rows


def views(as_of: int | None = None) -> dict[str, str]:
    """What is released of the views that hold no rows: the query of each, by its name.

    Args:
        as_of: A release: the state right after it. The present state without it.
    """
    queries: dict[str, str] = {}
    for row in history():
        if as_of is None or row["release_id"] <= as_of:
            queries.update(row["views"] or ())
    return queries


def built_views() -> dict[str, str]:
    """The views that hold no rows as dbt has built them last, by the names that readers use, and reading those."""
    layer = tables.VIEW_LAYER
    return {f"{layer}.{name}": _renamed(query, layer) for name, query in _queries(f"{layer}_next").items()}


def views_with(names: Iterable[str], state: Mapping[str, Released] | None = None) -> dict[str, str]:
    """The queries that views without rows get with the release of some tables: those that dbt has built last.

    There are none while other tables of the warehouse wait for their release: they were built from these queries too,
    and have not passed.

    Args:
        names: Tables by the name that readers use.
        state: What is released, if that has been read.
    """
    if not of_warehouse(names):
        return {}
    from lakehouse import dbt_project

    state = released() if state is None else state
    waiting = any(pending(table, state) for table in dbt_project.stored_models() if table not in names)
    return {} if waiting else built_views()


def withdraw_views() -> list[str]:
    """Have dbt's views as they are released: what a build has made of them that was not released is of no use any more.

    Whoever calls this keeps other builds out.

    Returns:
        The views that were brought back, and those that were dropped, since none of that name is released.
    """
    return _show_views(f"{tables.VIEW_LAYER}_next", others=False)


def of_warehouse(names: Iterable[str]) -> bool:
    """Whether some of the tables are dbt's, which the views that hold no rows are released with.

    Args:
        names: Tables by the name that readers use.
    """
    return any(tables.split(tables.next_table(name))[0] in WRITTEN_WHOLE for name in names)


def pending(table: str, state: Mapping[str, Released] | None = None) -> bool:
    """Whether the stored table holds rows that have not been released.

    Args:
        table: Name that readers use.
        state: What is released, if that has been read.
    """
    stored = tables.next_table(table)
    base = _base(table, released() if state is None else state)
    if tables.head(stored) in (None, base):
        return False
    return tables.last_commit(stored)["userMetadata"].get("restored") != base


def _base(table: str, state: Mapping[str, Released]) -> int:
    """The version of a stored table that its unreleased rows come after."""
    return state[table].version if table in state else 0


def withdraw(table: str, run: Run) -> None:
    """Bring the stored table back to its released version, so that the next write starts from good rows.

    Does nothing when there is nothing unreleased in it, but for what a withdrawal that was killed has left to do.

    Args:
        table: Name that readers use.
        run: The step that does it.
    """
    stored, state = tables.next_table(table), released()
    if pending(table, state):
        base = _base(table, state)
        commits = list(tables.lineage(stored, since=base))
        # The oldest of the unreleased commits comes last: what it found is what goes with the released rows.
        beside = {name: at for commit in commits for name, at in _goes_with(commit)}
        heads = {name: tables.head(name) for name in beside}
        tables.restore(stored, base, run, {"beside": beside, "heads": heads})
        run.say("%s: unreleased rows withdrawn, back at version %d", table, base)
    elif tables.head(stored) is not None:
        facts = tables.last_commit(stored)["userMetadata"]
        beside, heads = facts.get("beside", {}), facts.get("heads", {})
    else:
        return
    for name, at in beside.items():
        if tables.head(name) == heads[name] != at:  # nobody has written since
            tables.restore(name, at, run)


def _goes_with(commit: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """Tables that hold the other part of what a commit wrote, and their versions before it."""
    beside: dict[str, int] = commit.get("goes_with", {})
    return beside.items()


def sets(table: str | None = None) -> list[dict[str, Any]]:
    """The releases for a person to read, newest first, each as the set of tables that it changed.

    Args:
        table: Only the releases that changed this table, or the query of this view.
    """
    found: dict[int, dict[str, Any]] = {}
    for row in history():
        start, end = row["interval_start"], row["interval_end"]
        one = found.setdefault(
            row["release_id"],
            {
                "release": row["release_id"],
                "released_at": row["released_at"],
                "tables": {},
                "days": None if start is None else str(start) if start == end else f"{start}/{end}",
                "reason": f"override: {row['reason']}" if row["override_of"] else row["reason"],
                "by": row["released_by"],
            },
        )
        before = "new" if row["previous_version"] is None else row["previous_version"]
        one["tables"][row["table_name"]] = f"{before} → {row['version']}"
        one["tables"] |= dict.fromkeys(dict(row["views"] or ()), "query")
    return [one for one in reversed(found.values()) if table is None or table in one["tables"]]


def refuse_withdrawn(names: list[str], interval: Interval | None) -> None:
    """Refuse to go on when what was written for an interval is no longer in a table.

    A gate that failed, a later writer that found it unreleased, or a rollback has taken it back. A gate or release that
    is tried again after that would find nothing new, and would report a success for rows that nobody can see.

    Args:
        names: Tables by the name that readers use.
        interval: The days that were written; any without it.

    Raises:
        WithdrawnError: It has been taken back.
    """
    for table in sorted(names):
        by = withdrawn_by(table, interval)
        if by is not None:
            raise WithdrawnError(
                f"{table} {interval or ''}: what was written last has been withdrawn by the step {by}"
                + (" because it had not passed: see select * from ops.gate_results" if by == "gate" else "")
                + ". Write it again, then gate and release it."
            )


def withdrawn_by(table: str, interval: Interval | None) -> str | None:
    """The step that took back what was written last for an interval, or None when it is still there or not known.

    Args:
        table: Name that readers use.
        interval: The days that were written; any without it.
    """
    return _withdrawn_by(tables.commits(tables.next_table(table)), str(interval) if interval else None)


def _withdrawn_by(commits: list[dict[str, Any]], interval: str | None) -> str | None:
    """The step that took back the newest write of an interval, or None when it is still there or not known."""
    undone_from, by = None, None
    for commit in commits:
        facts = commit["userMetadata"]
        if undone_from is not None and commit["version"] <= undone_from:
            undone_from, by = None, None
        if "restored" in facts:
            if undone_from is None:
                undone_from, by = facts["restored"], facts.get("step", "restore")
        elif "step" in facts and interval in (None, facts.get("interval")):
            return by
    return None


def unfinished(table: str, state: Mapping[str, Released] | None = None) -> dict[str, Any] | None:
    """What the commit says of itself that has unreleased rows of a step which has not come to its end, if there is one.

    Landing writes two tables, and counts the rows of both at the end. A step that was killed, has failed or has lost
    its lock meanwhile may have left one of them, or rows that do not add up. A statement that dbt had sent before it
    was killed may come to its end in the middle of the next build.

    Args:
        table: Name that readers use.
        state: What is released, if that has been read.
    """
    # Without a run, a commit is of a dbt that a person has started.
    written = [
        commit
        for commit in _unreleased(table, released() if state is None else state)
        if commit.get("step") in WRITES_OF_STEPS and (commit["step"] != "build" or commit.get("run_id"))
    ]
    if not written:
        return None
    made = [commit.get("run_id") or "" for commit in written]
    named = pc.field("run_id").isin(made) | pc.field("airflow_run_id").isin(made)
    columns = ["run_id", "step", "dataset", "airflow_run_id"]
    done = ops.read("ops.runs", columns, where=(pc.field("status") == "success") & named).to_pylist()
    builds = [row for row in done if (row["step"], row["dataset"]) == ("build", "warehouse")]
    ended = {row["run_id"] for row in done} | {row["airflow_run_id"] for row in builds}
    return next((commit for commit in written if commit.get("run_id") not in ended), None)


def _unreleased(table: str, state: Mapping[str, Released]) -> list[dict[str, Any]]:
    """What the commits say of themselves that the unreleased rows of a table come from, the newest first."""
    stored = tables.next_table(table)
    if tables.head(stored) is None:
        return []
    return list(tables.lineage(stored, since=_base(table, state)))


def refuse_unfinished(names: list[str], state: Mapping[str, Released] | None = None) -> None:
    """Refuse to go on with rows of a step that has not come to its end.

    Args:
        names: Tables by the name that readers use.
        state: What is released, if that has been read.

    Raises:
        UnfinishedWriteError: A table has such rows.
    """
    state = released() if state is None else state
    for table in sorted(names):
        if commit := unfinished(table, state):
            what = f"{commit['step']} {commit.get('interval') or ''} (run {commit.get('run_id')})"
            raise UnfinishedWriteError(
                f"{table}: the step {what} has written to it and has not come to its end: it still runs, was killed, "
                "or has failed, so rows may be missing. Run it again, then gate and release it."
            )


def refuse_part_of_build(
    names: list[str], interval: Interval | None, state: Mapping[str, Released] | None = None
) -> None:
    """Refuse to go on without the other tables of a build: readers would see rows that do not belong together.

    A gate that shut on some of them would leave the others, which were built from these.

    Args:
        names: Tables by the name that readers use.
        interval: The days that the build was about.
        state: What is released, if that has been read.

    Raises:
        PartOfBuildError: There are others that wait for their release.
    """
    if not of_warehouse(names):
        return
    from lakehouse import dbt_project

    seen = released() if state is None else state

    def builds(table: str) -> set[Any]:
        found = {commit.get("run_id") for commit in _unreleased(table, seen) if commit.get("step") == "build"}
        return found - {None}

    ours = set().union(*map(builds, names))
    others = [table for table in dbt_project.stored_models() if table not in names and ours & builds(table)]
    if others:
        whole = " ".join(sorted({*names, *others}))
        raise PartOfBuildError(
            f"{', '.join(sorted(names))}: the same build has written {', '.join(sorted(others))}, and some without the "
            f"others would be tables that do not belong together. Gate and release them as one: `lake gate {whole} "
            f"--interval {interval}`, then the same with `lake release`."
        )


def release(names: list[str], interval: Interval | None, reason: str = "gate passed") -> int:
    """Release the audited heads of a set of tables: all of them in one release, or none.

    With the last tables of the warehouse that wait for it, the views that hold no rows get the queries that dbt has
    built last. A second call for the same heads changes nothing and returns the release that there is.

    Args:
        names: Tables by the name that readers use.
        interval: The days whose data is new in them.
        reason: Why these versions become visible.

    Returns:
        The id of the release.

    Raises:
        NotAuditedError: A head has no gate verdict, or a bad one.
        WithdrawnError: What was written for the interval has been taken back.
        UnfinishedWriteError: What was written is of a step that has not come to its end.
        PartOfBuildError: Other tables of the same build wait for their release.
    """
    # Without the writers' locks, whoever writes next could take back what is just being released.
    with writers(names) as held, step("release", ", ".join(sorted(names)), interval, writes=LOG) as run:
        run.beside = held.values()
        state = released()
        refuse_withdrawn(names, interval)
        refuse_unfinished(names, state)
        refuse_part_of_build(names, interval, state)
        audited = _audited(names)
        heads: dict[str, int] = {}
        for table in sorted(names):
            version = tables.head(tables.next_table(table))
            if version is None:
                raise NotReleasedError(f"{table} has not been written yet: there is nothing to release.")
            seen = state.get(table)
            if seen and not pending(table, state):
                heads[table] = seen.version
            elif audited.get((table, version)) == "passed":
                heads[table] = version
            else:
                raise NotAuditedError(
                    f"Version {version} of {table} has {audited.get((table, version), 'no')} gate verdict. "
                    f"Run `lake gate {table} --interval DAYS` first; what it finds is in ops.gate_results."
                )
        changed = {t: v for t, v in heads.items() if t not in state or state[t].version != v}
        run.versions_in = {table: state[table].version for table in heads if table in state}
        run.versions_out = heads
        release_id = (
            _record(changed, state, interval, reason, run, queries=views_with(names, state))
            if changed
            else max(state[t].release_id for t in heads)
        )
        run.details["release_id"] = release_id
        _show(heads, run)
        if of_warehouse(names):
            _show_views()
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
        table: Such as ``gold.fct_flights``; the platform's own ``ops.*`` tables too, but not its views.
        release_id: State of the lake right after this release; the present without it.
        columns: Columns to read; all without it.
        where: Conditions that all hold, as ``[("carrier", "=", "UA")]``.

    Raises:
        NotReleasedError: No version of the table has been released (by then).
        lakehouse.tables.UnreadableError: A file is damaged or missing.
    """
    layer, _ = tables.split(table)
    version: int | None = None
    if layer in tables.GATED_LAYERS:
        state = released(release_id).get(table)
        if state is None:
            known = ", ".join(sorted(released(release_id))) or "none yet"
            raise NotReleasedError(f"{table} has no released version. Released tables: {known}.")
        version = state.version
    if table in ops.VIEWS:
        raise NotReleasedError(f'{table} is a view, for SQL alone: ./lake sql "select * from {table}".')
    log = tables.delta(tables.next_table(table), version)
    if log is None:
        raise NotReleasedError(f"There is no table {table}.")
    frame: pd.DataFrame = tables.read(log, columns, where).to_pandas()
    return frame


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
    state = released()
    changed = {t: version for t, version in versions.items() if t not in state or state[t].version != version}
    if queries and not queries.items() <= views().items():
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
    if of_warehouse(versions):
        _show_views()
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
    state = released()
    # Of several maintenances in a row, each carries on what a step has written.
    carried = {row["table_name"]: row.get("maintains") or row["release_id"] for row in history()}
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
        for name, query in _queries(layer).items()
        if (match := _VERSION.search(query))
    }


def behind(table: str) -> bool:
    """Whether the view of a table does not show the version that is released: whoever released it was killed.

    Args:
        table: Name that readers use.
    """
    state = released().get(table)
    return state is not None and visible([tables.split(table)[0]]).get(table) != state.version


def catch_up() -> list[str]:
    """Point the views at what was released, where whoever has released it was killed before it got that far.

    Returns:
        The tables whose views did not show what they should, and the views without rows that had another query.
    """
    state = released()
    shown = visible()
    behind = sorted(table for table, each in state.items() if shown.get(table) != each.version)
    for table in behind:
        _point(table, state[table].version)
    return behind + _show_views()


def user() -> str:
    """Who runs this process, for the record."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


@contextmanager
def writers(names: Iterable[str]) -> Iterator[dict[str, locks.WriterLock]]:
    """Keep every writer of some tables out: those of single tables, and those that write a whole layer.

    Args:
        names: Tables by the name that readers use.

    Yields:
        Stored table, and layer that is written whole, to its lock.
    """
    stored = {tables.next_table(name) for name in names}
    whole = {tables.split(name)[0] for name in stored} & WRITTEN_WHOLE
    with ExitStack() as stack:
        yield {name: stack.enter_context(locks.writer(name)) for name in sorted(stored | whole)}


def _record(
    changed: dict[str, int],
    state: dict[str, Released],
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
    before = views() if queries else {}
    others = [(name, query) for name, query in sorted((queries or {}).items()) if before.get(name) != query]
    release_id = _next_id()
    now = dt.datetime.now(dt.UTC)
    # Right before the commit: whoever has taken over may have released another version by now, or withdrawn this one.
    run.check_lock()
    ops.append(
        LOG,
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
        newest = max((row["release_id"] for row in history()), default=0)
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


def _show_views(schema: str = tables.VIEW_LAYER, others: bool = True) -> list[str]:
    """Give the views that hold no rows the queries that are released, where they have others.

    Args:
        schema: That of the views that readers use, or of those that dbt makes.
        others: Whether views may stay of which no query is released.

    Returns:
        The views that had another one, and those that were dropped.
    """
    shown = _queries(schema)
    released_as = {name.partition(".")[2]: _renamed(query, schema) for name, query in views().items()}
    reads = {name: re.findall(rf"\b{schema}\.(\w+)", query) for name, query in released_as.items()}
    ordered = [name for name in TopologicalSorter(reads).static_order() if name in released_as]
    behind = [name for name in ordered if shown.get(name) != released_as[name]]
    for name in behind:
        verb = "alter" if name in shown else "create"
        sql(f"{verb} view {schema}.{name} as {released_as[name]}").collect()
    dropped = [] if others else sorted(shown.keys() - released_as.keys())
    for name in dropped:
        sql(f"drop view {schema}.{name}").collect()
    return [f"{schema}.{name}" for name in behind + dropped]


def _queries(schema: str) -> dict[str, str]:
    """The query of each view of a schema, by its name without the schema."""
    rows = sql(f"show table extended in {schema} like '*'").collect()
    return {row["tableName"]: match[1] for row in rows if (match := _QUERY.search(row["information"]))}


def _renamed(query: str, schema: str) -> str:
    """A query that reads the views without rows in one schema, and not in the other."""
    return re.sub(rf"\b{tables.VIEW_LAYER}(_next)?\.", f"{schema}.", query)

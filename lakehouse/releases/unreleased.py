"""What a stored table has that readers do not see: taken back, or refused where it must not be gone on with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import ops, release_log, tables
from lakehouse.errors import LakeError

if TYPE_CHECKING:
    from lakehouse.interval import Interval
    from lakehouse.steps import Run

STEPS_THAT_NAME_THEIR_RUN = ("land", "replay", "score", "build")
"""Steps whose commits name the run that made them; in Airflow, dbt names the run of the DAG."""


class WithdrawnError(LakeError):
    """What was written has been taken back since."""


class UnfinishedWriteError(LakeError):
    """What was written is of a step that has not come to its end."""


class PartOfBuildError(LakeError):
    """Other tables of the same build are not released with it."""


def pending(table: str, state: Mapping[str, release_log.Released] | None = None) -> bool:
    """Whether the stored table holds rows that have not been released.

    Args:
        table: Name that readers use.
        state: What is released, if that has been read.
    """
    stored = tables.next_table(table)
    base = base_of(table, release_log.released() if state is None else state)
    if tables.head(stored) in (None, base):
        return False
    return tables.last_commit(stored)["userMetadata"].get("restored") != base


def base_of(table: str, state: Mapping[str, release_log.Released]) -> int:
    """The version of a stored table that its unreleased rows come after, and that a withdrawal goes back to.

    Args:
        table: Name that readers use.
        state: What is released.
    """
    return state[table].version if table in state else 0


def withdraw(table: str, run: Run) -> None:
    """Bring the stored table back to its released version, so that the next write starts from good rows.

    Does nothing when there is nothing unreleased in it, but for what a withdrawal that was killed has left to do.

    Args:
        table: Name that readers use.
        run: The step that does it.
    """
    stored, state = tables.next_table(table), release_log.released()
    if pending(table, state):
        base = base_of(table, state)
        commits = list(tables.lineage(stored, since=base))
        # The oldest of the unreleased commits comes last: what it found is what goes with the released rows.
        beside = {name: at for commit in commits for name, at in _goes_with(commit)}
        heads = {name: tables.head(name) for name in beside}
        tables.restore(stored, base, run, {"beside": beside, "heads": heads})
        said = [[str(each[name]) for name in ("step", "interval", "run_id") if each.get(name)] for each in commits]
        whose = "; ".join(dict.fromkeys(" ".join(words) for words in said if words))
        run.say("%s: unreleased rows withdrawn, back at version %d%s", table, base, f" ({whose})" if whose else "")
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


def refuse_unfinished(names: list[str], state: Mapping[str, release_log.Released] | None = None) -> None:
    """Refuse to go on with rows of a step that has not come to its end.

    Args:
        names: Tables by the name that readers use.
        state: What is released, if that has been read.

    Raises:
        UnfinishedWriteError: A table has such rows.
    """
    state = release_log.released() if state is None else state
    for table in sorted(names):
        if commit := unfinished(table, state):
            what = f"{commit['step']} {commit.get('interval') or ''} (run {commit.get('run_id')})"
            raise UnfinishedWriteError(
                f"{table}: the step {what} has written to it and has not come to its end: it still runs, was killed, "
                "or has failed, so rows may be missing. Run it again, then gate and release it."
            )


def unfinished(table: str, state: Mapping[str, release_log.Released] | None = None) -> dict[str, Any] | None:
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
        for commit in _commits(table, release_log.released() if state is None else state)
        if commit.get("step") in STEPS_THAT_NAME_THEIR_RUN and (commit["step"] != "build" or commit.get("run_id"))
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


def _commits(table: str, state: Mapping[str, release_log.Released]) -> list[dict[str, Any]]:
    """What the commits say of themselves that the unreleased rows of a table come from, the newest first."""
    stored = tables.next_table(table)
    if tables.head(stored) is None:
        return []
    return list(tables.lineage(stored, since=base_of(table, state)))


def refuse_part_of_build(
    names: list[str], interval: Interval | None, state: Mapping[str, release_log.Released] | None = None
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
    if not tables.of_warehouse(names):
        return
    from lakehouse import dbt_project

    seen = release_log.released() if state is None else state

    def builds(table: str) -> set[Any]:
        found = {commit.get("run_id") for commit in _commits(table, seen) if commit.get("step") == "build"}
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

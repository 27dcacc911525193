"""The warehouse: builds of the silver views and of the next versions of the gold tables, and what they record."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lakehouse import dbt_project, locks
from lakehouse.dbt_project import BuildFailedError, DataTestFailedError, Outcome

if TYPE_CHECKING:
    from lakehouse.interval import Interval
    from lakehouse.steps import Run

log = logging.getLogger("lakehouse")

_TYPES_IN_LOG = {
    "tinyint": "byte", "smallint": "short", "int": "integer", "bigint": "long", "real": "float", "dec": "decimal(10,0)",
    "decimal": "decimal(10,0)", "numeric": "decimal(10,0)", "timestamp_ltz": "timestamp",
}  # fmt: skip
"""Types whose names in a Delta log are others than in SQL."""


class OtherColumnsError(BuildFailedError):
    """A stored table has other columns than its properties declare."""


def sources() -> dict[str, int]:
    """The released sources, by the name that readers use, with their versions: one state of all of them.

    ``ops.releases`` is asked, and not the views, which follow a release one after the other.
    """
    from lakehouse.release_log import released

    return {table: each.version for table, each in released().items() if table.startswith("bronze.")}


def source_state(reads: Mapping[str, int], interval: Interval) -> str:
    """What a build is told of the sources (``DBT_SOURCE_STATE``), as JSON.

    ``reads``: the version of each source that it is to read, whatever is released meanwhile; without any, it reads what
    the views show. ``made_from``: model to what its commit is to say that decides about its rows. ``unchanged``: the
    models that are left alone, since they would be made again as they are.

    Args:
        reads: Source to version.
        interval: The days that the build is about.
    """
    made_from = repeatable(reads)
    return json.dumps({"reads": dict(reads), "made_from": made_from, "unchanged": unchanged(made_from, interval)})


def repeatable(reads: Mapping[str, int]) -> dict[str, str]:
    """What decides about the rows of each table that is made whole from released sources, whatever the day.

    Args:
        reads: Source to the version that is read.

    Returns:
        Model to a hash of the project and of the versions that its query reads.
    """
    project, found = dbt_project.project_digest(), {}
    for table in dbt_project.stored_models():
        read = dbt_project.inputs(table)
        name = table.partition(".")[2]
        if not dbt_project.names_days(f"model.lakehouse.{name}") and all(each in reads for each in read):
            versions = {each: reads[each] for each in read}
            found[name] = hashlib.sha256(json.dumps([project, versions]).encode()).hexdigest()
    return found


def unchanged(made_from: Mapping[str, str], interval: Interval) -> list[str]:
    """The models whose released rows were made from the same as a build would make them from.

    What an earlier build of the days has written and was taken back is written anew: a gate lets nothing pass for days
    whose last write is not there any more.

    Args:
        made_from: Outcome of :func:`repeatable`.
        interval: The days that the build is about.
    """
    from lakehouse import tables
    from lakehouse.release_log import released
    from lakehouse.releases.unreleased import pending, withdrawn_by

    same, state = [], released()
    for table in dbt_project.stored_models():
        name, stored = table.partition(".")[2], tables.next_table(table)
        if name in made_from and tables.head(stored) and not pending(table, state):
            written = next(tables.lineage(stored, since=0), {})
            if written.get("made_from") == made_from[name] and withdrawn_by(table, interval) is None:
                same.append(name)
    return same


def run_dbt(
    interval: Interval,
    select: Sequence[str] | None = None,
    *,
    reads: Mapping[str, int] | None = None,
    commit: dict[str, Any] | None = None,
    full_refresh: bool = False,
) -> Outcome:
    """Build and test the models for an interval.

    Args:
        interval: The days that the build is about.
        select: dbt selectors; all models without it.
        reads: Source to the version that the stored tables are made from; without it, what its view shows meanwhile.
        commit: What the Delta commits say of themselves.
        full_refresh: Create the tables anew, for a model whose columns have changed: the interval has to cover
            the whole history then.

    Returns:
        What was built, and what the data tests have said of it.

    Raises:
        OtherColumnsError: A table has other columns than its properties.
        BuildFailedError: Nothing is selected, or a model or a test of one failed.
    """
    dbt_project.ensure_manifest()
    if not full_refresh:
        check_columns(dbt_project.selected(select) if select else dbt_project.stored_models())
    # The SQL is that of one interval: what dbt writes of it is of no use to anybody else.
    command = ["--no-write-json", "build", "--exclude-resource-type", "unit_test"]
    if select:
        command += ["--select", *select]
    if full_refresh:
        command.append("--full-refresh")
    variables = dbt_project.build_environment(interval, commit) | {
        "DBT_SOURCE_STATE": source_state(reads or {}, interval)
    }
    results = list(dbt_project.invoke(command, variables))
    _refuse_failures(results)
    return Outcome.of(results)


def run_data_tests(interval: Interval) -> Outcome:
    """Ask the data tests of the dbt project about what was built; ``run_dbt`` does so after each model.

    Args:
        interval: The days that the build was about.

    Returns:
        What they have said.

    Raises:
        DataTestFailedError: A test has found rows.
        BuildFailedError: A test could not be run.
    """
    dbt_project.ensure_manifest()
    command = ["--no-write-json", "test", "--exclude-resource-type", "unit_test", "--no-populate-cache"]
    results = list(dbt_project.invoke(command, dbt_project.build_environment(interval)))
    _refuse_failures(results)
    return Outcome.of(results)


def _refuse_failures(results: Sequence[Any]) -> None:
    failed = [result for result in results if result.status in dbt_project.FAILED]
    if not failed:
        return
    kind = DataTestFailedError if all(result.status == "fail" for result in failed) else BuildFailedError
    reasons = [dbt_project.reason(result.message or str(result.status)) for result in failed]
    described = [
        f"{result.node.resource_type.value} {result.node.name}: {reason}"
        for result, reason in zip(failed, reasons, strict=True)
    ]
    raise kind("dbt failed.\n" + "\n".join(described), results)


def build(interval: Interval, select: str | None = None, *, full_refresh: bool = False) -> dict[str, float]:
    """Build the warehouse for an interval: what ``lake build`` and the DAG's tasks do.

    Args:
        interval: The days that the build is about.
        select: dbt selectors, separated by blanks; all models without it.
        full_refresh: Create the tables anew.

    Returns:
        Model to seconds.

    Raises:
        OtherColumnsError: A table has other columns than its properties; nothing was written or withdrawn.
        BuildFailedError: Nothing is selected, or a model or a test of one failed.
    """
    from lakehouse.lineage import column_lineage
    from lakehouse.steps import step

    selected = select.split() if select else None
    written = dbt_project.selected(selected) if selected else dbt_project.stored_models()
    if not full_refresh:
        check_columns(written, withdrawn=True)
    prepare(interval)
    with step("build", "warehouse", interval, writes="gold_next") as run:
        reads = sources()
        outcome = _run_dbt_of(run, interval, selected, reads, full_refresh=full_refresh)
        run.details["models"] = outcome.models
        _describe(run, outcome, reads)
        column_lineage.record()
        return outcome.models


def check_columns(written: Iterable[str], *, withdrawn: bool = False) -> None:
    """Refuse to build into tables that have other columns than their properties: rows are written by place.

    Args:
        written: The tables, by the names that readers use.
        withdrawn: As they are when :func:`prepare` will have taken back what waits for its release, and not as now.

    Raises:
        OtherColumnsError: One has others, in another order or of other types.
    """
    from lakehouse import tables
    from lakehouse.release_log import released
    from lakehouse.releases.unreleased import base_of, pending

    state, by_place = released(), set(dbt_project.written_by_place())
    for table in written:
        stored = tables.next_table(table)
        if table not in by_place or (log := tables.delta(stored)) is None:
            continue
        if withdrawn and pending(table, state):
            log.load_as_version(base_of(table, state))
        found = {name.lower(): type_ for name, type_ in tables.types_of(log).items()}
        columns = dbt_project.declared_columns(table)
        declared = {column["name"].strip("`").lower(): column.get("data_type") for column in columns}
        if list(found) != list(declared) or any(map(_differ, found.values(), declared.values())):
            raise OtherColumnsError(
                f"{table} has the columns {_listed(found)}, and its properties in the dbt project declare "
                f"{_listed(declared)}. Nothing was written. Put the properties back; or build it anew over its whole "
                f"history, then gate and release it: "
                f"lake build --interval FIRST/LAST --select {table.partition('.')[2]} --full-refresh."
            )


def _differ(stored: str, declared: str | None) -> bool:
    """Whether a type in a Delta log is another one than was declared, if one was; nested ones are not looked at."""
    if declared is None or stored.startswith("{"):
        return False
    plain = declared.lower().replace(" ", "")
    if re.match(r"(var)?char\(", plain):
        return stored != "string"
    plain = re.sub(r"^(dec|numeric)\(", "decimal(", plain)
    return stored != _TYPES_IN_LOG.get(plain, plain)


def _listed(columns: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} {type_ or ''}".rstrip() for name, type_ in columns.items())


def _run_dbt_of(
    run: Run, interval: Interval, select: Sequence[str] | None, reads: Mapping[str, int], *, full_refresh: bool = False
) -> Outcome:
    """Run dbt for a step, which says of each model whether it was built, when one of them was not, too.

    What breaks a data test is withdrawn: a gate does not know of it.
    """
    try:
        return run_dbt(interval, select, reads=reads, commit=run.commit(), full_refresh=full_refresh)
    except BuildFailedError as error:
        if error.outcome.models or error.outcome.tests:
            _describe(run, error.outcome, reads)
        if error.outcome.refuted:
            _withdraw(run)
        raise


def _withdraw(run: Run) -> list[str]:
    """Bring all tables of the warehouse back to what is released; the step has the lock of the gold tables."""
    from lakehouse.releases.unreleased import withdraw

    stale = _waiting()
    for table in stale:
        withdraw(table, run)
    return stale


def _waiting() -> list[str]:
    """The tables of the warehouse that have rows which are not released."""
    from lakehouse.release_log import released
    from lakehouse.releases.unreleased import pending

    state = released()
    return [table for table in dbt_project.stored_models() if pending(table, state)]


def test(interval: Interval) -> dict[str, float]:
    """Run the data tests as a step of its own, when dbt was run by Airflow, model by model.

    When one of them finds rows, all that was built is withdrawn: its gate may have passed.

    Args:
        interval: The days that the build was about.

    Returns:
        Test to seconds.

    Raises:
        DataTestFailedError: A test has found rows.
        BuildFailedError: A test could not be run.
    """
    from lakehouse.steps import step

    with step("test", "warehouse", interval, writes="gold_next") as run:
        run.versions_in = _heads()
        try:
            outcome = run_data_tests(interval)
        except BuildFailedError as error:
            run.assertions = error.outcome.assertions
            if error.outcome.refuted:
                _withdraw(run)
            raise
        run.details["tests"], run.assertions = outcome.tests, outcome.assertions
        return outcome.tests


def prepare(interval: Interval) -> list[str]:
    """Withdraw what an earlier build has made and not released, so that this one starts from released rows and views.

    What that build has not recorded of it, as it was killed or one of its models has failed in Airflow, is recorded
    first: of each table the last version, by what its commit says.

    Args:
        interval: The days that the build is about.

    Returns:
        The tables that were brought back.
    """
    from lakehouse import contracts
    from lakehouse.releases import silver_views
    from lakehouse.steps import step

    for problem in contracts.problems().values():
        log.warning("the warehouse is built with what this contract said before: %s", problem)
    with locks.writer("gold_next") as lock:
        if stale := _waiting():
            _record_unrecorded(stale)
            with step("withdraw", ", ".join(stale), interval) as run:
                run.lock = lock
                _withdraw(run)
        # Also where no table waits: a gate that has shut has taken back the tables, and no view.
        silver_views.withdraw()
    return stale


def _record_unrecorded(stale: Sequence[str]) -> None:
    """Leave the rows in ``ops.runs`` that the build of some tables has not left; they wait for their release still."""
    import pyarrow.compute as pc

    from lakehouse import ops, tables
    from lakehouse.interval import Interval
    from lakehouse.lineage import openlineage
    from lakehouse.steps import record_others

    recorded = {
        written
        for row in ops.read("ops.runs", ["versions_out"], where=pc.field("step") == "build").to_pylist()
        for written in row["versions_out"] or ()
    }
    heads, found = _heads(), dict[str, list[dict[str, Any]]]()
    for table in stale:
        stored = tables.next_table(table)
        commit = tables.last_commit(stored)
        said, written = commit["userMetadata"], (stored, commit["version"])
        # A dbt that a person has started says of itself neither a run nor days.
        if said.get("step") != "build" or not said.get("run_id") or written in recorded:
            continue
        at, days = dt.datetime.fromtimestamp(commit["timestamp"] / 1000, dt.UTC), Interval.parse(said["interval"])
        reads = {tables.next_table(source): version for source, version in said.get("reads", {}).items()}
        found.setdefault(said["run_id"], []).append(
            {
                **dict.fromkeys(("airflow_dag_id", "airflow_task_id", "airflow_try_number")),
                "airflow_run_id": None if _is_step(said["run_id"]) else said["run_id"],
                "step": "build",
                "dataset": table,
                "interval_start": days.start,
                "interval_end": days.end,
                "started_at": at,
                "ended_at": at,
                "status": "success",
                "rows_out": None,
                "versions_in": _read_by(table, reads, heads),
                "versions_out": [written],
                "code_version": said.get("code_version"),
                "lock_token": said.get("token"),
                "details": json.dumps({"build_run_id": said["run_id"]}),
            }
        )
    for run_id, rows in found.items():
        whole = openlineage.job_name("build", "warehouse"), run_id
        record_others(rows, whole if _is_step(run_id) else None)


def _is_step(run_id: str) -> bool:
    """Whether a run is one of ``ops.runs``, and not one of Airflow's DAGs."""
    try:
        uuid.UUID(run_id)
    except ValueError:
        return False
    return True


def record(interval: Interval) -> None:
    """Leave the row of a build in ``ops.runs`` when dbt was run by Airflow, model by model.

    Args:
        interval: The days that the build was about.
    """
    from lakehouse.lineage import column_lineage
    from lakehouse.steps import step

    with step("build", "warehouse", interval, writes="gold_next") as run:
        _describe(run, None, _settle(interval, run))
        column_lineage.record()


def _settle(interval: Interval, run: Run) -> dict[str, int]:
    """The one state of the sources that all models were built from; they are built again when there are several.

    One dbt reads one state. A model that has failed is built by a dbt of its own, which reads what is released then.

    Args:
        interval: The days that the build is about.
        run: The step that records it.

    Returns:
        Source to version.
    """
    states: list[dict[str, int]] = []
    for said in _built(run).values():
        if (one := said.get("reads", {})) not in states:
            states.append(one)
    if len(states) == 1:
        return states[0]
    reads = sources()
    if states:
        moved = sorted({table for one in states for table in reads if one.get(table) != states[0].get(table)})
        run.say("%s: released before some models were built by themselves; it is built again", ", ".join(moved))
        _run_dbt_of(run, interval, None, reads)
    return reads


def _built(run: Run) -> dict[str, dict[str, Any]]:
    """The tables that a build has written and nobody has released yet, with what their commits say of themselves.

    Args:
        run: The step that builds, or that records what the tasks of the same run of a DAG have built.
    """
    from lakehouse import tables

    # Without Airflow the second is none, and so is the run of a commit that does not name its own.
    ours = {run.run_id, os.environ.get("AIRFLOW_CTX_DAG_RUN_ID")} - {None}
    found = {table: tables.last_commit(tables.next_table(table))["userMetadata"] for table in _waiting()}
    return {table: said for table, said in found.items() if said.get("run_id") in ours}


def _describe(run: Run, outcome: Outcome | None, reads: Mapping[str, int]) -> None:
    """Say what a build has read and written: as a whole, and each of its models; and what was asked of them.

    Args:
        run: The build.
        outcome: What dbt has done; None where Airflow's tasks have built the whole project.
        reads: Source to the version that was read.
    """
    from lakehouse import tables

    run.versions_in = {tables.next_table(table): version for table, version in reads.items()}
    heads, built = _heads(), [tables.next_table(table) for table in _built(run)]
    run.versions_out = {stored: heads[stored] for stored in built}
    seconds, failed = (outcome.models, outcome.failed) if outcome else ({}, {})

    def part(table: str, made: list[tuple[str, int | None]], reason: str | None = None) -> dict[str, Any]:
        return {
            **_part_of(run),
            "dataset": table,
            "seconds": seconds.get(table.partition(".")[2]),
            "status": "success" if reason is None else "failed",
            "error": None if reason is None else _said(reason),
            "versions_in": _read_by(table, run.versions_in, heads),
            "versions_out": made,
        }

    for view in dbt_project.views():
        if view not in failed and (outcome is None or view.partition(".")[2] in seconds):
            run.told_only.append(part(view, [(view, None)]))
    for stored in built:
        run.parts.append(part(tables.reader_name(stored), [(stored, heads[stored])]))
    for table, reason in failed.items():
        run.parts.append(part(table, [], reason))
    if outcome and outcome.tests:
        _describe_tests(run, outcome, heads)


def _describe_tests(run: Run, outcome: Outcome, heads: Mapping[str, int]) -> None:
    """Say what the data tests of a build have said of the tables and views that they ask."""
    from lakehouse import tables

    kind = DataTestFailedError if outcome.refuted else BuildFailedError
    wrong = f"{kind.__name__}: {', '.join(outcome.failed_tests)}" if outcome.failed_tests else None
    asked = sorted((stored, heads[stored]) for stored in map(tables.next_table, outcome.assertions) if stored in heads)
    run.assertions = outcome.assertions
    run.told_only.append(
        {
            **_part_of(run),
            "step": "test",
            "dataset": "warehouse",
            "status": "failed" if wrong else "success",
            "error": wrong,
            "versions_in": asked,
            "versions_out": [],
        }
    )


def _part_of(run: Run) -> dict[str, Any]:
    return {"cpu_seconds": None, "engine_cpu_seconds": None, "details": json.dumps({"build_run_id": run.run_id})}


def _read_by(table: str, sources_read: Mapping[str, int], heads: Mapping[str, int]) -> list[tuple[str, int]]:
    """The versions that a model was made from: those of the sources, and of the models that were built before it."""
    from lakehouse import tables

    known = {**sources_read, **heads}
    read = [tables.next_table(each) for each in dbt_project.inputs(table)]
    return sorted((name, known[name]) for name in read if name in known)


def _said(reason: str) -> str:
    return f"{BuildFailedError.__name__}: {reason}"


def record_failure(event: Any) -> None:
    """Leave a row in ``ops.runs`` for a model that could not be built, when dbt is run by Airflow.

    Then no step is there that would, as the gate, which records what was built, is not reached.

    Args:
        event: What dbt does; it calls this with each of its events.
    """
    if event.info.name != "NodeFinished":
        return
    node = event.data.node_info
    if node.resource_type != "model" or node.node_status not in dbt_project.FAILED:
        return
    from lakehouse import tables
    from lakehouse.interval import Interval
    from lakehouse.steps import record_others

    table = dbt_project.table_of(node.unique_id)
    days = Interval.parse(f"{os.environ['DBT_INTERVAL_START']}/{os.environ['DBT_INTERVAL_END']}")
    reads = json.loads(os.environ["DBT_SOURCE_STATE"])["reads"]
    stored = {tables.next_table(source): version for source, version in reads.items()}
    now, seconds = dt.datetime.now(dt.UTC), event.data.run_result.execution_time
    failed = {
        "step": "build",
        "dataset": table,
        "interval_start": days.start,
        "interval_end": days.end,
        "started_at": now - dt.timedelta(seconds=seconds),
        "ended_at": now,
        "seconds": seconds,
        "status": "failed",
        "error": _said(dbt_project.reason(event.data.run_result.message)),
        "versions_in": _read_by(table, stored, _heads()),
        "versions_out": [],
    }
    record_others([failed])


def _heads() -> dict[str, int]:
    """The newest versions of the stored models that there are."""
    from lakehouse import tables

    heads = {stored: tables.head(stored) for stored in map(tables.next_table, dbt_project.stored_models())}
    return {stored: version for stored, version in heads.items() if version is not None}

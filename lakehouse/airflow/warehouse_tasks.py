"""Tasks of the DAG ``build_warehouse`` around those of dbt, which run under one lock."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

from lakehouse.airflow import alerts
from lakehouse.airflow.links import DataDocsLink, linked_to
from lakehouse.airflow.runs import ENGINE_POOL, no_retry, run_interval

if TYPE_CHECKING:
    from airflow.sdk import Context


@task(pool=ENGINE_POOL)
def prepare() -> None:
    """Bring the gold tables back to their released versions, where a build before this one did not get that far.

    A table that has other columns than its properties is refused, but for a full refresh.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse import dbt_project, warehouse

    with no_retry():
        if not context["params"]["full_refresh"]:
            warehouse.check_columns(dbt_project.stored_models(), withdrawn=True)
        warehouse.prepare(interval)


_warehouse = ExitStack()


def hold_warehouse(context: Context) -> None:
    """Keep every other writer of the gold tables out while dbt writes them; the lock ends with the process, too.

    Commits then say which lock they were made under, and by which code.

    Args:
        context: The task's context.
    """
    from lakehouse import dbt_project, locks, warehouse
    from lakehouse.steps import code_version

    lock = _warehouse.enter_context(locks.writer("gold_next"))
    if not context["params"]["full_refresh"]:  # a model may have been corrected since the run has begun
        with no_retry():
            warehouse.check_columns(dbt_project.stored_models())
    dbt: Any = context["task"]
    commit = json.loads(dbt.env["DBT_COMMIT"]) | {"code_version": code_version(), "token": lock.token}
    dbt.env = dbt.env | {"DBT_COMMIT": json.dumps(commit)}


def hold_warehouse_at_first(context: Context) -> None:
    """Hold the warehouse on the first try alone: when the task that runs dbt is tried again, those of the models build.

    Args:
        context: The task's context.
    """
    if context["ti"].try_number == 1:
        hold_warehouse(context)


def free_warehouse(_context: Context, _result: Any = None) -> None:
    """Let other writers of the gold tables in again.

    Args:
        _context: The task's context.
        _result: What the task returns.
    """
    _warehouse.close()


@task(pool=ENGINE_POOL, on_success_callback=alerts.after_test, on_failure_callback=alerts.after_test)
def test_warehouse() -> dict[str, float]:
    """Run the data tests of the dbt project on what was built: rules between tables, which no suite can have.

    When one of them finds rows, the tables go back to their released versions, and nothing is released.
    By hand they are a part of `lake build --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse import dbt_project, warehouse

    try:
        return warehouse.test(interval)
    except dbt_project.DataTestFailedError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


@linked_to(DataDocsLink())
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_gate, on_failure_callback=alerts.after_gate)
def gate_warehouse() -> dict[str, int]:
    """Record what dbt has built, and check all of it as one set.

    dbt reads one state of the sources. When a model had failed and was built by itself, from another state than the
    rest, dbt is run once more for all of them.

    When a table does not pass, all go back to their released versions, and readers see no difference.
    By hand: `lake gate TABLE… --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse import dbt_project, warehouse
    from lakehouse.releases.audit import gate as run

    try:
        warehouse.record(interval)
    except dbt_project.DataTestFailedError as error:
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error
    # Above, all but a failed data test is tried again: a lost engine looks like any other error of dbt.
    with no_retry():
        return run(dbt_project.stored_models(), interval)

"""Tasks about tables, whatever they hold: gate, release, and roll back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import get_current_context, task

from lakehouse.airflow import alerts
from lakehouse.airflow.links import DataDocsLink, linked_to
from lakehouse.airflow.runs import ENGINE_POOL, check_conf, no_retry, run_interval


@linked_to(DataDocsLink())
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_gate, on_failure_callback=alerts.after_gate)
def gate(tables: Sequence[str]) -> dict[str, int]:
    """Check the versions just written against their expectations; a set of tables passes whole or not at all.

    When it does not pass, the tables go back to their released versions, and readers see no difference.
    By hand: `lake gate TABLE --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse.releases.audit import gate as run

    with no_retry():
        passed: dict[str, int] = run(list(tables), interval)
    return passed


@task(pool=ENGINE_POOL)
def release(tables: Sequence[str]) -> int:
    """Make the audited versions visible to readers, as one set.

    By hand: `lake release TABLE --interval DAYS`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.releases.release import release as run

    with no_retry():
        release_id: int = run(list(tables), interval)
    for outlet in context["task"].outlets:
        context["outlet_events"][outlet].extra = {"release_id": release_id}
    return release_id


@task
def plan_rollback() -> dict[str, Any]:
    """Find out which release is meant, once, so that the next task can be repeated without going back further."""
    context = get_current_context()
    check_conf(context)
    from lakehouse.release_log import history
    from lakehouse.releases.rollback import plan

    what, to = context["params"]["what"], context["params"]["to"]
    with no_retry():
        targets = plan(history(), what, to)
    if to is None and what in targets:
        to = targets[what].release_id
    return {"what": what, "to": to}


@task(pool=ENGINE_POOL)
def rollback(planned: dict[str, Any]) -> dict[str, Any]:
    """Point the views at the earlier versions, and bring the tables that are written next back to them.

    By hand: `lake rollback RELEASE|TABLE`.
    """
    context = get_current_context()
    from lakehouse.releases.rollback import rollback as run

    with no_retry():
        outcome: dict[str, Any] = run(planned["what"], planned["to"], context["dag_run"].triggering_user_name)
    return outcome

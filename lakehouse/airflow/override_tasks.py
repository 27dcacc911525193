"""Tasks of the DAG ``override_gate``: a person may publish what the gate has turned down."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import get_current_context, task

from lakehouse.airflow.questions import AskedOnce, people
from lakehouse.airflow.runs import ENGINE_POOL, check_conf, no_retry
from lakehouse.settings import settings


@task
def describe_override() -> str:
    """Say what the gate has turned down, for the person who is asked to approve."""
    context = get_current_context()
    check_conf(context)
    from lakehouse.releases.override import judged

    with no_retry():
        verdict = judged(context["params"]["gate_run"])
    versions = ", ".join(f"`{table}` version {version}" for table, version in sorted(verdict.versions.items()))
    rules = "\n".join(f"- {rule}" for rule in verdict.broken)
    asked_by = context["dag_run"].triggering_user_name or "somebody"
    return (
        f"{asked_by} asks to publish {versions} ({verdict.interval or 'no interval'}), in spite of these broken rules:"
        f"\n\n{rules}\n\nThe reason given: {context['params']['reason']}"
    )


class Approval(AskedOnce, ApprovalOperator):
    """The approval of an override."""

    unanswered = "Nothing is published: trigger this DAG again."


def approve_override() -> Approval:
    """Ask one of those who may decide it; without an approval nothing is published."""
    return Approval(
        task_id="approve",
        subject="Publish what the gate {{ params.gate_run }} has turned down?",
        body="{{ ti.xcom_pull(task_ids='describe_override') }}",
        assigned_users=people(settings().override_approvers),
        response_timeout=dt.timedelta(days=1),
        doc_md="Waits for a person, in the web UI under *Required Actions*; a rejection skips the rest.",
    )


@task(pool=ENGINE_POOL)
def override(approval: dict[str, Any]) -> int:
    """Release exactly the versions that the gate has turned down, marked with the reason and who approved it.

    By hand: `lake release --override RUN_ID --reason TEXT`.
    """
    context = get_current_context()
    from lakehouse.releases.override import override as run

    by = approval["responded_by_user"]["name"]
    with no_retry():
        release_id: int = run(context["params"]["gate_run"], context["params"]["reason"], by)
    return release_id

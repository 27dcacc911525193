"""Tasks of the DAGs ``promote_<model>``: a comparison, the answer of a person who may give it, and what follows."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import Param, get_current_context, task

from lakehouse.airflow.questions import AskedOnce, people
from lakehouse.airflow.runs import ENGINE_POOL, check_conf, no_retry
from lakehouse.settings import settings

APPROVE, REJECT = "Approve", "Reject"


class Question(AskedOnce):
    """Whether a version becomes champion."""

    unanswered = "The version goes on waiting for a decision: trigger this DAG again."


@task.short_circuit(pool=ENGINE_POOL)
def propose(model: str) -> dict[str, Any] | None:
    """Compare the version with the champion on the same frozen rows; one that does not win is kept out.

    Then, and when no version waits for a decision, nobody is asked.
    """
    context = get_current_context()
    check_conf(context)
    from lakehouse.steps import job

    with no_retry():
        proposed: dict[str, Any] | None = job("propose")(
            model, context["params"]["version"], context["dag_run"].triggering_user_name
        )
    return proposed


def ask(model: str) -> Question:
    """Ask one of those who may decide it; without an answer in time the version goes on waiting, and the run fails.

    Args:
        model: Name of a model folder.
    """
    return Question(
        task_id="ask",
        subject=f"Make version {{{{ ti.xcom_pull(task_ids='propose').model_version }}}} of {model} champion?",
        body="{{ ti.xcom_pull(task_ids='propose').text }}",
        options=[APPROVE, REJECT],
        params={"note": Param("", type="string", title="Note", description="Why; it is kept with the decision.")},
        assigned_users=people(settings().promotion_approvers),
        response_timeout=dt.timedelta(hours=settings().promotion_hours),
        doc_md="Waits for a person, in the web UI under *Required Actions*.",
    )


@task(pool=ENGINE_POOL)
def decide(model: str, proposed: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """Do what the person has answered; the evidence, the note and who it was are kept in ops.model_events."""
    from lakehouse.steps import job

    with no_retry():
        outcome: dict[str, Any] = job("decide")(
            model,
            proposed["model_version"],
            proposed["champion"],
            APPROVE in answer["chosen_options"],
            (answer["params_input"] or {}).get("note") or "",
            answer["responded_by_user"]["name"],
        )
    return outcome

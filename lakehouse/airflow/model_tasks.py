"""Tasks of the DAGs of a model: it is trained, scores, is monitored, and trained again."""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import get_current_context, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from lakehouse.airflow import alerts
from lakehouse.airflow.links import MonitoringLink, linked_to
from lakehouse.airflow.runs import ENGINE_POOL, check_conf, no_retry, run_interval


@task(pool=ENGINE_POOL)
def train(model: str) -> dict[str, Any]:
    """Train the candidates on the released features of the window, register the best, and compare it with the champion.

    By hand: `lake train MODEL --interval DAYS`.
    """
    from lakehouse.interval import Interval
    from lakehouse.steps import job

    context = get_current_context()
    check_conf(context)
    window = context["params"]["window"]
    with no_retry():
        by = context["dag_run"].triggering_user_name
        return job("train")(model, Interval.parse(window) if window else None, by, context["params"]["cause"])


@task.short_circuit(pool=ENGINE_POOL, on_success_callback=alerts.after_score, on_failure_callback=alerts.after_score)
def score(model: str) -> dict[str, Any] | None:
    """Score the interval's features, each day with its champion, which is resolved once for the whole run.

    A model that has no champion is skipped: it was never trained, or its first version waits for a person. With the
    parameter `what_if`, that version scores, apart from the predictions, and nothing is gated or released. By hand:
    `lake score MODEL --interval DAYS`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.registry import roles
    from lakehouse.steps import job

    expected, what_if = context["params"]["model_version"], context["params"]["what_if"]
    events = roles.events(model)
    if not events:
        raise AirflowSkipException(f"{model} has not been trained: trigger train_{model} first.")
    if what_if is None and roles.in_office(events) is None:
        raise AirflowSkipException(f"{model} has no champion yet: `lake models {model}` says why.")

    with no_retry():
        if what_if is not None:
            if expected is not None:
                raise AirflowFailException("what_if says which version scores: give no model_version beside it.")
            context["ti"].xcom_push("what_if", job("what_if")(model, interval, what_if))
            return None
        outcome: dict[str, Any] = job("score")(model, interval, expected)
    return outcome


@linked_to(MonitoringLink())
@task(pool=ENGINE_POOL, on_success_callback=alerts.after_monitor)
def monitor(model: str) -> dict[str, Any]:
    """Measure drift, data and performance of the interval, as far as its outcomes are known.

    Of days that should have been scored and were not, that is what is told; where nothing was due, it is skipped.
    Repeated, it replaces what it has measured before. By hand: `lake monitor MODEL --interval DAYS`.
    """
    interval = run_interval(get_current_context())
    from lakehouse.monitoring.measuring import NothingToMonitorError
    from lakehouse.steps import job

    with no_retry():
        try:
            return job("monitor")(model, interval)
        except NothingToMonitorError as error:
            raise AirflowSkipException(str(error)) from error


@task(pool=ENGINE_POOL)
def decide(model: str) -> dict[str, Any]:
    """Ask the model's policy whether it is to be trained again, and keep the answer with its evidence.

    Without a cause, or with the parameter `retrain` off, what follows is skipped. By hand: `lake retrain MODEL`.
    """
    context = get_current_context()
    interval = run_interval(context)
    from lakehouse.ml.model_folders import load
    from lakehouse.monitoring.retraining import NotMonitoredError
    from lakehouse.steps import job

    if load(model).retrain is None:
        raise AirflowSkipException(f"models/{model}/model.yaml has no section retrain.")
    by = context["dag_run"].triggering_user_name
    with no_retry():
        try:
            decided: dict[str, Any] = job("retrain")(model, interval, by, check=not context["params"]["retrain"])
        except NotMonitoredError as error:  # another version has become champion since these days were scored
            raise AirflowSkipException(str(error)) from error
    if decided["decision"] != "retrain" or not context["params"]["retrain"]:
        raise AirflowSkipException(f"{decided['decision']}: {decided['reason']}")
    return decided


def train_again(model: str) -> TriggerDagRunOperator:
    """Start the training of a model with the window and the cause that were decided.

    Args:
        model: Name of a model folder.
    """
    decided = "ti.xcom_pull(task_ids='decide')"
    return TriggerDagRunOperator(
        task_id="train",
        trigger_dag_id=f"train_{model}",
        # The same decision, tried again, starts no second training.
        trigger_run_id=f"retrain__{{{{ {decided}['interval'] | replace('/', '_') }}}}",
        skip_when_already_exists=True,
        openlineage_inject_parent_info=False,  # it would be a key of the conf that the DAG does not know
        conf={"window": f"{{{{ {decided}['window'] }}}}", "cause": f"{{{{ {decided}['reason'] }}}}"},
        doc_md="Starts the training; the version that it makes still has to win against the champion.",
    )

"""Airflow DAGs ``promote_<model>``: a person makes a better version champion, one DAG for each model folder."""

from airflow.sdk import DAG, Param

from lakehouse.airflow import promotion_tasks, runs
from lakehouse.airflow.assets import asset
from lakehouse.ml import model_folders

for spec in model_folders.readable():
    model = spec.name
    asked = spec.promotion.policy == "approve"
    with DAG(
        dag_id=f"promote_{model}",
        description=f"Compares a version of {model} with the champion, and asks a person.",
        doc_md=f"""
{spec.description}

Compares a version with the champion on the same rows. One that does not win is kept out, and nobody is asked. One that
wins waits under *Required Actions* for somebody whom the setting `promotion_approvers` names. The decision is kept in
`ops.model_events` with its evidence and who made it; `lake models {model}` shows it.
{"A run starts by itself after each training." if asked else "Here trainings decide by the comparison alone."}

**By hand:** *Trigger*, with the number of a version or without one for the newest that waits.
""",
        schedule=[asset(f"models.{model}")] if asked else None,
        start_date=runs.START,
        catchup=False,
        max_active_runs=1,  # one promotion at a time
        params={
            "version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="Version",
                description="Number in the registry; without it, the newest if it waits for a decision.",
            )
        },
        default_args={"owner": spec.owner, **runs.RETRIES},
        tags=["promote", "ml", model],
    ) as dag:
        proposed = promotion_tasks.propose(model)
        answer = promotion_tasks.ask(model)
        proposed >> answer
        promotion_tasks.decide(model, proposed, answer.output)

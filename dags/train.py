"""Airflow DAGs ``train_<model>``: train, select and register a model, one DAG for each model folder."""

from airflow.sdk import DAG, Param

from lakehouse.airflow import model_tasks, runs
from lakehouse.airflow.assets import asset
from lakehouse.ml import model_folders

for spec in model_folders.readable():
    model = spec.name
    with DAG(
        dag_id=f"train_{model}",
        description=f"Trains and registers {model}.",
        doc_md=f"""
{spec.description}

Reads the released `{spec.features.table}` and `{spec.label.table}`, selects among the candidates by time-ordered
validation inside the window, registers the winner in MLflow, and compares it with the champion on the same days;
`lake models {model}` shows what was decided and why.
Its card: `models/{model}/README.md`.

**By hand:** *Trigger* with a window, `2013-01-01/2013-02-28`, or without one for the last
{spec.training.window_days} days that have outcomes.
""",
        schedule=spec.training.schedule,
        start_date=runs.START,
        catchup=False,
        max_active_runs=1,
        params={
            "window": Param(
                None,
                type=["null", "string"],
                pattern=r"^\d{4}-\d{2}-\d{2}/\d{4}-\d{2}-\d{2}$",
                title="Training window",
                description="First and last day, such as 2013-01-01/2013-02-28.",
            ),
            "cause": Param(
                None,
                type=["null", "string"],
                title="Cause",
                description="Why; monitoring says what its policy has found. It is kept with the run.",
            ),
        },
        default_args={"owner": spec.owner, **runs.RETRIES},
        tags=["train", "ml", model],
    ):
        model_tasks.train.override(outlets=[asset(f"models.{model}")])(model)

"""Airflow DAGs ``monitor_<model>``: watch a model in use, and train it again when its policy finds a cause."""

from airflow.sdk import DAG, AssetAny, Param, chain

from lakehouse.airflow import model_tasks, runs
from lakehouse.airflow.assets import asset
from lakehouse.airflow.partitions import IntervalAssetTimetable, IntervalMapper
from lakehouse.ml import model_folders

for spec in model_folders.readable():
    model, later = spec.name, spec.label.known_after_days
    follows, again = {asset(spec.predictions_table): IntervalMapper()}, ""
    if later:  # without delay, the outcomes are in the warehouse that the day is scored from
        follows[asset("gold")] = IntervalMapper(-later, ranges=False)
        again = f", and again {later} days later,\nwhen the warehouse is released with its outcomes"
    with DAG(
        dag_id=f"monitor_{model}",
        description=f"Measures drift, data and performance of {model}, and decides whether to train it again.",
        doc_md=f"""
{spec.description}

Compares the run's days of `{spec.features.table}` and `{spec.predictions_table}` with the snapshot that the version was
trained on, and the predictions with the outcomes in `{spec.label.table}` as far as they are known, into
`ops.model_metrics`. Then the model's `retrain` policy is asked; a decision to train, with its cause, is kept in
`ops.retrain_decisions`, and starts `train_{model}`.

A run starts by itself when the predictions of a day are released{again}.
{runs.HOW_TO_RUN}""",
        schedule=IntervalAssetTimetable(assets=AssetAny(*follows), partition_mapper_config=follows),
        start_date=runs.START,
        catchup=False,
        max_active_runs=1,  # one writer for each table
        params={
            "retrain": Param(
                True,
                type="boolean",
                title="Retrain",
                description="Whether a training is started when the policy finds a cause.",
            )
        },
        default_args={"owner": spec.owner, **runs.RETRIES},
        tags=["monitor", "ml", model],
    ):
        chain(model_tasks.monitor(model), model_tasks.decide(model), model_tasks.train_again(model))

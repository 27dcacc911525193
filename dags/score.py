"""Airflow DAGs ``score_<model>``: score an interval with the champion of a model, one DAG for each model folder."""

from airflow.sdk import DAG, Param, chain

from lakehouse.airflow import model_tasks, runs, table_tasks
from lakehouse.airflow.assets import asset
from lakehouse.airflow.partitions import IntervalAssetTimetable, IntervalMapper
from lakehouse.ml import model_folders

for spec in model_folders.readable():
    model = spec.name
    table = spec.predictions_table
    with DAG(
        dag_id=f"score_{model}",
        description=f"Writes the predictions of {model} to {table}.",
        doc_md=f"""
{spec.description}

Scores the run's days of the released `{spec.features.table}`, each with its champion, gates the predictions and
releases them as `{table}`. A challenger scores the same rows into `{spec.shadow_table}`. A run starts by itself when
the warehouse has been released for a day; a range, such as a bulk load of history, is scored only when it is triggered
by hand.
{runs.HOW_TO_RUN}""",
        schedule=IntervalAssetTimetable(assets=asset("gold"), default_partition_mapper=IntervalMapper(ranges=False)),
        start_date=runs.START,
        catchup=False,
        max_active_runs=1,  # one writer for each table
        params={
            "model_version": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="Model version",
                description="The run fails when another version than this is the champion; without it any may be.",
            ),
            "what_if": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                title="What if",
                description=f"A version that scores the days, even if it has seen them, into {spec.what_if_table}.",
            ),
        },
        default_args={"owner": spec.owner, **runs.RETRIES},
        tags=["score", "ml", model],
    ):
        scored = model_tasks.score(model)
        gated = table_tasks.gate([table])
        released = table_tasks.release.override(outlets=[asset(table)])([table])
        chain(scored, gated, released)

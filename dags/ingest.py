"""Airflow DAGs ``ingest_<source>``: land, gate and release what a source delivers, one DAG for each contract."""

from airflow.sdk import DAG, Param, chain

from lakehouse import contracts
from lakehouse.airflow import runs, source_tasks, table_tasks
from lakehouse.airflow.assets import asset
from lakehouse.airflow.partitions import IntervalTimetable

for contract in contracts.readable():
    source = contract.name
    with DAG(
        dag_id=f"ingest_{source}",
        description=f"Lands {contract.table}, gates and releases it.",
        doc_md=f"""
{contract.description}

Waits for the delivery about the run's days, lands it in the next version of `{contract.table}`, gates that version and
releases it. Owner: {contract.owner}. Contract: `spark_jobs/sources/{source}.yaml`.
{runs.HOW_TO_RUN}
**History by day:** *Trigger*, *Backfill*, from the first to the last day, both included; by REST `POST /backfills`.
""",
        schedule=IntervalTimetable(contract.cron, run_offset=-contract.lag_days),
        start_date=runs.START,
        end_date=source_tasks.end_date(contract),
        catchup=False,
        max_active_runs=1,  # one writer for each table
        params={
            "wait": Param(
                True,
                type="boolean",
                title="Wait for the delivery",
                description="As long as the contract says; without it the run fails at once when a file is missing.",
            )
        },
        default_args={"owner": contract.owner, **runs.RETRIES},
        tags=["ingest", "bronze", source],
    ):
        wait = source_tasks.wait(source)
        landed = source_tasks.land(source)
        gated = table_tasks.gate([contract.table])
        released = table_tasks.release.override(outlets=[asset(contract.table)])([contract.table])
        chain(wait, landed, gated, released)

"""Airflow DAGs ``replay_<source>``: give quarantined rows another chance, one DAG for each contract, run by hand."""

from airflow.sdk import DAG, Param, chain

from lakehouse import contracts
from lakehouse.airflow import runs, source_tasks, table_tasks
from lakehouse.airflow.assets import asset
from lakehouse.airflow.partitions import ManualTimetable

for contract in contracts.readable():
    source = contract.name
    with DAG(
        dag_id=f"replay_{source}",
        description=f"Takes quarantined rows of {contract.table} through its contract and suite as they are now.",
        doc_md=f"""
{contract.description}

Takes the rows in `quarantine.{source}` of the run's days through the contract and the suite as they are now. Those that
pass join the landed rows of these days in `{contract.table}`, which is gated and released. The others stay in
quarantine, with their new reasons.
{runs.HOW_TO_RUN}""",
        schedule=ManualTimetable(),
        start_date=runs.START,
        catchup=False,
        max_active_runs=1,  # one writer for each table
        params={
            "dry_run": Param(
                False,
                type="boolean",
                title="Dry run",
                description="Only say in the log how many rows would pass, and what is wrong with the others.",
            )
        },
        default_args={"owner": contract.owner, **runs.RETRIES},
        tags=["replay", "bronze", source],
    ):
        replayed = source_tasks.replay(source)
        gated = table_tasks.gate([contract.table])
        released = table_tasks.release.override(outlets=[asset(contract.table)])([contract.table])
        chain(replayed, gated, released)

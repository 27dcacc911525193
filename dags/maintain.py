"""Airflow DAG ``maintain_lake``: delete old rows, put small files together, remove files that nothing needs."""

import datetime as dt

from airflow.sdk import DAG, CronTriggerTimetable, Param

from lakehouse.airflow import runs, upkeep_tasks

with DAG(
    dag_id="maintain_lake",
    description="Deletes what contracts no longer keep, puts small files together, removes files that nothing needs.",
    doc_md="""
Deletes the days of a source that are older than its contract keeps them, and puts the small files of each table's
recent days together; readers see the outcome as a release of the same rows. Then it removes files. It keeps those of
every version that readers see or have seen within `keep_days`, that a registered model was trained on, or that
predictions were made from. Writers wait meanwhile. Killed at any point, the next run completes it.

**By hand:** *Trigger*; `lake maintain --dry-run` says beforehand what would go, and what is kept by what.
""",
    # Without a start date, and not for a time that has passed: a new platform does not begin with maintenance.
    schedule=CronTriggerTimetable("30 3 * * 0", timezone="UTC", run_immediately=dt.timedelta(0)),
    catchup=False,
    max_active_runs=1,
    params={
        "keep_days": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            title="Days to keep",
            description="How long what was replaced can be gone back to; without it, the setting keep_days.",
        )
    },
    default_args={"owner": "platform", **runs.RETRIES},
    tags=["maintenance"],
):
    upkeep_tasks.maintain()

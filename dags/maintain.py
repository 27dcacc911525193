"""Airflow DAG ``maintain_lake``: remove the data files that nothing needs any more."""

import datetime as dt

from airflow.sdk import DAG, CronTriggerTimetable, Param

from lakehouse.airflow import tasks

with DAG(
    dag_id="maintain_lake",
    description="Removes data files that no release, model or prediction needs, and keeps the ops tables small.",
    doc_md="""
Keeps the files of every version that readers see or have seen within `keep_days`, that a registered model was trained
on, or that predictions were made from. Writers wait meanwhile. Killed at any point, the next run completes it.

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
    default_args={"owner": "platform", **tasks.RETRIES},
    tags=["maintenance"],
):
    tasks.maintain()

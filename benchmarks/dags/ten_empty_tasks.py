"""Airflow DAG ``ten_empty_tasks``: what the benchmark R5 times; the platform itself does not have it."""

import datetime as dt

from airflow.sdk import DAG, chain, task

TASKS = 10

with DAG(
    dag_id="ten_empty_tasks",
    description="Ten tasks, one after the other, which do nothing.",
    schedule=None,
    start_date=dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
    catchup=False,
):

    @task
    def nothing() -> None:
        """Do nothing, in a process of its own as any other task."""

    chain(*(nothing.override(task_id=f"nothing_{number}")() for number in range(1, TASKS + 1)))

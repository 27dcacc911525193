"""Airflow DAG ``escalate_alerts``: send alerts on that nobody has acknowledged, and those that could not be sent."""

from airflow.sdk import DAG, Param

from lakehouse.airflow import runs, upkeep_tasks
from lakehouse.settings import settings

with DAG(
    dag_id="escalate_alerts",
    description="Sends the alerts that nobody has acknowledged to the routes that wait for that.",
    doc_md="""
A gate and a late source raise and send alerts by themselves. This DAG sends what has become due since: by the routes
of the setting `alerts` with `after_minutes`, and what could not be sent before. It also raises an alert for each owner
who has spent more than the setting `budgets` allows. Without a route it has no schedule.

`lake alerts list` shows the alerts, `lake alerts ack ID` ends the escalation of one.
""",
    schedule="*/5 * * * *" if settings().alerts else None,
    start_date=runs.START,
    catchup=False,
    max_active_runs=1,
    params={
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Only say in the log what would be sent, by which route.",
        )
    },
    default_args={"owner": "platform", **runs.RETRIES},
    tags=["alerts"],
) as dag:
    upkeep_tasks.send_alerts()

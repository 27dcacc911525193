"""Airflow DAG ``rollback``: make what readers saw before a release visible again."""

from airflow.sdk import DAG, Param

from lakehouse.airflow import runs, table_tasks

with DAG(
    dag_id="rollback",
    description="Points readers back at an earlier release, of one table or of all tables of a release.",
    doc_md="""
All tables go back together, as a new release that names who triggered it; the next writes go on from the earlier rows.
Nothing downstream is started: what was built on the rows that are gone is rolled back by its own release, or built
again. What was rolled back is landed and released again by running its interval.

**By hand:** *Trigger* with what is to go back; by REST the same fields go into `conf`.
""",
    schedule=None,
    start_date=runs.START,
    catchup=False,
    max_active_runs=1,
    params={
        "what": Param(
            None,
            type="string",
            pattern=r"^([0-9]+|[a-z_][a-z0-9_]*\.[A-Za-z_][A-Za-z0-9_]*)$",
            title="Release or table",
            description="Number of a release, whose tables all go back, such as 12; or a table: gold.fct_flights.",
        ),
        "to": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Back to release",
            description="The state right after this release; without it the state before the one that is undone.",
        ),
    },
    default_args={"owner": "platform", **runs.RETRIES},
    tags=["release"],
):
    table_tasks.rollback(table_tasks.plan_rollback())

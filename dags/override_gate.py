"""Airflow DAG ``override_gate``: publish what a gate has turned down, once a person who may do so has approved it."""

from airflow.sdk import DAG, Param

from lakehouse.airflow import override_tasks, runs

with DAG(
    dag_id="override_gate",
    description="Publishes what a gate has turned down, after an approval by a person.",
    doc_md="""
Whoever may trigger DAGs can ask; those that the setting `override_approvers` names can approve, under *Required
Actions*. The release carries the reason, the gate and who approved it.

**By hand:** *Trigger* with the `run_id` of the gate, which its task's log and `ops.gate_results` have, and the reason;
by REST the same fields go into `conf`.
""",
    schedule=None,
    start_date=runs.START,
    catchup=False,
    max_active_runs=16,  # they wait for a person, for up to a day
    params={
        "gate_run": Param(
            None, type="string", minLength=1, title="Run of the gate", description="`run_id` in `ops.gate_results`."
        ),
        "reason": Param(
            None,
            type="string",
            pattern=r"\S",
            title="Reason",
            description="Why the rows may be seen in spite of the broken rules. It is kept with the release.",
        ),
    },
    default_args={"owner": "platform", **runs.RETRIES},
    tags=["release", "gate"],
):
    approved = override_tasks.approve_override()
    override_tasks.describe_override() >> approved
    override_tasks.override(approved.output)

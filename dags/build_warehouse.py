"""Airflow DAG ``build_warehouse``: dbt builds silver and gold, one task for each model, and gold is released as one."""

from airflow.sdk import DAG, AssetAll, Param, chain
from cosmos import DbtTaskGroup, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

from lakehouse import dbt_project, warehouse
from lakehouse.airflow import runs, table_tasks, warehouse_tasks, watching
from lakehouse.airflow.assets import asset
from lakehouse.airflow.partitions import IntervalAssetTimetable, IntervalMapper
from lakehouse.interval import Interval

LAG_DAYS = {"identity": 0, "next_day": 1}

gold = dbt_project.stored_models()  # also sees to it that the manifest is up to date
triggers = {
    source: declared["config"]["meta"]["warehouse_trigger"]
    for source, declared in dbt_project.declared_sources().items()
}
mappers = {
    asset(f"bronze.{source}"): IntervalMapper(LAG_DAYS[trigger])
    for source, trigger in triggers.items()
    if trigger != "none"
}

env = {
    "DBT_INTERVAL_START": "{{ interval(partition_key).start }}",
    "DBT_INTERVAL_END": "{{ interval(partition_key).end }}",
    "DBT_PARTIAL_PARSE_FILE_PATH": str(dbt_project.parsed_path()),
    "DBT_COMMIT": '{"run_id": "{{ run_id }}", "step": "build", "interval": "{{ partition_key }}"}',
    "DBT_SOURCE_STATE": "{{ source_state(sources(), interval(partition_key)) }}",
}

with DAG(
    dag_id="build_warehouse",
    description="Builds the warehouse with dbt, gates the gold tables and releases them as one set.",
    doc_md=f"""
The warehouse of a day is what is known on the morning of that day, before the first departure: the schedule of the
day, and what happened until the day before. A run starts by itself when
{", ".join(f"`{asset.name}`" for asset in mappers)} have been released for it.

dbt writes the next versions of the gold tables; dbt's data tests and the gate check them, and they become visible
together.
{runs.HOW_TO_RUN}""",
    schedule=IntervalAssetTimetable(assets=AssetAll(*mappers), partition_mapper_config=mappers),
    start_date=runs.START,
    catchup=False,
    max_active_runs=1,  # one writer for each table
    params={
        "full_refresh": Param(
            False,
            type="boolean",
            title="Full refresh",
            description="Creates the tables anew, with the run's days only: for a change of their columns.",
        )
    },
    user_defined_macros={
        "interval": Interval.parse,
        "source_state": warehouse.source_state,
        "sources": warehouse.sources,
    },
    default_args={"owner": "analytics", **runs.RETRIES},
    tags=["warehouse", "silver", "gold", "dbt"],
):
    prepared = warehouse_tasks.prepare()
    dbt = DbtTaskGroup(
        group_id="dbt",
        project_config=ProjectConfig(
            dbt_project_path=dbt_project.PROJECT, manifest_path=dbt_project.manifest_path(), install_dbt_deps=False
        ),
        profile_config=ProfileConfig(
            profile_name=dbt_project.PROFILE,
            target_name=dbt_project.TARGET,
            profiles_yml_filepath=dbt_project.PROJECT / "profiles.yml",
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode.WATCHER,
            invocation_mode=InvocationMode.DBT_RUNNER,
            # Of the task that runs dbt; the tasks of the models only follow it.
            setup_operator_args={
                "doc_md": "Runs dbt once, for all models of the run's days. The task of each model follows it: its log "
                "says when the model was built, or why it was not.",
                "pool": runs.ENGINE_POOL,
                "pre_execute": warehouse_tasks.hold_warehouse_at_first,
            },
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST,
            test_behavior=TestBehavior.NONE,  # in a task of their own below, which needs no second copy of the project
            emit_datasets=False,
        ),
        operator_args={
            "pre_execute": warehouse_tasks.hold_warehouse,
            "post_execute": warehouse_tasks.free_warehouse,
            "env": env,
            "full_refresh": "{{ params.full_refresh }}",
            "dbt_runner_callbacks": [dbt_project.fence, warehouse.record_failure],
            # The models' tasks are told by events; nobody reads what dbt would write beside.
            "dbt_cmd_global_flags": ["--no-write-json", "--log-level-file", "none"],
        },
    )
    watching.start_in_triggerer(dbt, dbt_project.descriptions())
    gated = warehouse_tasks.gate_warehouse()
    # After the gate, which has dbt build once more when a model was built by itself, from later releases.
    tested = warehouse_tasks.test_warehouse()
    released = table_tasks.release.override(outlets=[asset("gold")])(gold)
    chain(prepared, dbt, gated, tested, released)

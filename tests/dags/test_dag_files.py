"""The DAG files: what is in them, how fast they are read, and which conf they take."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from lakehouse import contracts, dbt_project
from lakehouse.ml import model_folders

PROJECT = Path(__file__).parents[2]
DAGS = PROJECT / "dags"

SOURCES = ("airlines", "airports", "flight_actuals", "flight_schedule", "planes", "weather")
DAG_IDS = {
    *(f"ingest_{source}" for source in SOURCES),
    *(f"replay_{source}" for source in SOURCES),
    "build_warehouse",
    "train_flight_delay",
    "score_flight_delay",
    "train_flight_delay_minutes",
    "score_flight_delay_minutes",
    "promote_flight_delay",
    "promote_flight_delay_minutes",
    "monitor_flight_delay",
    "monitor_flight_delay_minutes",
    "rollback",
    "override_gate",
    "escalate_alerts",
    "maintain_lake",
}
MODELS = {
    "stg_airlines",
    "stg_airports",
    "stg_flight_actuals",
    "stg_flight_schedule",
    "stg_planes",
    "stg_weather",
    "dim_planes",
    "fct_flights",
    "daily_delays_by_airport",
    "daily_delays_by_carrier",
    "daily_delays_by_route",
    "on_time_league",
    "flight_delay_features",
}


def spoilt(path: Path, old: str, new: str) -> int:
    """Write something wrong into a file; its line."""
    text = path.read_text()
    path.write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + 1


PARSE = """
import json, runpy, sys, time
import airflow.dag_processing.dagbag, airflow.timetables.trigger  # what the DAG processor has in memory anyway
start = time.process_time()  # other processes on the machine must not decide
for file in sys.argv[1:]:
    runpy.run_path(file)
seconds = time.process_time() - start
heavy = {"dbt", "great_expectations", "mlflow", "pandas", "pyspark", "sklearn"} & sys.modules.keys()
print(json.dumps({"seconds": seconds, "heavy": sorted(heavy)}))
"""


def test_the_dags_are_exactly_these(bag: Any) -> None:
    assert set(bag.dags) == DAG_IDS


def test_a_wrong_contract_or_model_takes_its_own_dags_away_and_is_named(
    bag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    sources, models = tmp_path / "sources", tmp_path / "models"
    shutil.copytree(contracts.SOURCES_DIR, sources)
    shutil.copytree(model_folders.MODELS_DIR, models)
    lines = {
        "sources/flight_schedule.yaml": spoilt(
            sources / "flight_schedule.yaml", "logicalType: string", "logicalType: strnig"
        ),
        "models/flight_delay_minutes/model.yaml": spoilt(
            models / "flight_delay_minutes" / "model.yaml", "task: regression", "task: guessing"
        ),
    }  # fmt: skip
    monkeypatch.setattr(contracts, "SOURCES_DIR", sources)
    monkeypatch.setattr(model_folders, "MODELS_DIR", models)
    contracts.load.cache_clear()
    generated = dbt_project.SOURCES.read_text()
    try:
        found = DagBag(DAGS)
    finally:
        contracts.load.cache_clear()
    stages = ("train", "score", "promote", "monitor")
    lost = {"ingest_flight_schedule", "replay_flight_schedule", *(f"{stage}_flight_delay_minutes" for stage in stages)}
    assert set(found.dags) == DAG_IDS - lost
    [(file, error)] = found.import_errors.items()
    assert Path(file).name == "declarations.py"
    for path, line in lines.items():
        assert f"{path}, line {line}: " in error
    assert "strnig" in error and "'classification' or 'regression'" in error
    # The build goes on waiting for the source, and knows its columns.
    assert waits_for(found) == waits_for(bag) >= {"bronze.flight_schedule"}
    assert dbt_project.SOURCES.read_text() == generated


def waits_for(bag: Any) -> set[str]:
    """The assets that lead to a build of the warehouse."""
    return {asset.name for asset in bag.dags["build_warehouse"].timetable.asset_condition.objects}


def test_all_files_are_read_within_two_seconds_and_import_nothing_heavy(manifest: Path) -> None:
    files = sorted(str(path) for path in DAGS.glob("*.py"))
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *files], capture_output=True, text=True, check=True, env=os.environ
    )
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["heavy"] == []
    assert outcome["seconds"] < 2


@pytest.mark.parametrize(
    "path",
    sorted([*DAGS.glob("*.py"), *PROJECT.glob("models/*/pipeline.py")]),
    ids=lambda path: str(path.relative_to(PROJECT)),
)
def test_dags_and_pipelines_build_on_the_library_alone(path: Path) -> None:
    """The other folders' imports are read by import-linter, for which these are in no package."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {each.name.partition(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(str(node.module).partition(".")[0])
    others = {folder.name for folder in PROJECT.iterdir() if folder.is_dir()} - {"lakehouse", "dags", "dbt"}
    assert imported and not imported & others


@pytest.mark.parametrize(
    ("prefix", "most"),
    # A task costs a process and a second or so: each that is added to a day's run has to be worth it.
    [("ingest_", 4), ("replay_", 3), ("build_warehouse", 6 + len(MODELS)), ("score_", 3), ("train_", 1)],
)
def test_a_run_has_no_more_tasks_than_it_needs(prefix: str, most: int, bag: Any) -> None:
    counts = [len(dag.tasks) for dag_id, dag in bag.dags.items() if dag_id.startswith(prefix)]
    assert 0 < max(counts) <= most


def test_every_dag_and_task_says_what_it_is_and_who_owns_it(bag: Any) -> None:
    for dag in bag.dags.values():
        assert dag.doc_md and dag.description and dag.tags, dag.dag_id
        assert dag.max_active_runs == 1 or dag.dag_id == "override_gate", dag.dag_id
        assert dag.catchup is False, dag.dag_id
        assert dag.params, dag.dag_id
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.schema.get("type") and param.schema.get("title") and param.description, (dag.dag_id, name)
        for task in dag.tasks:
            assert task.owner not in ("airflow", ""), task
            assert task.retries >= 1 and task.execution_timeout, task
            assert task.doc_md, task


def test_the_task_of_a_model_says_what_the_model_is(bag: Any) -> None:
    import yaml

    described = {
        model["name"]: model["description"]
        for path in (DAGS.parent / "dbt" / "models").rglob("*.yml")
        for model in yaml.safe_load(path.read_text()).get("models", [])
    }
    dag = bag.dags["build_warehouse"]
    for model in MODELS:
        said = " ".join(dag.get_task(f"dbt.{model}_run").doc_md.split())
        assert " ".join(described[model].split()) in said, model
        assert f"/{model}.sql`" in said


@pytest.mark.parametrize("source", SOURCES)
def test_ingestion_waits_lands_gates_and_releases(bag: Any, source: str) -> None:
    dag = bag.dags[f"ingest_{source}"]
    assert [task.task_id for task in dag.topological_sort()] == ["wait", "land", "gate", "release"]
    wait = dag.get_task("wait")
    assert wait.mode == "reschedule" and wait.poke_interval >= 10
    assert [asset.name for asset in dag.get_task("release").outlets] == [f"bronze.{source}"]
    assert dag.get_task("release").outlets[0].uri == f"lake://bronze/{source}"


@pytest.mark.parametrize("source", SOURCES)
def test_replay_is_gated_and_released_like_a_landing_and_never_scheduled(bag: Any, source: str) -> None:
    dag = bag.dags[f"replay_{source}"]
    assert [task.task_id for task in dag.topological_sort()] == ["replay", "gate", "release"]
    assert [asset.name for asset in dag.get_task("release").outlets] == [f"bronze.{source}"]
    assert not dag.timetable.can_be_scheduled


def test_each_dbt_model_is_a_task_and_gold_is_released_at_the_end(bag: Any) -> None:
    dag = bag.dags["build_warehouse"]
    assert {f"dbt.{model}_run" for model in MODELS} <= set(dag.task_ids)
    first, *_, last = dag.topological_sort()
    assert (first.task_id, last.task_id) == ("prepare", "release")
    assert [asset.name for asset in last.outlets] == ["gold"]
    for task in dag.tasks:
        assert task.start_from_trigger == (task.task_id in {f"dbt.{model}_run" for model in MODELS}), task
    assert dag.get_task("gate_warehouse").upstream_task_ids >= {"dbt.dbt_producer_watcher_done"}
    # Never beside the gate, which may have dbt write the tables once more.
    assert dag.get_task("gate_warehouse").downstream_task_ids == {"test_warehouse"}
    assert dag.get_task("test_warehouse").downstream_task_ids == {"release"}
    assert set(last.op_args[0]) == {f"gold.{model}" for model in MODELS if not model.startswith("stg_")}


def test_every_dbt_of_a_build_is_told_which_state_of_the_sources_it_reads(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse import release_log

    state = {"bronze.weather": release_log.Released("bronze.weather", 17, 9)}
    monkeypatch.setattr(release_log, "released", lambda: state)
    dag = bag.dags["build_warehouse"]
    tasks = [task for task in dag.tasks if "DBT_COMMIT" in (getattr(task, "env", None) or {})]
    assert {task.task_id for task in tasks} >= {"dbt.dbt_producer_watcher", *(f"dbt.{model}_run" for model in MODELS)}
    for task in tasks:
        told = task.render_template(
            task.env["DBT_SOURCE_STATE"], {"partition_key": "2013-03-01"}, dag.get_template_env()
        )
        assert json.loads(told)["reads"] == {"bronze.weather": 17}, task


def test_a_model_is_trained_when_its_schedule_says_and_without_one_on_demand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import TimeRestriction

    shutil.copytree(model_folders.MODELS_DIR, tmp_path / "models")
    monkeypatch.setattr(model_folders, "MODELS_DIR", tmp_path / "models")
    spoilt(tmp_path / "models" / "flight_delay" / "model.yaml", "schedule: null", 'schedule: "30 4 * * 1"')
    found = DagBag(DAGS / "train.py")
    assert set(found.dags) == {"train_flight_delay", "train_flight_delay_minutes"} and not found.import_errors
    first = {}
    for name, dag in found.dags.items():
        timetable = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag)))).timetable
        at_any_time = TimeRestriction(None, None, catchup=False)
        first[name] = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=at_any_time)
    assert first.pop("train_flight_delay_minutes") is None
    [monday] = [each.run_after for each in first.values()]
    assert (monday.weekday(), monday.hour, monday.minute) == (0, 4, 30)


def test_maintenance_waits_for_its_time_and_does_not_begin_with_a_new_platform(stored: dict[str, Any]) -> None:
    import datetime as dt

    from airflow.timetables.base import TimeRestriction

    dag = stored["maintain_lake"]
    assert dag.start_date is None
    first = dag.timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(None, None, catchup=False)
    )
    assert first.run_after > dt.datetime.now(dt.UTC) and first.run_after.weekday() == 6


def test_an_override_waits_for_one_of_those_who_may_approve_it(bag: Any) -> None:
    dag = bag.dags["override_gate"]
    assert [task.task_id for task in dag.topological_sort()] == ["describe_override", "approve", "override"]
    approve = dag.get_task("approve")
    assert [user["id"] for user in approve.assigned_users] == ["role:Admin", "role:Op"]
    assert approve.response_timeout.days == 1 and not approve.defaults
    with pytest.raises(AirflowFailException, match=r"within 1 day, .* Nothing is published"):  # and no retry asks again
        approve.execute_complete({}, {"error": "the timeout has passed", "error_type": "timeout"})


def test_a_promotion_waits_for_one_of_those_who_may_decide_it(bag: Any) -> None:
    dag = bag.dags["promote_flight_delay"]
    assert [task.task_id for task in dag.topological_sort()] == ["propose", "ask", "decide"]
    ask = dag.get_task("ask")
    assert [user["id"] for user in ask.assigned_users] == ["role:Admin", "role:Op"]
    assert ask.options == ["Approve", "Reject"] and not ask.defaults and list(ask.params) == ["note"]
    assert ask.response_timeout.total_seconds() == 72 * 3600
    with pytest.raises(AirflowFailException, match="goes on waiting"):  # and no retry asks again
        ask.execute_complete({}, {"error": "the timeout has passed", "error_type": "timeout"})


PROMOTE = """
import json, runpy, sys
from lakehouse.ml import model_folders
load = model_folders.load
policy = lambda spec: spec.model_copy(update={"promotion": spec.promotion.model_copy(update={"policy": sys.argv[2]})})
model_folders.load = lambda name: policy(load(name))
dag = runpy.run_path(sys.argv[1])["dag"]
print(json.dumps(dag.schedule and [asset.name for asset in dag.schedule]))
"""


@pytest.mark.parametrize(("policy", "assets"), [("auto", None), ("approve", ["models.flight_delay_minutes"])])
def test_a_training_starts_the_question_where_the_policy_is_to_ask(policy: str, assets: list[str] | None) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROMOTE, str(DAGS / "promote.py"), policy],
        capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == assets


def test_a_cause_to_retrain_starts_one_training_with_it(bag: Any, stored: dict[str, Any]) -> None:
    dag = bag.dags["monitor_flight_delay"]
    assert [task.task_id for task in dag.topological_sort()] == ["monitor", "decide", "train"]
    task = dag.get_task("train")
    decided = {"interval": "2013-03-01/2013-03-07", "window": "2013-01-15/2013-03-07", "reason": "age: 57 days"}
    pull = type("TaskInstance", (), {"xcom_pull": staticmethod(lambda task_ids: {"decide": decided}[task_ids])})
    environment = dag.get_template_env()
    conf = task.render_template(task.conf, {"ti": pull}, environment)
    assert conf == {"window": "2013-01-15/2013-03-07", "cause": "age: 57 days"}
    stored[task.trigger_dag_id].params.deep_merge(conf).validate()
    run_id = task.render_template(task.trigger_run_id, {"ti": pull}, environment)
    assert run_id == "retrain__2013-03-01_2013-03-07" and task.skip_when_already_exists
    # What Airflow would add is a key that the training does not know, and refuses.
    assert not task.openlineage_inject_parent_info


def test_the_tasks_that_use_the_engine_share_its_pool(bag: Any) -> None:
    engine = {"prepare", "land", "gate", "gate_warehouse", "release", "train", "score", "dbt.dbt_producer_watcher"}
    engine |= {"replay", "rollback", "override", "test_warehouse", "monitor", "decide", "propose", "maintain"}
    for dag in bag.dags.values():
        for task in dag.tasks:
            if dag.dag_id.startswith("monitor_") and task.task_id == "train":
                assert task.pool == "default_pool"  # it starts a run, whose own task has the slot
                continue
            assert task.pool == ("engine" if task.task_id in engine else "default_pool"), task


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("ingest_weather", {"wait": "no"}),
        ("ingest_weather", {"wait": None}),
        ("build_warehouse", {"full_refresh": 1}),
        ("train_flight_delay", {"window": "2013"}),
        ("train_flight_delay", {"window": 28}),
        ("score_flight_delay", {"what_if": 0}),
        ("score_flight_delay", {"what_if": "2"}),
        ("promote_flight_delay", {"version": "newest"}),
        ("train_flight_delay", {"cause": ["drift"]}),
        ("monitor_flight_delay", {"retrain": "yes"}),
        ("score_flight_delay", {"model_version": "champion"}),
        ("score_flight_delay", {"model_version": 0}),
        ("replay_weather", {"dry_run": "yes"}),
        ("escalate_alerts", {"dry_run": 1}),
        ("rollback", {}),
        ("rollback", {"what": "everything"}),
        ("rollback", {"what": "12", "to": "11"}),
        ("override_gate", {"gate_run": "4f0c"}),
        ("override_gate", {"gate_run": "4f0c", "reason": " "}),
        ("maintain_lake", {"keep_days": -1}),
    ],
)
def test_a_wrong_conf_is_refused(stored: dict[str, Any], dag_id: str, conf: dict[str, Any]) -> None:
    from airflow.exceptions import ParamValidationError

    with pytest.raises(ParamValidationError):
        stored[dag_id].params.deep_merge(conf).validate()


@pytest.mark.parametrize(
    ("dag_id", "conf"),
    [
        ("ingest_weather", {}),
        ("ingest_weather", {"wait": False}),
        ("build_warehouse", {"full_refresh": True}),
        ("train_flight_delay", {}),
        ("train_flight_delay", {"window": "2013-01-01/2013-02-28"}),
        ("train_flight_delay", {"window": "2013-01-01/2013-02-28", "cause": "age: 57 days"}),
        ("score_flight_delay", {}),
        ("score_flight_delay", {"what_if": 2}),
        ("promote_flight_delay", {}),
        ("promote_flight_delay", {"version": 2}),
        ("monitor_flight_delay", {}),
        ("monitor_flight_delay", {"retrain": False}),
        ("score_flight_delay", {"model_version": 2}),
        ("replay_weather", {"dry_run": True}),
        ("rollback", {"what": "12"}),
        ("rollback", {"what": "gold.fct_flights", "to": 11}),
        ("override_gate", {"gate_run": "4f0c", "reason": "counted by hand"}),
        ("maintain_lake", {}),
        ("maintain_lake", {"keep_days": 7}),
    ],
)
def test_a_right_conf_is_taken(stored: dict[str, Any], dag_id: str, conf: dict[str, Any]) -> None:
    stored[dag_id].params.deep_merge(conf).validate()


def test_gates_tests_landings_and_sensors_report_when_they_have_ended_and_not_at_each_try(bag: Any) -> None:
    from lakehouse.airflow.alerts import after_gate, after_land, after_score, after_test, after_wait

    ended: dict[str, Any] = {}
    for dag in bag.dags.values():
        for task in dag.tasks:
            if not task.task_id.startswith("dbt."):
                assert not task.on_retry_callback, task
            calls = [*task.on_failure_callback, *task.on_success_callback]
            if task.task_id in ("gate", "gate_warehouse"):
                assert calls == [after_gate, after_gate], task
            elif task.task_id == "score":
                assert calls == [after_score, after_score], task
            elif task.task_id == "test_warehouse":
                assert calls == [after_test, after_test], task
            elif task.task_id in ("wait", "land", "replay"):
                [call] = task.on_failure_callback
                assert calls == [call]
                ended[f"{dag.dag_id}.{task.task_id}"] = (call.func, *call.args)
    assert ended == {
        name: (call, source)
        for source in SOURCES
        for name, call in (
            (f"ingest_{source}.wait", after_wait),
            (f"ingest_{source}.land", after_land),
            (f"replay_{source}.replay", after_land),
        )
    }


@pytest.mark.parametrize(("routes", "schedule"), [({}, "None"), ({"mail": {"notifier": "a.B"}}, "*/5 * * * *")])
def test_alerts_are_escalated_by_schedule_only_where_there_is_somebody_to_tell(
    routes: dict[str, Any], schedule: str
) -> None:
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['dag'].schedule)"
    done = subprocess.run(
        [sys.executable, "-c", script, str(DAGS / "escalate_alerts.py")],
        env={**os.environ, "LAKE_ALERTS": json.dumps(routes)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == schedule

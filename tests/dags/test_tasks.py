"""What the tasks refuse before they do anything, and which errors are worth another try."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def context(key: str | None, conf: dict[str, Any] | None = None, wait: bool = True) -> dict[str, Any]:
    return {
        "partition_key": key,
        "params": {"wait": wait},
        "dag": SimpleNamespace(dag_id="ingest_planes", params={"wait": wait}),
        "dag_run": SimpleNamespace(conf=conf),
    }


def test_the_interval_of_a_run_is_its_partition_key() -> None:
    from lakehouse.airflow.runs import run_interval

    assert str(run_interval(context("2013-01-01/2013-02-28", {"wait": False}))) == "2013-01-01/2013-02-28"


@pytest.mark.parametrize(
    ("key", "conf", "message"),
    [
        (None, {}, "has no partition key"),
        ("yesterday", {}, "'yesterday' is not an interval"),
        ("2013-03-01", {"wiat": True}, "wiat, which ingest_planes does not know; it takes wait"),
        ("2013-03-01", {"interval": "2013-03-01"}, "Days are given as the run's partition key"),
    ],
)
def test_a_run_that_is_not_clear_fails_at_once(key: str | None, conf: dict[str, Any], message: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lakehouse.airflow.runs import run_interval

    with pytest.raises(AirflowFailException, match=message):
        run_interval(context(key, conf))


def test_the_first_task_of_every_dag_refuses_a_conf_that_the_dag_does_not_know(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    for dag in bag.dags.values():
        [first] = dag.roots
        run = SimpleNamespace(conf={"kepe_days": 7}, triggering_user_name="ada")
        about = {"dag": dag, "dag_run": run, "params": dag.params.dump(), "partition_key": "2013-03-01", "ti": None}
        for path in Path("lakehouse/airflow").glob("*_tasks.py"):
            monkeypatch.setattr(f"lakehouse.airflow.{path.stem}.get_current_context", lambda about=about: about)
        with pytest.raises(AirflowFailException, match=f"kepe_days, which {dag.dag_id} does not know"):
            if hasattr(first, "python_callable"):
                first.python_callable(*first.op_args, **first.op_kwargs)
            else:
                first.execute(about)


def test_what_a_person_must_put_right_is_not_tried_again() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lakehouse.airflow.runs import no_retry
    from lakehouse.errors import LakeError

    with pytest.raises(AirflowFailException, match="LakeError: wrong header"), no_retry():
        raise LakeError("wrong header")


@pytest.mark.parametrize("name", ["TableLockedError", "StaleWriterError"])
def test_a_busy_table_and_a_lost_engine_are_tried_again(name: str) -> None:
    from lakehouse import locks
    from lakehouse.airflow.runs import no_retry

    error = getattr(locks, name)
    with pytest.raises(error), no_retry():
        raise error("busy")
    with pytest.raises(ConnectionError), no_retry():
        raise ConnectionError("engine is gone")


def test_an_upload_that_is_under_way_is_waited_for() -> None:
    from lakehouse.airflow.runs import no_retry
    from lakehouse.readers.batch import UnfinishedError

    with pytest.raises(UnfinishedError), no_retry():
        raise UnfinishedError("it grows", "changed_while_read")


def test_a_writer_that_has_not_come_to_its_end_is_waited_for() -> None:
    from lakehouse.airflow.runs import no_retry
    from lakehouse.releases.unreleased import UnfinishedWriteError

    with pytest.raises(UnfinishedWriteError), no_retry():
        raise UnfinishedWriteError("it still runs")


def test_dbt_in_airflow_keeps_other_writers_of_gold_out(bag: Any) -> None:
    from lakehouse.airflow import warehouse_tasks

    hooks = {
        task.task_id: (task._pre_execute_hook, task._post_execute_hook)
        for task in bag.dags["build_warehouse"].task_group.children["dbt"].iter_tasks()
    }
    done = hooks.pop("dbt.dbt_producer_watcher_done")
    assert done == (None, None)
    assert hooks.pop("dbt.dbt_producer_watcher") == (
        warehouse_tasks.hold_warehouse_at_first,
        warehouse_tasks.free_warehouse,
    )
    assert set(hooks.values()) == {(warehouse_tasks.hold_warehouse, warehouse_tasks.free_warehouse)}


def test_dbt_in_airflow_writes_nothing_once_its_lock_is_lost_and_its_commits_name_the_lock(
    bag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lakehouse import dbt_project, locks, warehouse
    from lakehouse.airflow import warehouse_tasks
    from lakehouse.steps import code_version

    @contextmanager
    def writer(table: str) -> Iterator[locks.WriterLock]:
        yield locks.WriterLock(table, 7, None)  # type: ignore[arg-type]

    monkeypatch.setattr(locks, "writer", writer)
    made = [task for task in bag.dags["build_warehouse"].tasks if hasattr(task, "_dbt_runner_callbacks")]
    assert {f"dbt.{model}" for model in ("dbt_producer_watcher", "fct_flights_run", "stg_weather_run")} <= {
        task.task_id for task in made
    }
    for task in made:
        assert task._dbt_runner_callbacks == [dbt_project.fence, warehouse.record_failure]
        written = SimpleNamespace(env=task.env | {"DBT_COMMIT": '{"run_id": "r", "step": "build"}'})
        params = {"full_refresh": True}
        task._pre_execute_hook({"task": written, "ti": SimpleNamespace(try_number=1), "params": params})
        warehouse_tasks.free_warehouse({})
        assert json.loads(written.env["DBT_COMMIT"]) == {
            "run_id": "r", "step": "build", "code_version": code_version(), "token": 7,
        }  # fmt: skip
        assert json.loads(task.env["DBT_COMMIT"]).keys() == {"run_id", "step", "interval"}


def test_a_missing_file_is_named_when_the_run_is_not_to_wait(lake_home: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lakehouse.airflow.source_tasks import wait

    with pytest.raises(AirflowFailException, match=r"planes_2013-03-01\.csv"):
        wait("planes").execute(context("2013-03-01", wait=False))


def test_a_day_outside_of_the_history_fails_at_once() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from lakehouse.airflow.source_tasks import wait

    with pytest.raises(AirflowFailException, match="planes has no data about 2014-03-01"):
        wait("planes").execute(context("2014-03-01"))


@pytest.mark.parametrize(
    ("roles", "user_id", "assigned", "may"),
    [
        (["Op"], 7, {"role:Admin", "role:Op"}, True),
        (["User"], 7, {"role:Admin", "role:Op"}, False),
        (["User", "Admin"], 7, {"role:Admin"}, True),
        (["User"], 7, {"7"}, True),
        (["Viewer"], 8, {"7"}, False),
    ],
)
def test_an_approval_can_be_assigned_to_a_role(roles: list[str], user_id: int, assigned: set[str], may: bool) -> None:
    from airflow.providers.fab.auth_manager.models import Role, User

    from lakehouse.airflow.auth import LakeFabAuthManager

    user = User(id=user_id, username="ada", roles=[Role(name=name) for name in roles])
    assert LakeFabAuthManager().is_authorized_hitl_task(assigned_users=assigned, user=user) is may


def test_a_model_without_a_champion_is_skipped_and_what_if_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    from lakehouse import steps
    from lakehouse.airflow import model_tasks
    from lakehouse.registry import roles

    about: dict[str, Any] = context("2013-03-01") | {"ti": SimpleNamespace(xcom_push=lambda *_: None)}
    monkeypatch.setattr(model_tasks, "get_current_context", lambda: about)
    monkeypatch.setattr(steps, "job", lambda name: lambda *arguments: {"job": name})
    registered = {"model_version": 1, "event": "registered", "serves_from": dt.date(2013, 3, 1)}
    promoted = registered | {"event": "promoted"}
    asked: list[Any] = []
    for log, what_if in (([], None), ([registered], None), ([registered], 1), ([registered, promoted], None)):
        monkeypatch.setattr(roles, "events", lambda _model, log=log: log)
        about["params"] = {"model_version": None, "what_if": what_if}
        try:
            asked.append(model_tasks.score.function("flight_delay"))
        except AirflowSkipException as skipped:
            asked.append(str(skipped).partition(":")[0])
    assert asked == [
        "flight_delay has not been trained", "flight_delay has no champion yet", None, {"job": "score"},
    ]  # fmt: skip


def test_steps_hang_below_the_runs_that_the_openlineage_provider_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.providers.openlineage.plugins.adapter import OpenLineageAdapter

    from lakehouse.airflow.lineage import on_task_instance_running
    from lakehouse.lineage import openlineage

    at = dt.datetime(2013, 3, 2, tzinfo=dt.UTC)
    run = SimpleNamespace(conf={}, logical_date=None, run_after=at, clear_number=0)
    about = {"dag_id": "ingest_weather", "task_id": "land"}
    task = SimpleNamespace(
        **about, try_number=2, map_index=-1, dag_run=run, get_template_context=lambda: {"dag_run": run}
    )
    for name in (openlineage.PARENT, openlineage.ROOT):
        monkeypatch.setenv(name, "to be put back afterwards")
    on_task_instance_running(None, task)
    mine = OpenLineageAdapter.build_task_instance_run_id(**about, try_number=2, logical_date=at, map_index=-1)
    root = OpenLineageAdapter.build_dag_run_id("ingest_weather", at, 0)
    assert os.environ[openlineage.PARENT].endswith(f"/ingest_weather.land/{mine}")
    assert os.environ[openlineage.ROOT].endswith(f"/ingest_weather/{root}")


def test_a_delivery_that_does_not_come_is_named_when_the_waiting_is_over() -> None:
    from airflow.sdk.exceptions import AirflowSensorTimeout

    from lakehouse.airflow.source_tasks import DeliverySensor

    sensor = DeliverySensor(task_id="wait", source="planes", mode="poke", poke_interval=0.05, timeout=0.2)
    with pytest.raises(
        AirflowSensorTimeout, match=r"planes 2013-06-01: waited .* for .*planes_2013-06-01\.csv\. Clear"
    ):
        sensor.execute(context("2013-06-01"))

"""What the tasks of models wait for in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.triggers.base import TaskSuccessEvent

from lakehouse.airflow import watching
from lakehouse.airflow.watching import ModelTrigger

MODEL = "model.lakehouse.fct_flights"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0)


def waited(monkeypatch: pytest.MonkeyPatch, try_number: int, *looks: tuple[str, str | None]) -> Any:
    """What a trigger reports, or `success` when that ends the task.

    Each look finds the state of the task that runs dbt, and that of the model.
    """
    trigger = ModelTrigger(MODEL, "dbt.producer")
    trigger.poke_interval = 0
    trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
        dag_id="build_warehouse", run_id="r", map_index=-1, task_id="dbt.fct_flights_run", try_number=try_number
    )
    seen: Iterator[tuple[str, str | None]] = iter(looks)
    now: list[str | None] = [None]

    async def producer() -> str:
        state, now[0] = next(seen)
        return state

    async def xcom(key: str) -> Any:
        assert (trigger.dag_id, trigger.run_id) == ("build_warehouse", "r")
        return {"status": now[0], "outlet_uris": []} if now[0] and key.endswith("fct_flights_status") else None

    monkeypatch.setattr(trigger, "_get_producer_task_status", producer)
    monkeypatch.setattr(trigger, "get_xcom_val_af3", xcom)

    async def first() -> Any:
        async for event in trigger.run():
            return "success" if isinstance(event, TaskSuccessEvent) else event.payload
        raise AssertionError("nothing was reported")

    found = asyncio.run(first())
    assert next(seen, None) is None  # it has looked as often as it had to
    return found


def test_a_model_that_dbt_has_built_is_reported_before_the_build_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    found = waited(monkeypatch, 1, ("running", None), ("running", None), ("running", "success"))
    assert found == "success"


def test_the_line_about_a_model_is_written_some_time_before_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    after: list[str] = []

    async def sleep(_: float) -> None:
        after.append(caplog.messages[-1] if caplog.messages else "")

    monkeypatch.setattr(watching.asyncio, "sleep", sleep)
    with caplog.at_level("INFO", logger=watching.__name__):
        waited(monkeypatch, 1, ("running", "success"))
    assert after == [f"{MODEL}: built from None to None"]


def test_a_model_that_is_broken_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = waited(monkeypatch, 1, ("running", None), ("running", "error"))
    assert (found["status"], found["reason"]) == ("failed", "node_failed")


def test_a_model_that_a_failed_build_has_not_reached_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    found = waited(monkeypatch, 1, ("running", None), ("failed", None))
    assert (found["status"], found["reason"]) == ("failed", "producer_failed")


@pytest.mark.parametrize("ended", ["failed", "skipped", "success"])
def test_another_try_builds_the_model_by_itself_once_the_build_has_ended(
    monkeypatch: pytest.MonkeyPatch, ended: str
) -> None:
    # The status is what the try before has failed on, or of a run whose task was cleared by hand.
    found = waited(monkeypatch, 2, ("running", "error"), (ended, "error"))
    assert (found["status"], found["reason"]) == ("failed", "producer_skipped")


def test_another_try_waits_for_a_build_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = waited(monkeypatch, 2, ("running", None), ("running", "success"), ("running", "success"))
    assert found == "success"


def test_a_trigger_is_made_again_from_what_airflow_stores() -> None:
    from airflow.sdk.module_loading import import_string

    path, arguments = ModelTrigger(MODEL, "dbt.producer").serialize()
    again = import_string(path)(**arguments)
    assert (again.model_unique_id, again.producer_task_id) == (MODEL, "dbt.producer")

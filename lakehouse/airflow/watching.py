"""The tasks of dbt models live in the triggerer, and take a worker only when their model has failed.

Cosmos starts each of them in a worker, which looks once and hands over to the triggerer, and ends it in another: two
processes of half a second of processor time for each model, which the dbt build beside them lacks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.sdk import TaskGroup
from airflow.triggers.base import StartTriggerArgs, TaskSuccessEvent, TriggerEvent
from cosmos.listeners.dag_run_listener import EventStatus
from cosmos.operators._watcher.base import BaseConsumerSensor
from cosmos.operators._watcher.state import (
    PRODUCER_FINAL_STATES,
    get_dbt_event_xcom_key,
    is_dbt_node_status_success,
)
from cosmos.operators._watcher.triggerer import WatcherEventReason, WatcherTrigger

POLL_SECONDS = 1.0

log = logging.getLogger(__name__)


class ModelTrigger(WatcherTrigger):
    """Waits for a model of the dbt build in the same run.

    Args:
        model: dbt's id of the model.
        producer: Id of the task that runs dbt.
    """

    def __init__(self, model: str, producer: str) -> None:
        # Run and DAG are those of the task instance, which the triggerer sets afterwards.
        super().__init__(model, producer, dag_id="", run_id="", map_index=None, poke_interval=POLL_SECONDS)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What Airflow makes the trigger from again."""
        return (
            f"{ModelTrigger.__module__}.{ModelTrigger.__qualname__}",
            {"model": self.model_unique_id, "producer": self.producer_task_id},
        )

    async def get_xcom_val(self, key: str) -> Any | None:
        """A value that the task that runs dbt has left, without a line in the log for each look.

        Args:
            key: Its key.
        """
        return await self.get_xcom_val_af3(key)

    async def _log_startup_events(self) -> None:
        """Nothing: the log of the task that runs dbt says which dbt it is."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until the model is done, or, in a later try, until it is known that it has to be built by itself."""
        instance = self.task_instance
        assert instance is not None
        self.dag_id, self.run_id, self.map_index = instance.dag_id, instance.run_id, instance.map_index
        if instance.try_number > 1:
            while await self._get_producer_task_status() not in PRODUCER_FINAL_STATES:
                if is_dbt_node_status_success(await self._get_node_status()):
                    break
                await asyncio.sleep(POLL_SECONDS)
            else:
                # What the build has left of this model is what the try before this one has failed on.
                yield TriggerEvent({"status": EventStatus.FAILED, "reason": WatcherEventReason.PRODUCER_SKIPPED})
                return
        async for event in super().run():
            if event.payload["status"] != EventStatus.SUCCESS:
                yield event  # a worker tells what dbt has said, and another try builds the model by itself
                return
            told = await self.get_xcom_val(get_dbt_event_xcom_key(self.model_unique_id)) or {}
            log.info("%s: built from %s to %s", self.model_unique_id, told.get("start_time"), told.get("finish_time"))
            # The triggerer reads lines and ends apart from each other, and drops the lines of a trigger that has ended.
            await asyncio.sleep(POLL_SECONDS)
            yield TaskSuccessEvent()


def start_in_triggerer(group: TaskGroup, descriptions: Mapping[str, str]) -> None:
    """Let the tasks of models start in the triggerer, and say what their models are.

    Args:
        group: The task group of a dbt project that Cosmos has made in watcher mode.
        descriptions: dbt's id of a model to what it is.
    """
    for task in group.iter_tasks():
        if isinstance(task, BaseConsumerSensor):
            task.doc_md = descriptions[task.model_unique_id]
            task.start_from_trigger = True
            task.start_trigger_args = StartTriggerArgs(
                trigger_cls=f"{ModelTrigger.__module__}.{ModelTrigger.__qualname__}",
                trigger_kwargs={"model": task.model_unique_id, "producer": task.producer_task_id},
                next_method=BaseConsumerSensor.execute_complete.__name__,
                timeout=task.execution_timeout,
            )

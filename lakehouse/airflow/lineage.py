"""OpenLineage in Airflow: the steps that a task runs hang below the task."""

from __future__ import annotations

import os
from typing import Any

from airflow.listeners import hookimpl

from lakehouse.lineage import openlineage


@hookimpl
def on_task_instance_running(previous_state: Any, task_instance: Any) -> None:
    """Hand on the ids of the task's run and of its DAG run, as Airflow's provider gives them in its events.

    Args:
        previous_state: The state before.
        task_instance: The task that begins, in whose process this is.
    """
    from airflow.providers.openlineage.plugins import macros

    os.environ[openlineage.PARENT] = macros.lineage_parent_id(task_instance)
    os.environ[openlineage.ROOT] = macros.lineage_root_parent_id(task_instance)

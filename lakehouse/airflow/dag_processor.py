"""Airflow's DAG processor, with the libraries of the DAG files in memory.

It forks a process for each file that it reads, and reads each again and again: what it has imported itself, none of
them has to import.
"""

from __future__ import annotations

import gc
import importlib
import sys

LIBRARIES = (
    "airflow.providers.openlineage.plugins.openlineage",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.hitl",
    "airflow.sdk",
    "airflow.serialization.serialized_objects",
    "airflow.timetables.trigger",
    "cosmos",
    "cosmos.airflow.task_group",
    "cosmos.operators.watcher",
    "cosmos.plugin.airflow3",
    "lakehouse.airflow.model_tasks",
    "lakehouse.airflow.override_tasks",
    "lakehouse.airflow.partitions",
    "lakehouse.airflow.plugin",
    "lakehouse.airflow.promotion_tasks",
    "lakehouse.airflow.source_tasks",
    "lakehouse.airflow.table_tasks",
    "lakehouse.airflow.upkeep_tasks",
    "lakehouse.airflow.warehouse_tasks",
    "lakehouse.airflow.watching",
    "lakehouse.ml.model_folders",
    "lakehouse.warehouse",
)


def main() -> None:
    """Import, then run Airflow's command."""
    for library in LIBRARIES:
        importlib.import_module(library)
    from airflow.__main__ import main as airflow

    # What is there is not looked through by the collector of each process, which would copy its pages.
    gc.collect()
    gc.freeze()
    sys.argv = ["airflow", "dag-processor"]
    airflow()


if __name__ == "__main__":
    main()

"""A LocalExecutor whose tasks start with the heavy libraries in memory."""

from __future__ import annotations

import importlib
import logging
import threading
import time

from airflow.executors.local_executor import LocalExecutor

from lakehouse.airflow import quiet

log = logging.getLogger(__name__)

# Imported here and nowhere used before the fork: delta-rs, gRPC and MLflow start threads that do not survive one.
LIBRARIES = (
    "airflow.dag_processing.bundles.local",
    "airflow.providers.standard.decorators.python",
    "cosmos.airflow.task_group",
    "cosmos.operators.watcher",
    "dbt.adapters.spark",
    "dbt.cli.main",
    "deltalake",
    "great_expectations",
    "great_expectations.expectations.core",
    "lakehouse.airflow.model_tasks",
    "lakehouse.airflow.override_tasks",
    "lakehouse.airflow.promotion_tasks",
    "lakehouse.airflow.source_tasks",
    "lakehouse.airflow.table_tasks",
    "lakehouse.airflow.upkeep_tasks",
    "lakehouse.airflow.warehouse_tasks",
    "lakehouse.ml.training",
    "lakehouse.quality.gx_engine",
    "lakehouse.registry.registry",
    "lakehouse.releases.audit",
    "lakehouse.steps",
    "lakehouse.warehouse",
    "mlflow.sklearn",
    "mlflow.tracking",
    "pandas",
    "psycopg",
    "pyarrow.dataset",
    "pyspark.sql.connect.session",
    "pyspark.sql.functions",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "skops.io",
)


class WarmLocalExecutor(LocalExecutor):
    """Imports the libraries of the steps once, before the workers fork.

    Airflow forks a worker from the scheduler and a task from the worker, so that every task shares the libraries'
    memory and spends no time on importing them.
    """

    def start(self) -> None:
        """Import, then start the workers."""
        # It logs each of its methods while it is imported.
        logging.getLogger("great_expectations._docs_decorators").disabled = True
        started = time.monotonic()
        for library in LIBRARIES:
            importlib.import_module(library)
        quiet.calm()
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if threads:
            log.warning("Threads that tasks will not have after the fork: %s", ", ".join(threads))
        log.info("Libraries in memory after %.1f s", time.monotonic() - started)
        super().start()

"""Loggers that tell of themselves in the log of every task, where people look for what has happened to the data."""

from __future__ import annotations

import logging

LEVELS = {
    "airflow.dag_processing.bundles": "WARNING",
    "airflow.dag_processing.dagbag": "WARNING",
    "airflow.providers.openlineage": "WARNING",
    # That exposures are no tasks.
    "cosmos.airflow.graph": "ERROR",
    "cosmos.config": "WARNING",
    "cosmos.converter": "WARNING",
    "cosmos.dbt": "WARNING",
    "cosmos.operators.base": "WARNING",
    "great_expectations": "WARNING",
    "openlineage": "WARNING",
}
_OF_PYTHON = "airflow.providers.openlineage.utils.emission_policy"


def calm() -> None:
    """Set the levels of Python's own loggers; Airflow's setting ``namespace_levels`` is for those of structlog alone.

    Called before the tasks are forked, which keep them.
    """
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(level)
    # Airflow takes the levels of loggers below its own back, but not their filters.
    logging.getLogger(_OF_PYTHON).addFilter(_is_warning)


def _is_warning(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING

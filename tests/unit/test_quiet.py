"""The logs of tasks are about the data."""

from __future__ import annotations

import logging
from logging.config import dictConfig

import pytest

from lakehouse.airflow import quiet


def test_tools_tell_of_themselves_only_what_is_wrong_even_when_airflow_configures_logging_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["cosmos.converter", "great_expectations.data_context", "openlineage.client.client", quiet._OF_PYTHON]
    before = {name: logging.getLogger(name).level for name in quiet.LEVELS}
    try:
        quiet.calm()
        dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": {"airflow": {"level": "INFO"}}})
        with caplog.at_level("INFO"):
            for name in names:
                logging.getLogger(name).info("I am %s", name)
                logging.getLogger(name).warning("wrong: %s", name)
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger(quiet._OF_PYTHON).removeFilter(quiet._is_warning)
    assert [record.getMessage() for record in caplog.records] == [f"wrong: {name}" for name in names]

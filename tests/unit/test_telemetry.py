"""No tool of the platform calls home: neither as a part of it, nor by a command."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from lakehouse import dbt_project
from lakehouse.platform.airflow import airflow_environment
from lakehouse.platform.parts import environment
from lakehouse.registry import registry


@pytest.mark.parametrize(
    ("switch", "off", "package", "file", "named"),
    [
        ("MLFLOW_DISABLE_TELEMETRY", "true", "mlflow", "telemetry/utils.py", "MLFLOW_DISABLE_TELEMETRY"),
        ("DBT_SEND_ANONYMOUS_USAGE_STATS", "false", "dbt", "cli/params.py", "DBT_SEND_ANONYMOUS_USAGE_STATS"),
        ("DO_NOT_TRACK", "1", "dbt", "cli/flags.py", "DO_NOT_TRACK"),
        ("AIRFLOW__COSMOS__ENABLE_TELEMETRY", "False", "cosmos", "settings.py", 'conf.getboolean("cosmos", "enable_t'),
    ],
)
def test_the_parts_are_started_with_the_switch_that_the_tool_looks_at(
    switch: str, off: str, package: str, file: str, named: str
) -> None:
    assert (environment() | airflow_environment())[switch] == off
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    assert named in Path(spec.submodule_search_locations[0], file).read_text(), "the tool has another switch now"


def test_commands_switch_it_off_before_they_use_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "to be put back afterwards")
    monkeypatch.setattr(registry.socket, "create_connection", Mock())  # no MLflow has to run for this
    registry.connect.__wrapped__()  # whatever has been connected before
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert dbt_project.environment()["DBT_SEND_ANONYMOUS_USAGE_STATS"] == "false"

"""How much a task imports before its step begins: seconds of processor time, for each task of each run."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"great_expectations", "mlflow", "sklearn", "dbt", "airflow", "pandas"}
MOST = 800


@pytest.mark.parametrize(
    "start",
    [
        "from lakehouse.steps import job; job('land')",
        "from lakehouse.steps import job; job('score')",
        "from lakehouse.releases.audit import gate",
        "from lakehouse.releases.release import release",
    ],
)
def test_a_task_has_imported_little_when_its_step_begins(start: str) -> None:
    code = f"import sys\n{start}\nprint(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"lakehouse", "deltalake"} <= set(loaded)
    assert not HEAVY & set(loaded)
    assert len(loaded) <= MOST

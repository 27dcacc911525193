"""Airflow for the tests of the DAG files: no database, and nothing of the user's own configuration."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

DAGS = Path(__file__).parents[2] / "dags"

# Before Airflow is imported: it reads its configuration once, and writes its default into AIRFLOW_HOME.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-", dir=Path(os.environ["LAKE_HOME"]).parent)
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__COSMOS__ENABLE_TELEMETRY"] = "False"


@pytest.fixture(scope="session")
def manifest() -> Path:
    """The dbt project, parsed once: the DAG of the warehouse is made from it."""
    from lakehouse import dbt_project

    return dbt_project.ensure_manifest()


@pytest.fixture(scope="session")
def bag(manifest: Path) -> DagBag:
    """The DAGs as the DAG processor reads them from the files."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(DAGS)
    assert bag.import_errors == {}
    return bag


@pytest.fixture(scope="session")
def stored(bag: DagBag) -> dict[str, Any]:
    """The DAGs as the scheduler and the API server read them back from the database."""
    from airflow.serialization.serialized_objects import DagSerialization

    return {
        dag_id: DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
        for dag_id, dag in bag.dags.items()
    }

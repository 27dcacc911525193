"""An MLflow for each test that needs one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lakehouse.registry import registry
from lakehouse.settings import settings
from tests.made_up_flights import SPEC


@pytest.fixture(scope="session")
def _empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an MLflow with nothing in it, to be copied: to make one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.sqlite"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def mlflow_client(_empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """An MLflow on SQLite with nothing in it but an experiment for the model of the tests."""
    path = shutil.copy(_empty_store, tmp_path / "mlflow.sqlite")
    monkeypatch.setattr(settings(), "mlflow_tracking_uri", f"sqlite:///{path}")
    registry.connect.cache_clear()
    client = registry.connect()
    client.create_experiment(SPEC.name, artifact_location=(tmp_path / "artifacts").as_uri())
    yield client
    registry.connect.cache_clear()

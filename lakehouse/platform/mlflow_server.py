"""The MLflow tracking server and model registry."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

from lakehouse.platform import http, postgres, processes
from lakehouse.settings import settings


def folder() -> Path:
    """Where the artifacts of runs and models lie."""
    return settings().home / "mlflow"


def prepare() -> None:
    """The database, unless it is there; MLflow makes its tables itself."""
    postgres.ensure_database("mlflow")


def run() -> NoReturn:
    """Become the MLflow server: replaces this process."""
    artifacts = folder() / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    database = "postgresql+psycopg2://" + settings().postgres_url("mlflow").partition("://")[2]
    # What the `mlflow server` command would pass on to the server that it starts: without the command there is
    # one process to watch instead of two, and one import of MLflow.
    os.environ.update(
        _MLFLOW_SERVER_FILE_STORE=database,
        _MLFLOW_SERVER_REGISTRY_STORE=database,
        _MLFLOW_SERVER_ARTIFACT_ROOT="mlflow-artifacts:/",
        _MLFLOW_SERVER_ARTIFACT_DESTINATION=str(artifacts),
        _MLFLOW_SERVER_SERVE_ARTIFACTS="true",
        MLFLOW_FLASK_SERVER_SECRET_KEY=settings().secret("mlflow_secret_key"),
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
        MLFLOW_SERVER_ALLOWED_HOSTS=f"localhost:{settings().ports.mlflow},127.0.0.1:{settings().ports.mlflow}",
    )
    os.chdir(folder())
    processes.become(
        sys.executable,
        "-m",
        "uvicorn",
        "--host=127.0.0.1",
        f"--port={settings().ports.mlflow}",
        "--workers=1",
        "--no-access-log",
        "lakehouse.platform.mlflow_app:app",
    )


def check() -> None:
    """Ask the server for an experiment, which its database must answer.

    Raises:
        OSError: It does not answer, or not well.
    """
    url = f"http://127.0.0.1:{settings().ports.mlflow}"
    http.get(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default", login=settings().mlflow_login)

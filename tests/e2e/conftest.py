"""The whole platform, from nothing: what ``./lake demo`` leaves behind is what these tests look at."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lakehouse.airflow_client import AirflowClient
from tests.conftest import free_ports, keep_logs

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Platform:
    """A running platform of its own.

    Attributes:
        home: Its state folder.
        environment: What makes ``./lake`` speak to it.
        demo: What ``./lake demo`` printed.
    """

    home: Path
    environment: dict[str, str]
    demo: str

    def lake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the ``lake`` command."""
        return subprocess.run(
            [PROJECT / "lake", *arguments],
            env=self.environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=check,
            timeout=900,
        )

    def port(self, name: str) -> int:
        return int(self.environment[f"LAKE_PORTS__{name.upper()}"])

    def secret(self, name: str) -> str:
        import json

        return json.loads((self.home / "secrets.json").read_text())[name]

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of a query, by the Thrift endpoint as a BI tool would ask."""
        from pyhive import hive

        connection = hive.connect(
            host="127.0.0.1",
            port=self.port("thrift"),
            username="lake",
            password=self.secret("sql_password"),
            auth="CUSTOM",
        )
        try:
            cursor = connection.cursor()
            cursor.execute(query)
            return cursor.fetchall()
        finally:
            connection.close()


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("e2e") / "lake"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKE_")}
    environment |= {"LAKE_HOME": str(home), **free_ports()}
    started = time.monotonic()
    demo = subprocess.run(
        [PROJECT / "lake", "demo"], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    platform = Platform(home, environment, demo.stdout)
    try:
        assert demo.returncode == 0, demo.stdout[-4000:] + demo.stderr[-4000:]
        print(f"\nlake demo took {time.monotonic() - started:.0f} s")
        yield platform
    finally:
        keep_logs(request.session, home)
        platform.lake("down", check=False)


@pytest.fixture(scope="package")
def airflow(platform: Platform) -> Iterator[AirflowClient]:
    url = f"http://127.0.0.1:{platform.port('airflow')}"
    with AirflowClient(url, password=platform.secret("airflow_admin_password")) as client:
        yield client

"""The whole platform, from nothing: what ``./lake demo`` leaves behind is what these tests look at."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lakehouse.airflow_client import AirflowClient
from tests.conftest import keep_logs
from tests.platforms import PROJECT, Platform, free_ports, http_connection, web_server

ROUTE = {
    "notifier": "airflow.providers.http.notifications.http.HttpNotifier",
    "arguments": {
        "endpoint": "/alerts",
        "json": {"text": "{{ alert.subject }} {{ alert.text }}"},
        "headers": {"Content-Type": "application/json"},
    },
}


@pytest.fixture(scope="package")
def told() -> Iterator[tuple[int, list[tuple[str, Any]]]]:
    """The web server that the platform's alerts go to: its port, and what it was sent."""
    with web_server() as server:
        yield server


@pytest.fixture(scope="package")
def platform(
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    told: tuple[int, list[tuple[str, Any]]],
) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("e2e") / "lake"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LAKE_")}
    environment |= {"LAKE_HOME": str(home), **free_ports()}
    environment |= {"LAKE_ALERTS": json.dumps({"web": ROUTE}), "AIRFLOW_CONN_HTTP_DEFAULT": http_connection(told[0])}
    started = time.monotonic()
    demo = subprocess.run(
        [PROJECT / "lake", "demo"], env=environment, cwd=PROJECT, capture_output=True, text=True, check=False
    )
    platform = Platform(home, environment, demo.stdout, told[1])
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

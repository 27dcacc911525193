"""The whole platform, from nothing: what ``./lake demo`` leaves behind is what these tests look at."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from lakehouse.airflow_client import AirflowClient
from tests.conftest import keep_logs
from tests.platforms import PROJECT, Platform, free_ports


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

"""The engine, started once for all tests of this folder; and a drop folder with real deliveries."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def engine(lake_home: Path) -> Iterator[None]:
    """PostgreSQL and Spark of the platform."""
    command = [sys.executable, "-m", "lakehouse.platform"]
    subprocess.run([*command, "up", "engine"], check=True)
    yield
    from lakehouse.engine import spark

    # A session that outlives its engine would wait for it to come back.
    spark().stop()
    subprocess.run([*command, "down"], check=True)


@pytest.fixture(scope="session")
def drop(engine: None) -> Path:
    """What the demo's upstream has delivered by 20 January 2013."""
    from infra.demo.upstream import deliver
    from lakehouse.settings import settings

    deliver(settings().drop_url, until=dt.date(2013, 1, 20))
    return Path(settings().drop_url)

"""Every test of this folder needs the engine; many need a drop folder with real deliveries."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.spark.orders import orders  # noqa: F401 - a fixture


@pytest.fixture(autouse=True)
def _engine(engine: None) -> None:
    pass


@pytest.fixture(scope="session")
def drop(engine: None) -> Path:
    """What the demo's upstream has delivered by 20 January 2013."""
    from infra.demo.upstream import deliver
    from lakehouse.settings import settings

    deliver(settings().drop_url, until=dt.date(2013, 1, 20))
    return Path(settings().drop_url)

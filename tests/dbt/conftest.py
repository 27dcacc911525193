"""The engine for the tests that build."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def engine(lake_home: Path) -> Iterator[None]:
    """PostgreSQL and Spark of the platform; nothing is done when they are up already."""
    command = [sys.executable, "-m", "lakehouse.platform"]
    subprocess.run([*command, "up", "engine"], check=True)
    yield
    subprocess.run([*command, "down"], check=True)

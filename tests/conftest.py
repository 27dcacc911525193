"""Every test runs against a lake of its own: a fresh state folder, and ports that nobody else uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.platforms import free_ports

# Before the library is imported: a process reads its settings once.
_HOME = Path(tempfile.mkdtemp(prefix="lake-tests-"))
for _name in [name for name in os.environ if name.startswith("LAKE_")] + [
    "DATABASE_URL",
    "SPARK_REMOTE",
    "MLFLOW_TRACKING_URI",
]:
    os.environ.pop(_name, None)
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.update({"LAKE_HOME": str(_HOME / "lake"), **free_ports()})
# Where Spark tells what it has done: see tests/spark/counters.py.
os.environ["TEST_SPARK_UI"] = free_ports(("ui",))["LAKE_PORTS__UI"]
os.environ["LAKE_SPARK_CONF"] = json.dumps(
    {
        "spark.ui.enabled": "true",
        "spark.ui.port": os.environ["TEST_SPARK_UI"],
        # It is told at once how many tasks run.
        "spark.ui.liveUpdate.period": "0",
        # Generating and compiling code costs more than it saves on a few rows. The platform of the e2e tests does it.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    }
)


@pytest.fixture(scope="session")
def lake_home() -> Path:
    """State folder of the lake that the tests of this process share."""
    return Path(os.environ["LAKE_HOME"])


PLATFORM_TESTS = "tests/e2e/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests of the whole platform, which take longest; another process has the rest meanwhile."""
    items.sort(key=lambda item: not item.nodeid.startswith(PLATFORM_TESTS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have each process take whole files, and one of them all tests of the whole platform, which share one demo."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return PLATFORM_TESTS if nodeid.startswith(PLATFORM_TESTS) else nodeid.partition("::")[0]

    return ByFile(config, log)


LOG_LINES = 60
_LOGS = pytest.StashKey[dict[str, str]]()


def keep_logs(session: pytest.Session, home: Path) -> None:
    """Have the ends of a platform's logs printed with the test results, if a test has failed.

    Args:
        session: The run of tests.
        home: State folder of the platform.
    """
    if session.testsfailed:
        for log in [*(home / "supervisor").glob("*.log"), *(home / "logs").glob("*.log")]:
            lines = log.read_text(errors="replace").splitlines()
            kept = session.config.stash.setdefault(_LOGS, {})
            kept[str(log)] = "\n".join(lines[-LOG_LINES:])
            if hasattr(session.config, "workeroutput"):  # one of several processes: the first of them prints
                session.config.workeroutput["logs"] = kept


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the logs that a process has kept."""
    node.config.stash.setdefault(_LOGS, {}).update(getattr(node, "workeroutput", {}).get("logs", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the logs that were kept."""
    for name, text in config.stash.get(_LOGS, {}).items():
        terminalreporter.section(f"end of {name}")
        terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def engine(lake_home: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """PostgreSQL and Spark of the platform, started once for all tests that use them."""
    command = [sys.executable, "-m", "lakehouse.platform"]
    subprocess.run([*command, "up", "engine"], check=True)
    yield
    keep_logs(request.session, lake_home)
    from lakehouse.engine import spark

    # A session that outlives its engine would wait for it to come back.
    if spark.cache_info().currsize:
        spark().stop()
    subprocess.run([*command, "down"], check=True)


def pytest_unconfigure() -> None:
    """Remove the state."""
    shutil.rmtree(_HOME, ignore_errors=True)

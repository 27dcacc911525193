"""A platform for a benchmark: in a folder of its own, on ports of its own, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = [sys.executable, "-m", "lakehouse.platform"]
KEPT = {"JAVA_HOME", "LAKE_PROJECT"}


@contextmanager
def engine(**environment: str) -> Iterator[Path]:
    """An engine that knows nothing yet; gives its state folder.

    Call it before anything has read the settings: a process reads them once.

    Args:
        **environment: Further variables, such as ``LAKE_SPARK_MASTER``.
    """
    with running("engine", **environment) as home:
        yield home


@contextmanager
def running(*parts: str, **environment: str) -> Iterator[Path]:
    """Parts of a platform that knows nothing yet; gives its state folder.

    Call it before anything has read the settings: a process reads them once.

    Args:
        *parts: Their names; all of them without any.
        **environment: Further variables.
    """
    home = Path(tempfile.mkdtemp(prefix="lake-benchmark-"))
    isolate(home, **environment)
    try:
        start(*parts)
        yield home
    finally:
        stop()
        shutil.rmtree(home, ignore_errors=True)


def isolate(home: Path, **environment: str) -> None:
    """Have this process, and what it starts, know one platform alone: with default settings, and ports that are free.

    Args:
        home: State folder of the platform.
        **environment: Further variables.
    """
    from lakehouse.settings import setting_variables
    from tests.platforms import free_ports

    for name in setting_variables() - KEPT:
        os.environ.pop(name, None)
    os.environ.update({"LAKE_HOME": str(home), **free_ports(), **environment})


def start(*parts: str) -> None:
    """Start parts of the platform.

    Args:
        *parts: Their names; all of them without any.
    """
    subprocess.run([*COMMAND, "up", *parts], check=True, stdout=sys.stderr)


def stop() -> None:
    """Stop the platform."""
    from lakehouse.engine import spark

    if spark.cache_info().currsize:
        spark().stop()  # it would wait for the engine to come back
    subprocess.run([*COMMAND, "down"], check=True, stdout=sys.stderr)

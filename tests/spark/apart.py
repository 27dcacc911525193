"""Processes of their own, to be killed: forked from one that has loaded the libraries, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from lakehouse.settings import settings
from tests.platforms import PROJECT

SECONDS = 300
OVERTAKEN = r"WithdrawnError|NotAuditedError|TableLockedError|StaleWriterError|UnfinishedWriteError"
"""What a writer fails with when another has gone before it, or has come in between."""

LIBRARIES = [
    "dbt.adapters.spark.impl",
    "dbt.cli.main",
    "lakehouse.releases.audit",
    "lakehouse.quality.data_docs",
    "lakehouse.quality.gx_engine",
    "lakehouse.maintenance.maintain",
    "lakehouse.lineage.openlineage",
    "lakehouse.warehouse",
    "pyspark.sql.connect.session",
    "pytest",
    "spark_jobs.land",
]
"""None of them asks for a setting or starts a thread of Python when it is loaded."""


class Apart:
    """A process that runs a function, in the environment that the tests have at this moment.

    Args:
        function: That of a module, since it is found by its name.
        arguments: What it is called with.
    """

    def __init__(self, function: Callable[..., object], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(LIBRARIES)
        descriptor, name = tempfile.mkstemp(prefix="apart-", dir=settings().home)
        os.close(descriptor)
        self._errors = Path(name)
        self._process: ForkServerProcess = context.Process(
            target=_run, args=(dict(os.environ), name, function, arguments), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def alive(self) -> bool:
        return self._process.is_alive()

    def ended(self) -> tuple[int, str]:
        """Its exit code, that of a signal as a negative number, and what it has written to the standard error."""
        self._process.join(SECONDS)
        code = self._process.exitcode
        self.kill()
        errors = self._errors.read_text()
        assert code is not None, f"still running after {SECONDS} s: {errors[-3000:]}"
        return code, errors

    def kill(self) -> None:
        self._process.kill()


def _run(environment: dict[str, str], errors: str, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    assert not settings.cache_info().currsize
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT)
    with Path(errors).open("w") as file:
        os.dup2(file.fileno(), 2)
    function(*arguments)

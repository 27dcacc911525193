"""The door to the one Spark engine: a Spark Connect session per process."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from lakehouse.errors import LakeError
from lakehouse.settings import settings

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SESSION_LOST = frozenset(
    {
        "INVALID_HANDLE.OPERATION_NOT_FOUND",
        "INVALID_HANDLE.SESSION_CHANGED",
        "INVALID_HANDLE.SESSION_CLOSED",
        "INVALID_HANDLE.SESSION_NOT_FOUND",
        "NO_ACTIVE_SESSION",
        "RESPONSE_ALREADY_RECEIVED",
    }
)
GONE = "The Spark engine has gone away, or was started anew, in the meantime: the supervisor sees to that."
"""What a person is told then."""


class EngineDownError(LakeError):
    """There is no engine, and nobody is about to start it."""


class EngineLostError(LakeError):
    """The engine stopped, or was started anew, while it worked for this process. A new try may well succeed."""


@cache
def spark() -> SparkSession:
    """The Spark session of this process, attached to the running engine.

    Raises:
        EngineDownError: The engine of this machine was not started, or was stopped.
        pyspark.errors.PySparkException: No engine answers at the configured URL.
    """
    _look_for_engine()
    from grpc.experimental import ChannelOptions  # type: ignore[import-untyped]
    from pyspark.logger import PySparkLogger
    from pyspark.sql import SparkSession
    from pyspark.sql.connect.client import ChannelBuilder

    # Each error of a query, which is raised anyway, with the stacks of two languages in one line.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).setLevel(logging.CRITICAL)
    # Who waits for an answer is to read it himself. By default gRPC starts a thread that reads, and counts on it even
    # if there was no memory for one: then that call raises, and each later one that streams waits for ever.
    option = (ChannelOptions.SingleThreadedUnaryStream, 1)
    if option not in ChannelBuilder.GRPC_DEFAULT_OPTIONS:
        ChannelBuilder.GRPC_DEFAULT_OPTIONS.append(option)
    session: SparkSession = SparkSession.builder.remote(settings().spark_url).getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


def _look_for_engine() -> None:
    """See whether somebody is there, since Spark's client tries for minutes without a word."""
    if settings().spark_remote:
        return
    if not process_record().exists():
        raise EngineDownError(
            f"The engine of {settings().home} is not running. Start it with `lake up`; `lake status` shows what runs."
        )
    try:
        socket.create_connection(("localhost", settings().ports.connect), timeout=5).close()
    except OSError:
        log.warning(
            "The engine does not answer at port %d; waiting for it. `lake status` shows how it is.",
            settings().ports.connect,
        )


def sql(statement: str, commit: dict[str, Any] | None = None) -> DataFrame:
    """Run one SQL statement on the engine.

    Args:
        statement: Spark SQL.
        commit: What to store as ``userMetadata`` of the Delta commit that the statement makes, if any.
    """
    session = spark()
    if commit is None:
        return session.sql(statement)
    session.conf.set("spark.databricks.delta.commitInfo.userMetadata", json.dumps(commit))
    try:
        return session.sql(statement)
    finally:
        session.conf.unset("spark.databricks.delta.commitInfo.userMetadata")


class Meter:
    """What the engine on this machine uses from now on; knows nothing when its work is done elsewhere."""

    def __init__(self) -> None:
        self._process = process()
        self._before = None if self._process is None else _cpu_seconds(self._process)

    def cpu_seconds(self) -> float | None:
        """Processor time since the meter was made, Python workers included; None when it is not known."""
        after = _cpu_seconds(self._process) if self._process else None
        return None if after is None or self._before is None else after - self._before

    def peak_memory(self) -> int | None:
        """The most bytes that the engine's JVM has had in memory since it was started; None when it is not known."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text() if self._process else ""
        except (FileNotFoundError, ProcessLookupError):
            return None
        peak = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(peak[1]) * 1024 if peak else None


def process() -> psutil.Process | None:
    """The JVM of the engine, if all that it does is done on this machine."""
    if settings().spark_remote or not settings().spark_master.startswith("local"):
        return None
    try:
        record = json.loads(process_record().read_text())
        found = psutil.Process(record["pid"])
        # A number can be given to another process.
        return found if abs(found.create_time() - record["started"]) < 1 else None
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None


def process_record() -> Path:
    """Where the engine that runs here notes which process it is."""
    return settings().home / "engine" / "process.json"


def _cpu_seconds(root: psutil.Process) -> float | None:
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    seconds = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = member.cpu_times()
            # Those of children are of such as have ended: a worker's time is not lost with it.
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def lost(error: BaseException) -> bool:
    """Whether an error says that the engine has gone away, and not that it was asked something wrong.

    Args:
        error: What a call of the engine raised.
    """
    from pyspark.errors import PySparkException
    from pyspark.errors.exceptions.connect import SparkConnectGrpcException

    if not isinstance(error, PySparkException):
        return False
    # The client has tried for minutes before it says that nobody is there.
    code = error.getGrpcStatusCode().name if isinstance(error, SparkConnectGrpcException) else None
    return code == "UNAVAILABLE" or error.getCondition() in SESSION_LOST

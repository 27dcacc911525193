"""The door to the one Spark engine: a Spark Connect session per process."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakeError
from lakehouse.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SESSION_LOST = frozenset({"NO_ACTIVE_SESSION", "INVALID_HANDLE.SESSION_CHANGED", "INVALID_HANDLE.SESSION_NOT_FOUND"})


class EngineLostError(LakeError):
    """The engine stopped, or was started anew, while it worked for this process. A new try may well succeed."""


@cache
def spark() -> SparkSession:
    """The Spark session of this process, attached to the running engine.

    Raises:
        pyspark.errors.PySparkException: No engine answers at the configured URL.
    """
    from pyspark.sql import SparkSession

    session: SparkSession = SparkSession.builder.remote(settings().spark_url).getOrCreate()
    session.conf.set("spark.sql.session.timeZone", "UTC")
    return session


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


def lost(error: BaseException) -> bool:
    """Whether an error says that the engine has gone away, and not that it was asked something wrong.

    Args:
        error: What a call of the engine raised.
    """
    from pyspark.errors import PySparkException

    return isinstance(error, PySparkException) and error.getCondition() in SESSION_LOST

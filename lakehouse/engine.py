"""The door to the one Spark engine: a Spark Connect session per process."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING, Any

from lakehouse.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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

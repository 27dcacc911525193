"""Which errors say that the engine has gone away, and what a person is told."""

from __future__ import annotations

import grpc
import pytest
from pyspark.errors import PySparkRuntimeError
from pyspark.errors.exceptions.connect import AnalysisException, SparkConnectException, SparkConnectGrpcException

from lakehouse import engine
from lakehouse.cli.errors import first_lines

GONE = [
    SparkConnectException(errorClass="NO_ACTIVE_SESSION", messageParameters={}),
    SparkConnectGrpcException("changed", errorClass="INVALID_HANDLE.SESSION_CHANGED"),
    SparkConnectGrpcException("failed to connect to all addresses", grpc_status_code=grpc.StatusCode.UNAVAILABLE),
    PySparkRuntimeError(
        errorClass="RESPONSE_ALREADY_RECEIVED", messageParameters={"error_type": "INVALID_HANDLE.SESSION_NOT_FOUND"}
    ),
]
OTHER = [
    AnalysisException("no such table", errorClass="TABLE_OR_VIEW_NOT_FOUND"),
    SparkConnectGrpcException("wrong", grpc_status_code=grpc.StatusCode.INTERNAL),
    ConnectionError("the database"),
]


@pytest.mark.parametrize("error", GONE, ids=str)
def test_an_engine_that_has_gone_away_is_called_that(error: Exception) -> None:
    assert engine.lost(error)
    said = first_lines(error)
    assert said.startswith("The Spark engine has gone away, or was started anew") and "lake status" in said
    assert "SESSION" not in said


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_an_engine_that_was_asked_something_wrong_has_not_gone(error: Exception) -> None:
    assert not engine.lost(error)
    assert first_lines(error) == str(error)

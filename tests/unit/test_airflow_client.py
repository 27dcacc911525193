"""The client of Airflow's API, without an Airflow."""

from __future__ import annotations

from lakehouse.airflow_client import _lines


def test_a_log_is_what_the_task_says_and_not_what_airflow_folds_up() -> None:
    error = {"exc_type": "AirflowFailException", "exc_value": "RejectedBatchError: 70 of 70 rows"}
    content = [
        {"event": "::group::Log message source details"},
        "/logs/attempt=1.log",
        {"event": "::endgroup::"},
        {"event": "::group::Pre Execute", "level": "info"},
        {"event": "::group::Cosmos DAG parsing logs", "level": "info"},
        {"event": "Total nodes: 24", "level": "info"},
        {"event": "::endgroup::Cosmos DAG parsing logs", "level": "info"},
        {"event": "Worker startup parse complete", "level": "info"},
        {"event": "A listener has failed", "level": "error"},
        {"event": "::endgroup::", "level": "info"},
        {"event": "land bronze.weather 2013-03-02: started", "level": "info"},
        {"event": "Task failed with exception", "level": "error", "error_detail": [error, {"exc_type": "Cause"}]},
        {"event": "::group::Post Execute", "level": "info"},
        {"event": "Successfully emitted OpenLineage `FAIL` event", "level": "info"},
        {"event": "::endgroup::", "level": "info"},
    ]
    assert list(_lines(content)) == [
        "A listener has failed",
        "land bronze.weather 2013-03-02: started",
        "Task failed with exception",
        "AirflowFailException: RejectedBatchError: 70 of 70 rows",
    ]

"""What the demo starts, and what it waits for."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from infra.demo import main_job
from infra.demo.main_job import Runs


class Airflow:
    """The edge: an API with one run, and what was triggered."""

    def __init__(self, state: str | None, release: str = "success") -> None:
        self.state, self.release = state, release
        self.triggered: list[str] = []
        self.followed: list[str] = []

    def find_run(self, dag_id: str, key: str, timeout: float = 0) -> dict[str, Any] | None:
        return {"dag_run_id": "before", "state": self.state} if self.state else None

    def trigger(self, dag_id: str, key: str | None, conf: dict[str, Any] | None = None) -> str:
        self.triggered.append(dag_id)
        return "anew"

    def wait_all(self, run_ids: dict[str, str], **options: Any) -> None:
        self.followed += run_ids.values()

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [{"task_id": "score", "state": self.release}, {"task_id": "release", "state": self.release}]


@pytest.mark.parametrize(
    ("state", "release", "followed"),
    [
        ("success", "success", []),
        ("running", "success", ["before"]),
        ("failed", "success", ["anew"]),
        (None, "success", ["anew"]),
        ("success", "skipped", ["anew"]),  # the model was not there yet
        ("running", "skipped", ["before", "anew"]),
    ],
)
def test_a_day_is_scored_once_there_is_a_model(state: str | None, release: str, followed: list[str]) -> None:
    airflow = Airflow(state, release)
    Runs(airflow, print).led_to("score_flight_delay", "2013-03-01")  # type: ignore[arg-type]
    assert airflow.followed == followed


def test_what_has_succeeded_is_not_begun_again() -> None:
    airflow = Airflow("success")
    assert Runs(airflow, print).begin({"ingest_weather": "2013-03-01"}) == {}  # type: ignore[arg-type]
    assert airflow.triggered == []
    airflow.state = "failed"
    assert Runs(airflow, print).begin({"ingest_weather": "2013-03-01"}) == {"ingest_weather": "anew"}  # type: ignore[arg-type]


def test_outcomes_arrive_on_the_day_after_theirs() -> None:
    assert main_job.arrivals(dt.date(2013, 3, 1)) == {"ingest_flight_schedule": "2013-03-01"}
    assert main_job.arrivals(dt.date(2013, 3, 2)) == {
        "ingest_flight_schedule": "2013-03-02",
        "ingest_flight_actuals": "2013-03-01",
        "ingest_weather": "2013-03-01",
    }

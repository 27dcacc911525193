"""The daily job with parts and tasks of the platform killed in the middle: the rows are those of undisturbed runs.

Eight points of those of ``./lake faults``: six in two runs of the day, and two in trainings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from lakehouse.airflow_client import AirflowClient
from tests.faults.__main__ import INJECTED
from tests.faults.harness import Harness, choose, in_runs
from tests.faults.points import KILLS, Point
from tests.platforms import Platform

# A choice that needs but two runs of the day, after which the true input is back.
RUNS = in_runs(choose(8, 16, KILLS))


@pytest.fixture(scope="module")
def harness(platform: Platform) -> Iterator[Harness]:
    """On the platform of the tests before, which is started again with the means to do harm in it."""
    platform.lake("down")
    harmed = replace(platform, environment=platform.environment | {"PYTHONPATH": str(INJECTED)})
    harmed.lake("up")
    with AirflowClient(
        f"http://127.0.0.1:{platform.port('airflow')}", password=platform.secret("airflow_admin_password")
    ) as airflow:
        harness = Harness(harmed, airflow)
        harness.undisturbed()
        yield harness
        harness.restore()


@pytest.mark.parametrize("points", RUNS, ids=lambda points: ", ".join(point.name for point in points))
def test_what_is_killed_comes_back_and_the_day_is_that_of_an_undisturbed_run(
    harness: Harness, points: Sequence[Point]
) -> None:
    assert harness.try_points(points)[0].faults == []

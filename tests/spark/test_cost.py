"""What a step has used is recorded, and SQL adds it up as `lake cost` does."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from lakehouse import cost, ops
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.steps import step
from tests.spark.orders import Orders

DAY = dt.datetime(1999, 3, 1, 12, tzinfo=dt.UTC)  # no other test's steps ran then


def test_what_the_engine_has_done_for_a_step_is_recorded() -> None:
    with step("test", "gold.busy", None):
        sql("select sum(crc32(cast(id as string))) from range(4000000)").collect()
    with step("test", "gold.idle", None):
        pass
    busy, idle = (
        next(row for row in reversed(ops.read("ops.runs").sort_by("started_at").to_pylist()) if row["dataset"] == name)
        for name in ("gold.busy", "gold.idle")
    )
    assert busy["engine_cpu_seconds"] > 0.2
    assert busy["engine_cpu_seconds"] > idle["engine_cpu_seconds"] >= 0
    assert 200 * 2**20 < idle["engine_peak_memory"] < 16 * 2**30


def test_python_workers_count(orders: Orders) -> None:
    from lakehouse.engine import spark

    def burn(batches):  # type: ignore[no-untyped-def]
        import time

        begun = time.process_time()
        for batch in batches:
            while time.process_time() - begun < 2:
                pass
            yield batch

    with step("test", "gold.python", None) as run:
        spark().range(1).mapInArrow(burn, "id bigint").collect()
    row = next(row for row in ops.read("ops.runs").to_pylist() if row["run_id"] == run.run_id)
    assert row["engine_cpu_seconds"] >= 2


def record() -> None:
    """A day of steps, one after the other."""
    rows = []
    build = "build-of-1999"
    for number, (name, dataset, more) in enumerate(
        [
            ("land", "bronze.a", {"bytes_in": 1000}),
            ("build", "warehouse", {"run_id": build}),
            ("build", "gold.x", {"details": json.dumps({"build_run_id": build}), "seconds": 3.0}),
            ("build", "gold.y", {"details": json.dumps({"build_run_id": build}), "seconds": 1.0}),
            ("gate", "gold.x, gold.y", {}),
            ("train", "m", {}),
            ("reproduce", "m@1", {}),
            ("score", "ml.predictions_m", {"rows_out": 500}),
            ("maintain", "the lake", {}),
        ]
    ):
        started = DAY + dt.timedelta(minutes=number)
        part = "details" in more
        rows.append(
            {
                "run_id": f"of-1999-{number}", "step": name, "dataset": dataset, "status": "success", "seconds": 8.0,
                "started_at": started, "ended_at": started + dt.timedelta(seconds=8),
                "cpu_seconds": None if part else 2.0, "engine_cpu_seconds": None if part else 4.0, **more,
            }
        )  # fmt: skip
    ops.append("ops.runs", rows)


@pytest.fixture(scope="module", autouse=True)
def _recorded(engine: None) -> None:
    record()


def test_the_view_charges_each_table_as_the_command_does() -> None:
    found = {
        (row["table_name"], row["step"]): (row["seconds"], row["cpu_seconds"], row["engine_cpu_seconds"])
        for row in sql(f"select * from ops.table_costs where day = date'{DAY.date()}'").collect()
    }
    assert found["gold.x", "build"] == (6.0, 1.5, 3.0)
    assert found["gold.y", "gate"] == (4.0, 1.0, 2.0)
    day = Interval(DAY.date(), DAY.date())
    charged = cost.charges(cost.read(day))
    assert found == {
        (each.table, each.step): (each.seconds, each.cpu_seconds, each.engine_cpu_seconds) for each in charged
    }


def test_the_view_of_models_has_their_trainings_and_predictions() -> None:
    (row,) = sql(f"select * from ops.model_costs where day = date'{DAY.date()}'").collect()
    assert (row["model_name"], row["runs"], row["seconds"], row["predictions"]) == ("m", 3, 24.0, 500)
    assert (row["cpu_seconds"], row["engine_cpu_seconds"]) == (6.0, 12.0)

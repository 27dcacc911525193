"""Cost: who is charged with what a run has used, what that is in money, and what follows from it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from lakehouse import cost, engine, ops
from lakehouse.interval import Interval
from lakehouse.settings import Settings, settings

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
GIB = 2**30


def run(
    step: str,
    dataset: str,
    begins: float = 0,
    seconds: float = 10,
    own: float = 1,
    engine: float | None = 4,
    **columns: Any,
) -> dict[str, Any]:
    started = NOON + dt.timedelta(seconds=begins)
    return dict.fromkeys(cost.COLUMNS) | {
        "run_id": f"{step} {dataset} {begins}",
        "step": step,
        "dataset": dataset,
        "started_at": started,
        "ended_at": started + dt.timedelta(seconds=seconds),
        "seconds": seconds,
        "cpu_seconds": own,
        "engine_cpu_seconds": engine,
        "status": "success",
        **columns,
    }  # fmt: skip


def rates(**changed: Any) -> Settings:
    return Settings(**changed)


def test_a_gate_of_several_tables_is_charged_to_them_in_equal_parts() -> None:
    found = cost.charges([run("gate", "gold.dim_planes, gold.fct_flights")])
    assert [(each.table, each.seconds, each.cpu_seconds, each.engine_cpu_seconds) for each in found] == [
        ("gold.dim_planes", 5, 0.5, 2),
        ("gold.fct_flights", 5, 0.5, 2),
    ]


def part(table: str, seconds: float | None) -> dict[str, Any]:
    details = json.dumps({"build_run_id": "build warehouse 0"})
    return run("build", table, own=None, engine=None, details=details) | {"seconds": seconds}  # type: ignore[arg-type]


@pytest.mark.parametrize(("times", "charged"), [((6, 2), (3, 1)), ((None, None), (2, 2))])
def test_a_build_is_charged_by_the_time_that_its_tables_took(times: Any, charged: Any) -> None:
    parts = [part("gold.dim_planes", times[0]), part("gold.fct_flights", times[1])]
    found = cost.charges([run("build", "warehouse"), *parts])
    assert {each.table: each.engine_cpu_seconds for each in found} == dict(
        zip(("gold.dim_planes", "gold.fct_flights"), charged, strict=True)
    )
    assert {each.run_id for each in found} == {"build warehouse 0"}


def test_a_build_that_has_built_nothing_is_charged_to_the_warehouse() -> None:
    assert [each.table for each in cost.charges([run("build", "warehouse", status="failed")])] == ["warehouse"]


def test_maintenance_is_about_no_model() -> None:
    charged = cost.charges([run("maintain", "the lake")])
    assert [(each.table, each.model) for each in charged] == [("the lake", None)]


def test_runs_at_the_same_time_share_the_engine_and_nothing_else() -> None:
    """From 0 to 10 and from 5 to 15: half of each run's time is its own, and half of the rest."""
    found = cost.charges(
        [run("land", "bronze.a"), run("land", "bronze.b", begins=5), run("land", "bronze.c", begins=20)]
    )
    assert [each.engine_cpu_seconds for each in found] == [3, 3, 4]
    assert [each.cpu_seconds for each in found] == [1, 1, 1]


def test_a_run_within_another_is_not_counted_twice() -> None:
    """The engine did 4 s of work in all: both runs have seen all of it."""
    found = cost.charges([run("land", "bronze.a"), run("land", "bronze.b")])
    assert sum(each.engine_cpu_seconds for each in found) == 4


def test_money_is_cpu_and_bytes_at_the_rates() -> None:
    charged = cost.charges([run("land", "bronze.weather", own=1800, engine=1800, bytes_in=3 * GIB)])
    (total,) = cost.totals(charged, "table", rates(cost_per_cpu_hour=0.5, cost_per_gib=0.1))
    assert total.cost == pytest.approx(0.5 + 0.3)
    assert total.cores == 360


def test_what_an_engine_elsewhere_has_done_is_not_known_and_not_guessed() -> None:
    charged = cost.charges([run("land", "bronze.weather", own=7, engine=None)])
    (total,) = cost.totals(charged, "step", rates())
    assert (total.cpu_seconds, total.engine_cpu_seconds) == (7, 0)


def test_a_model_pays_for_training_scoring_and_its_gate_by_what_it_has_scored() -> None:
    charged = cost.charges(
        [
            run("train", "flight_delay", 0, own=3600, engine=0),
            run("score", "ml.predictions_flight_delay", 20, own=1800, engine=0, rows_out=4000),
            run("score", "ml.predictions_flight_delay", 40, own=1800, engine=0, rows_out=500, status="failed"),
            run("reproduce", "flight_delay@1", 60, own=3600, engine=0),
            run("land", "bronze.weather", 80, own=9999, engine=0),
        ]
    )
    (total,) = cost.totals(charged, "model", rates(cost_per_cpu_hour=2))
    assert (total.name, total.runs, total.predictions, total.cost) == ("flight_delay", 4, 4000, 6)
    assert total.per_1000_predictions == 1.5


def test_a_run_counts_once_for_an_owner_of_two_of_its_tables() -> None:
    charged = cost.owned(cost.charges([run("gate", "gold.dim_planes, gold.fct_flights")]))
    (total,) = cost.totals(charged, "owner", rates())
    assert (total.name, total.runs, total.seconds) == ("analytics", 1, 10)


@pytest.mark.parametrize(
    ("table", "owner"),
    [
        ("bronze.weather", "meteorology"),
        ("gold.flight_delay_features", "machine-learning"),
        ("models.flight_delay", "data-platform"),
        ("ml.predictions_flight_delay", "data-platform"),
        ("bronze.no_longer_there", None),
        ("gold.no_longer_there", None),
        ("models.no_longer_there", None),
        ("warehouse", None),
    ],
)
def test_owners_are_those_of_contracts_properties_and_models(table: str, owner: str | None) -> None:
    assert cost.owner(table) == owner


def test_only_who_has_spent_more_than_the_budget_is_warned() -> None:
    spent = [run("land", "bronze.weather", own=3600, engine=0), run("land", "bronze.planes", 20, own=3600, engine=0)]
    charged = cost.owned(cost.charges(spent))
    found = cost.exceeded(
        charged, rates(cost_per_cpu_hour=2, currency="CHF", budgets={"meteorology": 1.99, "fleet": 2})
    )
    assert found == {"meteorology": "meteorology has spent 2.00 CHF in 30 days: more than 1.99."}


def recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *runs: dict[str, Any]) -> None:
    monkeypatch.setattr(settings(), "warehouse", str(tmp_path))
    ops.append("ops.runs", list(runs))


def test_a_budget_is_about_thirty_days(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded(monkeypatch, tmp_path, run("land", "bronze.weather", own=3600, engine=0))
    monkeypatch.setattr(settings(), "cost_per_cpu_hour", 2.0)
    monkeypatch.setattr(settings(), "budgets", {"meteorology": 1.0})
    assert set(cost.warnings(NOON.date())) == {"meteorology"}
    assert set(cost.warnings(NOON.date() + dt.timedelta(days=29))) == {"meteorology"}
    assert cost.warnings(NOON.date() + dt.timedelta(days=30)) == {}


def test_a_budget_of_nobody_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "budgets", {"metereology": 1.0})
    with pytest.raises(cost.UnknownOwnerError, match=r"metereology\. The owners are: .*meteorology"):
        cost.warnings(NOON.date())


def test_days_are_those_on_which_the_steps_began(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded(monkeypatch, tmp_path, run("land", "bronze.a"), run("land", "bronze.b", begins=86_400))
    assert [row["dataset"] for row in cost.read(Interval.parse("2026-03-02"))] == ["bronze.b"]


def test_advice_on_cores_follows_from_how_many_were_busy() -> None:
    idle, full = run("land", "bronze.a", own=1, engine=4), run("land", "bronze.a", own=1, engine=38)
    assert cost.advice([idle], 4, 0) == [
        "While steps ran, 12% of 4 cores were used: 1 would do, or more steps at the same time."
    ]
    assert cost.advice([full], 4, 0) == [
        "While steps ran, 98% of 4 cores were used: more cores would make them faster."
    ]
    assert cost.advice([run("land", "bronze.a", own=1, engine=24)], 4, 0) == []


def test_nothing_is_advised_about_what_was_not_measured() -> None:
    assert cost.advice([run("land", "bronze.a", engine=None)], 4, 3 * GIB) == []


def test_advice_on_memory_only_says_that_there_is_too_much() -> None:
    small, large = (run("land", "bronze.a", engine=24, engine_peak_memory=peak * GIB) for peak in (1, 3))
    assert cost.advice([small], 4, 3 * GIB) == [
        "The engine's heap may grow to 3.0 GiB (spark_memory), and its whole process never had more than 1.0 GiB: "
        "that is enough for this load."
    ]
    assert cost.advice([small, large], 4, 3 * GIB) == []


def test_what_is_granted_is_read_as_java_and_spark_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "spark_memory", "1536m")
    monkeypatch.setattr(settings(), "spark_master", "local[3]")
    assert cost.granted() == (3, 1536 * 2**20)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The record of an engine, which is this process."""
    monkeypatch.setattr(settings(), "home", tmp_path)
    path = engine.process_record()
    path.parent.mkdir()
    this = psutil.Process()
    path.write_text(json.dumps({"pid": this.pid, "started": this.create_time()}))
    return path


def test_the_engine_is_metered_only_where_all_of_its_work_is_done_here(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.Meter().cpu_seconds() is not None
    monkeypatch.setattr(settings(), "spark_master", "spark://cluster:7077")
    assert engine.Meter().cpu_seconds() is None
    monkeypatch.setattr(settings(), "spark_master", "local[*]")
    monkeypatch.setattr(settings(), "spark_remote", "sc://elsewhere")
    assert engine.Meter().cpu_seconds() is None
    assert engine.Meter().peak_memory() is None


def test_a_number_that_another_process_has_now_is_not_the_engine(process: Path) -> None:
    process.write_text(json.dumps({"pid": psutil.Process().pid, "started": psutil.boot_time()}))
    assert engine.Meter().cpu_seconds() is None
    process.unlink()
    assert engine.Meter().cpu_seconds() is None


def test_the_time_of_a_child_that_has_ended_is_not_lost(process: Path) -> None:
    import subprocess
    import sys

    meter = engine.Meter()
    used = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", used], check=True)
    found = meter.cpu_seconds()
    assert found is not None
    # The system counts the time of a child in ticks of a hundredth of a second.
    assert found >= 0.45


def test_the_command_adds_up_prices_and_warns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lakehouse.cli import queries

    recorded(
        monkeypatch,
        tmp_path,
        run("score", "ml.predictions_flight_delay", own=1800, engine=1800, rows_out=2000),
        run("land", "bronze.weather", 20, own=3600, engine=None),
    )
    monkeypatch.setattr(settings(), "cost_per_cpu_hour", 2.0)
    monkeypatch.setattr(settings(), "budgets", {"meteorology": 1.0})
    queries.cost("model", Interval.parse("2026-03-01"), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [(each["name"], each["cost"], each["per_1000_predictions"]) for each in found["totals"]] == [
        ("flight_delay", 2.0, 1.0)
    ]
    assert found["warnings"] == ["meteorology has spent 2.00 EUR in 30 days: more than 1.00."]
    queries.cost("owner", Interval.parse("2026-03-01"))
    shown = capsys.readouterr().out
    assert "meteorology has spent 2.00 EUR" in shown

"""What is told of a model in use: verdicts of the data and of performance, and the page that shows them."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakehouse import contracts, ops, tables
from lakehouse.interval import Interval
from lakehouse.ml.model_spec import Monitoring
from lakehouse.monitoring import reports
from lakehouse.monitoring.drift import NUMERIC, Bins
from lakehouse.monitoring.measuring import Measure, of_data, of_drift, of_performance, of_scoring
from lakehouse.monitoring.reference import Reference
from lakehouse.quality.freshness import newest_day, stale_days

BINS = Bins(NUMERIC, edges=(0.0,), counts=(450, 450), nulls=100)
REFERENCE = Reference(
    window=Interval.parse("2013-01-01/2013-01-10"), version=3, rows=1000, types={"x": "double", "y": "integer"},
    features={"x": BINS, "y": BINS}, score=BINS, score_edges=(0.1, 0.5), mean_score=0.2, mean_outcome=0.25,
)  # fmt: skip
RULES = Monitoring()
TYPES = {"x": "double", "y": "integer", "z": "string"}


def verdicts(measures: Any) -> dict[tuple[str, str], str | None]:
    return {(each.metric, each.segment): each.verdict for each in measures}


def test_a_snapshot_is_kept_as_json() -> None:
    assert Reference.from_json(REFERENCE.to_json()) == REFERENCE


def test_types_of_an_early_snapshot_are_those_that_the_log_names() -> None:
    kept = replace(REFERENCE, types={"x": "double", "y": "int", "a": "bigint", "b": "smallint", "c": "tinyint"})
    read = Reference.from_json(kept.to_json())
    assert read.types == {"x": "double", "y": "integer", "a": "long", "b": "short", "c": "byte"}


def test_sound_data_is_green() -> None:
    day = replace(BINS, counts=(45, 45), nulls=10)
    assert set(verdicts(of_data(REFERENCE, TYPES, {"x": day, "y": day}, 0, 1, RULES)).values()) == {"green"}


@pytest.mark.parametrize(
    ("types", "day", "stale", "red"),
    [
        (TYPES, replace(BINS, counts=(20, 20), nulls=5), 0, ("rows", "all")),
        (TYPES, replace(BINS, counts=(30, 30), nulls=40), 0, ("null_share", "feature=x")),
        (TYPES, replace(BINS, counts=(45, 45), nulls=10), 1, ("stale_days", "all")),
        (TYPES | {"x": "string"}, replace(BINS, counts=(45, 45), nulls=10), 0, ("changed_columns", "all")),
        ({"y": "integer"}, replace(BINS, counts=(45, 45), nulls=10), 0, ("changed_columns", "all")),
    ],
)
def test_a_defect_is_red_and_nothing_else_is(
    types: dict[str, str], day: Bins, stale: int, red: tuple[str, str]
) -> None:
    whole = replace(BINS, counts=(day.rows - 10, 0), nulls=10)
    found = verdicts(of_data(REFERENCE, types, {"x": day, "y": whole}, stale, 1, RULES))
    assert [key for key, verdict in found.items() if verdict == "red"] == [red]


def test_the_share_of_drifted_features_is_judged_where_it_is_a_cause() -> None:
    gone = replace(BINS, counts=(900, 0))
    found = {
        limit: verdicts(of_drift(REFERENCE, {"x": gone, "y": BINS}, gone, RULES, limit)) for limit in (None, 0.5, 0.6)
    }
    assert {limit: each["drifted_share", "all"] for limit, each in found.items()} == {
        None: None, 0.5: "red", 0.6: "green",
    }  # fmt: skip
    assert found[None]["psi", "feature=x"] == found[None]["psi", "score"] == "red"
    assert found[None]["psi", "feature=y"] == "green"


@pytest.mark.parametrize(("skill", "verdict"), [(0.1, "green"), (0.06, "green"), (-0.001, "red"), (0.04, "red")])
def test_skill_is_compared_with_that_of_the_test_days(skill: float, verdict: str) -> None:
    tested = {"log_loss": 0.45, "baseline": 0.5}
    figures = {"all": {"skill": skill}, "origin=JFK": {"skill": -0.2, "log_loss": 0.6, "auc": 0.5}}
    found = list(of_performance(figures, {"all": 9, "origin=JFK": 3}, tested, RULES, "log_loss"))
    by = verdicts(found)
    assert by["skill", "all"] == verdict and by["skill", "origin=JFK"] == "yellow"
    assert next(each.reference for each in found if each.metric == "skill") == pytest.approx(0.1)
    # A segment has all metrics, and what it is compared with is not the whole.
    assert Measure("auc", "origin=JFK", 0.5) in found


def test_the_newest_scoring_that_succeeded_is_told_and_those_that_failed_are_counted() -> None:
    runs = [
        {"status": "failed", "seconds": 9.0, "rows_in": None, "rows_out": None},
        {"status": "success", "seconds": 2.0, "rows_in": 60, "rows_out": 60},
    ]
    assert list(of_scoring(runs)) == [
        Measure("scoring_errors", "all", 1, 0, "yellow"),
        Measure("scoring_seconds", "all", 2.0),
        Measure("scored_rows", "all", 60, 60),
    ]


def landed(table: str, release_id: int, day: str | None, rollback_to: int | None = None) -> dict[str, Any]:
    end = dt.date.fromisoformat(day) if day else None
    return {"table_name": f"bronze.{table}", "release_id": release_id, "interval_end": end, "rollback_to": rollback_to}


@pytest.mark.parametrize(
    ("log", "stale"),
    [
        ([landed("flight_actuals", 1, "2013-03-01"), landed("flight_schedule", 2, "2013-03-02")], {"a": 0, "s": 0}),
        # Arrived after the features were made: as if it had not.
        ([landed("flight_actuals", 1, "2013-02-27"), landed("flight_schedule", 2, "2013-03-02"),
          landed("flight_actuals", 9, "2013-03-01")], {"a": 2, "s": 0}),
        ([landed("flight_actuals", 1, "2013-02-28"), landed("flight_actuals", 2, "2013-03-01"),
          landed("flight_actuals", 3, None, rollback_to=1), landed("flight_schedule", 3, "2013-03-01")],
         {"a": 1, "s": 1}),
        # What is landed again is no news, what has never arrived is not told, and a snapshot goes on to count.
        ([landed("flight_actuals", 1, "2013-03-01"), landed("flight_actuals", 2, "2013-02-01"),
          landed("planes", 3, "2013-01-01")], {"a": 0}),
    ],
)  # fmt: skip
def test_a_source_is_as_stale_as_the_days_that_were_missing(log: Any, stale: dict[str, int]) -> None:
    made_from = ["gold.flight_delay_features", "bronze.flight_actuals", "bronze.flight_schedule", "bronze.planes"]
    found = stale_days(made_from, contracts.readable(), log, dt.date(2013, 3, 2), release_id=5)
    assert found == {{"a": "bronze.flight_actuals", "s": "bronze.flight_schedule"}[k]: n for k, n in stale.items()}


def test_a_page_draws_what_was_measured_over_time() -> None:
    weeks = [Interval(day, day + dt.timedelta(days=6)) for day in (dt.date(2013, 3, 1), dt.date(2013, 3, 8))]
    rows = [
        {
            "model_name": "m", "model_version": 1, "role": "champion", "interval_start": week.start,
            "interval_end": week.end, "metric": metric, "segment": segment, "value": value, "reference": None,
            "verdict": verdict,
        }
        for week, skill, index in ((weeks[0], 0.1, 0.01), (weeks[1], -0.2, 0.4))
        for metric, segment, value, verdict in (
            ("skill", "all", skill, "red" if skill < 0 else "green"),
            ("psi", "feature=x", index, "red" if index > 0.25 else "green"),
            ("skill", "origin=JFK", skill, None),
        )
    ]  # fmt: skip
    text = reports.page("m", weeks[1], rows)
    assert "m, 2013-03-08/2013-03-14" in text
    assert text.count("<polyline") == 1 and '<circle class="red" cx="416.0" cy="86.0"' in text
    assert 'class="heat-green" title="2013-03-07: 0.01"' in text and 'class="heat-red" title="2013-03-14: 0.4"' in text
    assert "Nothing has been measured" in reports.page("m", weeks[0], [])


def test_without_scores_the_features_are_compared_all_the_same() -> None:
    gone = replace(BINS, counts=(900, 0))
    found = verdicts(of_drift(REFERENCE, {"x": gone, "y": BINS}, None, RULES, 0.5))
    assert found["psi", "feature=x"] == "red" and found["drifted_share", "all"] == "red"
    assert not [segment for _, segment in found if segment == "score"]


def test_the_newest_day_is_that_of_the_newest_release_without_another() -> None:
    log = [landed("weather", 1, "2013-03-03"), landed("weather", 2, "2013-03-01"), landed("planes", 3, "2013-03-09")]
    assert newest_day("bronze.weather", log) == dt.date(2013, 3, 3)
    assert newest_day("bronze.weather", [*log, landed("weather", 9, "2013-03-05")], 2) == dt.date(2013, 3, 3)
    assert newest_day("bronze.airports", log) is None


def test_of_a_long_history_the_report_reads_what_it_draws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    ops.create()
    assert reports.newest("m") is None and reports.read("m") == []
    every = [dt.date(2013, 1, 1) + dt.timedelta(days=n) for n in range(200)]
    rows = [
        {"model_name": "m", "model_version": 1, "role": role, "interval_start": day, "interval_end": day,
         "metric": metric, "segment": segment, "value": value, "verdict": "green"}
        for number, day in enumerate(every)
        for role in ("champion", "fallback")
        for metric, segment, value in (("skill", "all", 0.1 * number), ("psi", "feature=x", 0.01))
    ]  # fmt: skip
    ops.append("ops.model_metrics", [*rows, *({**row, "model_name": "other"} for row in rows)])
    last = Interval(every[150], every[150])
    found = reports.read("m", last.end)
    assert [*dict.fromkeys(row["interval_end"] for row in found)] == every[91:151]
    before = [row | {"reference": None} for row in rows if row["interval_end"] <= last.end]
    assert reports.report("m", last) == reports.page("m", last, before)
    assert reports.newest("m") == Interval(every[-1], every[-1])

"""Anomaly rules: the limits that a history gives, and what is said of a faulty rule."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from infra.demo.upstream import _data_file
from lakehouse.interval import Interval
from lakehouse.quality import anomalies, suites
from lakehouse.quality.anomalies import Figure, Rule

MONDAY = dt.date(2013, 3, 4)


def days(count: int, rows: Any = lambda day: 100, before: dt.date = MONDAY) -> list[Figure]:
    dates = [before - dt.timedelta(days=n) for n in range(count, 0, -1)]
    return [Figure(version=n, day=day, rows=rows(day)) for n, day in enumerate(dates)]


def watch(rule: Rule, daily: list[Figure], interval: str = "2013-03-04") -> anomalies.Watch:
    return anomalies.watch([rule], Interval.parse(interval), [], daily)


def test_limits_are_the_median_and_the_median_absolute_deviation() -> None:
    values = [100.0, 103, 98, 101, 5000]  # one outlier moves neither
    middle = statistics.median(values)
    spread = 1.4826 * statistics.median(abs(v - middle) for v in values)
    low, high = anomalies.limits(values, Rule("row_count", threshold=3, tolerance=0))
    assert (low, high) == pytest.approx((middle - 3 * spread, middle + 3 * spread))


def test_a_steady_history_allows_its_tolerance() -> None:
    assert anomalies.limits([100.0] * 9, Rule("row_count", tolerance=0.05)) == (95, 105)
    assert anomalies.limits([0.0] * 9, Rule("null_share", "a", tolerance=0.01)) == (-0.01, 0.01)


def test_each_metric_becomes_an_expectation_of_gx() -> None:
    at = dt.datetime(2013, 3, 1, 22, tzinfo=dt.UTC)
    daily = [
        Figure(n, day, 100, {"a": 2}, {"a": 5.0}, {"a": anomalies.end_of(day) - dt.timedelta(hours=2)})
        for n, day in enumerate(dt.date(2013, 2, 20) + dt.timedelta(days=n) for n in range(10))
    ]
    assert daily[-1].newest["a"] == at
    rules = [
        Rule("row_count", per="d"),
        Rule("null_share", "a", per="d", tolerance=0.01),
        Rule("mean", "a", per="d"),
        Rule("freshness", "a", per="d", tolerance=1),
    ]
    found = anomalies.watch(rules, Interval.parse("2013-03-02"), [], daily)
    assert [e.type for e in found.expectations] == [
        "expect_table_row_count_to_be_between",
        "expect_column_values_to_not_be_null",
        "expect_column_mean_to_be_between",
        "expect_column_max_to_be_between",
    ]
    count, nulls, mean, newest = (e.kwargs for e in found.expectations)
    assert (count["min_value"], count["max_value"], count["row_condition"]) == (95, 105, "d = date '2013-03-02'")
    assert nulls["mostly"] == pytest.approx(0.97)
    assert (mean["min_value"], mean["max_value"]) == (4.75, 5.25)
    assert newest["min_value"] == "2013-03-02T21:00:00+00:00"
    assert "10 days from 2013-02-20 to 2013-03-01, median 100" in found.expectations[0].meta["compared_with"]


def test_weekdays_are_compared_with_their_own_kind() -> None:
    daily = days(56, lambda day: 50 if day.weekday() == 0 else 100)
    rule = Rule("row_count", per="d", method="weekday", window=56, minimum=8)
    [expected] = watch(rule, daily).expectations
    assert (expected.kwargs["min_value"], expected.kwargs["max_value"]) == (48, 52)
    [expected] = watch(rule, days(56, lambda day: 50 if day.weekday() == 0 else 100, MONDAY), "2013-03-04").expectations
    assert "8 same weekdays from 2013-01-07 to 2013-02-25" in expected.meta["compared_with"]


def test_days_that_come_later_or_lie_outside_of_the_window_are_no_history() -> None:
    rule = Rule("row_count", per="d", window=7, minimum=7)
    later = [Figure(99, MONDAY + dt.timedelta(days=n), 1) for n in range(5)]
    [expected] = watch(rule, [*days(30, lambda day: 100 if day > dt.date(2013, 2, 24) else 7), *later]).expectations
    assert "7 days from 2013-02-25 to 2013-03-03" in expected.meta["compared_with"]
    assert expected.kwargs["min_value"] == 95


def test_too_little_history_gives_no_limit_and_says_so() -> None:
    found = watch(Rule("row_count", per="d", minimum=7), days(6), "2013-03-04/2013-03-05")
    assert found.expectations == ()
    [(_, reason)] = found.unknown
    assert reason == "row_count per d: too little history for 2 of 2 days: 6 of at least 7 days"


def test_whole_versions_are_compared_with_the_last_releases() -> None:
    history = [Figure(n, MONDAY, 100 * n) for n in range(1, 11)]
    found = anomalies.watch([Rule("row_count", window=3, minimum=3)], Interval.parse("2013-03-04"), history, [])
    assert "3 released versions from 8 to 10, median 900" in found.expectations[0].meta["compared_with"]
    assert found.expectations[0].kwargs["row_condition"] == "true"


@pytest.mark.parametrize(
    ("entry", "field", "message"),
    [
        ({"metric": "rows"}, "metric", "'rows' is not one of row_count, null_share, mean, freshness"),
        ({"metric": "mean"}, "column", "mean is about a column"),
        ({"metric": "row_count", "column": "id"}, "column", "row_count is about no column"),
        ({"metric": "mean", "column": "nope"}, "column", "the table has no column 'nope'"),
        ({"metric": "row_count", "per": "nope"}, "per", "the table has no column 'nope'"),
        ({"metric": "row_count", "method": "weekday"}, "method", "name the column that tells a row's day as per"),
        ({"metric": "row_count", "method": "weekday", "per": "day"}, "minimum", "a window of 28 holds 4 same weekdays"),
        ({"metric": "row_count", "window": 6}, "minimum", "7 figures will never be there: a window of 6 holds 6"),
        ({"metric": "row_count", "method": "arima"}, "method", "'arima' is not one of robust, weekday"),
        ({"metric": "row_count", "window": 0}, "window", "0 is not a whole number from 1 on"),
        ({"metric": "row_count", "minimum": 1.5}, "minimum", "1.5 is not a whole number from 2 on"),
        ({"metric": "row_count", "threshold": -1}, "threshold", "-1 is not a number from 0 on"),
        ({"metric": "row_count", "severity": "fatal"}, "severity", "'fatal' is not one of"),
        ({"metric": "row_count", "windw": 3}, "windw", "is not a field of an anomaly rule"),
    ],
)
def test_a_faulty_rule_is_named_with_its_line(tmp_path: Path, entry: dict[str, Any], field: str, message: str) -> None:
    path = tmp_path / "bronze" / "flights.json"
    path.parent.mkdir()
    rule = {"type": "expect_column_to_exist", "kwargs": {"column": "id"}}
    content = {"name": "bronze.flights", "expectations": [rule], "meta": {"anomalies": [entry]}}
    path.write_text(json.dumps(content, indent=2), "utf-8")
    [problem] = suites.lint(path, columns=["id", "day"]).problems
    assert (problem.field, message in problem.message) == (f"meta.anomalies[0].{field}", True), problem
    key = field if field in entry else "metric"
    line = path.read_text("utf-8").splitlines()[problem.line - 1]
    assert f'"{key}"' in line or "{" in line


def days_of_2013(file: str, column: str, name: str) -> list[Figure]:
    """Rows, and nulls and mean of one column, of each day of the demo's data."""
    rows = pd.read_csv(_data_file(file), usecols=["year", "month", "day", column])
    return [
        Figure(0, pd.Timestamp(day).date(), len(values), {name: int(values.isna().sum())}, {name: values.mean()})
        for day, values in rows.groupby(pd.to_datetime(rows[["year", "month", "day"]]))[column]
    ]


@pytest.mark.parametrize(
    ("table", "file", "column", "name", "expected"),
    [
        (
            "bronze.flight_actuals",
            "flights.csv.zip",
            "dep_time",
            "departure_time",
            {
                "departure_time": "2013-02-08 2013-02-09 2013-05-23 2013-12-10",
                None: "2013-07-04 2013-11-28 2013-11-29 2013-12-25",
            },
        ),
        ("bronze.weather", "weather.csv", "temp", "temperature_f", {"temperature_f": "2013-01-23 2013-04-09"}),
    ],
)
def test_the_anomalies_of_2013_are_its_storms_and_holidays(
    table: str, file: str, column: str, name: str, expected: dict[str | None, str]
) -> None:
    rules = anomalies.read(suites.load(table).meta)
    assert {rule.severity for rule in rules} == {"warning"}
    figures = days_of_2013(file, column, name)
    found: dict[str | None, list[str]] = {}
    for figure, rule in itertools.product(figures, rules):
        for expectation in anomalies.watch([rule], Interval(figure.day, figure.day), [], figures).expectations:
            value, kwargs = figure.value(rule), expectation.kwargs
            assert value is not None
            low, high = kwargs.get("min_value", 0), kwargs.get("max_value", 1 - kwargs.get("mostly", 1))
            if not low <= value <= high:
                found.setdefault(rule.column, []).append(str(figure.day))
    assert {column: " ".join(days) for column, days in found.items()} == expected

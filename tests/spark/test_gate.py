"""The gate: GX's verdict on an exact version, what it costs, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakehouse.engine import spark
from lakehouse.quality import gate, suites
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.gate import Request, check, check_all
from lakehouse.quality.suites import InvalidSuiteError, Suite, SuiteNotFoundError

TABLE = "gate_next.flights"

RULES: list[dict[str, Any]] = [
    {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}},
    *({"type": "expect_column_values_to_not_be_null", "kwargs": {"column": c}} for c in ("id", "origin", "departed")),
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "delay", "mostly": 0.9}},
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "departed", "min_value": 0, "max_value": 2400}},
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "origin", "value_set": ["JFK", "LGA"]}},
    {"type": "expect_column_values_to_not_be_in_set", "kwargs": {"column": "origin", "value_set": ["XXX"]}},
    {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "origin", "regex": "^[A-Z]{3}$"}},
    {"type": "expect_column_values_to_not_match_regex", "kwargs": {"column": "origin", "regex": "[0-9]"}},
    {"type": "expect_column_value_lengths_to_equal", "kwargs": {"column": "origin", "value": 3}},
    {
        "type": "expect_column_value_lengths_to_be_between",
        "kwargs": {"column": "origin", "min_value": 1, "max_value": 5},
    },
    {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
    {"type": "expect_compound_columns_to_be_unique", "kwargs": {"column_list": ["id", "origin"]}},
    {
        "type": "expect_column_pair_values_a_to_be_greater_than_b",
        "kwargs": {"column_A": "departed", "column_B": "zero", "or_equal": True},
    },
    {"type": "expect_column_max_to_be_between", "kwargs": {"column": "departed", "max_value": 2400}},
    {"type": "expect_column_min_to_be_between", "kwargs": {"column": "departed", "min_value": 0}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "departed", "min_value": 1, "max_value": 2399}},
    {"type": "expect_column_to_exist", "kwargs": {"column": "delay"}},
    {"type": "expect_column_values_to_be_of_type", "kwargs": {"column": "origin", "type_": "StringType"}},
]


@pytest.fixture(scope="module", autouse=True)
def flights() -> Iterator[None]:
    """A table of five versions: empty, good, one bad row, duplicates, one hundred good rows."""
    spark().sql("create schema if not exists gate_next").collect()
    spark().sql(f"drop table if exists {TABLE}").collect()
    spark().sql(
        f"create table {TABLE} (id bigint, origin string, departed int, delay int, zero int) using delta"
    ).collect()
    good = "select id, if(id % 2 = 0, 'JFK', 'LGA'), cast(id % 2400 as int), if(id % 20 = 0, null, 1), 0 from range({})"
    for statement in (
        f"insert overwrite {TABLE} {good.format(1000)}",
        f"insert into {TABLE} values (1000, 'jfk', 2500, null, 0)",
        f"insert overwrite {TABLE} {good.format(1000)} union all {good.format(2)}",
        f"insert overwrite {TABLE} {good.format(100)}",
    ):
        spark().sql(statement).collect()
    yield
    spark().sql("drop schema gate_next cascade").collect()


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path)

    def _write(expectations: list[dict[str, Any]]) -> None:
        path = tmp_path / "gate" / "flights.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": "gate.flights", "expectations": expectations}), "utf-8")

    _write(RULES)
    return _write


def test_a_good_version_passes_in_one_query(suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyspark.sql.connect.client import SparkConnectClient

    queries = []
    execute = SparkConnectClient._execute_and_fetch

    def counting(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        if request.plan.HasField("root"):
            queries.append(request)
        return execute(self, request, *args, **kwargs)

    monkeypatch.setattr(SparkConnectClient, "_execute_and_fetch", counting)
    adaptive = spark().conf.get("spark.sql.adaptive.enabled")
    result = check(TABLE, 1)
    assert result.success, result.summary()
    assert len(RULES) == 20
    # With adaptive execution off, which the gate sees to, a query is one Spark job.
    assert len(queries) == 1
    assert spark().conf.get("spark.sql.adaptive.enabled") == adaptive
    assert result.validation.success
    assert [r.expectation.type for r in result.results] == [rule["type"] for rule in RULES]


def test_rows_are_those_of_ops_gate_results(suite: Any) -> None:
    from lakehouse import ops

    rows = check(TABLE, 2).rows()
    assert set(rows[0]) <= set(ops.SCHEMAS["ops.gate_results"].names)
    between = rows[5]
    assert between["suite"] == "gate.flights"
    assert between["column_name"] == "departed"
    assert json.loads(between["kwargs"]) == {"column": "departed", "min_value": 0, "max_value": 2400}
    assert (between["severity"], between["success"]) == ("critical", False)
    assert (between["element_count"], between["unexpected_count"]) == (1001, 1)
    assert between["unexpected_percent"] == pytest.approx(100 / 1001)
    count = rows[0]
    assert (count["success"], count["observed_value"], count["unexpected_count"]) == (True, "1001", None)


def test_a_failure_says_which_rule_how_many_rows_and_shows_some(suite: Any) -> None:
    result = check(TABLE, 2)
    assert not result.success
    summary = result.summary()
    assert (
        "[critical] expect_column_values_to_be_between(departed, 0..2400): 1 of 1001 rows break it, such as 2500"
        in (summary)
    )
    assert 'expect_column_values_to_be_in_set(origin, ["JFK", "LGA"]): 1 of 1001 rows break it, such as jfk' in summary
    assert "expect_column_max_to_be_between(departed, ..2400): found 2500" in summary
    assert "delay" not in summary


@pytest.mark.parametrize("many", [False, True])
def test_duplicates_are_counted_as_gx_counts_them(many: bool, suite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr("lakehouse.quality.uniqueness.MANY_ROWS", 0)
    result = check(TABLE, 3)
    assert {r.expectation.type: r.unexpected_count for r in result.failures} == {
        "expect_column_values_to_be_unique": 4,
        "expect_compound_columns_to_be_unique": 4,
    }
    assert set(result.failures[0].examples) == {0, 1}


def test_no_more_than_five_values_are_shown(suite: Any) -> None:
    suite([{"type": "expect_column_values_to_be_between", "kwargs": {"column": "id", "min_value": 90}}])
    result = check(TABLE, 4)
    assert result.results[0].unexpected_count == 90
    shown = result.summary().partition("such as ")[2].rstrip(".").split(", ")
    assert len(shown) == len(set(shown)) == 5 and {int(each) for each in shown} < set(range(90))


def test_exactly_the_version_is_checked(suite: Any) -> None:
    assert [check(TABLE, version).success for version in (1, 2, 3, 4)] == [True, False, False, True]
    assert check(TABLE, 4).results[0].observed_value == 100
    assert check(TABLE, 4).validation.meta["version"] == 4


def test_an_empty_version_fails_by_its_row_count_alone(suite: Any) -> None:
    result = check(TABLE, 0)
    failed = {r.expectation.type for r in result.failures}
    assert "expect_table_row_count_to_be_between" in failed
    assert not any(r.unexpected_count for r in result.results)


def test_severity_and_mostly_are_gx_s(suite: Any) -> None:
    lengths = {"column": "departed", "min_value": 0, "max_value": 2400}
    suite([{"type": "expect_column_values_to_be_between", "kwargs": lengths, "severity": "warning"}])
    result = check(TABLE, 2)
    assert result.success
    assert not result.validation.success
    assert result.summary().startswith("passed with 1 warning of 1 rule in ")
    suite([{"type": "expect_column_values_to_be_between", "kwargs": {**lengths, "mostly": 0.999}}])
    result = check(TABLE, 2)
    assert result.success
    assert (result.results[0].unexpected_count, result.results[0].success) == (1, True)
    suite([{"type": "expect_column_values_to_be_between", "kwargs": {**lengths, "mostly": 0.9995}}])
    assert not check(TABLE, 2).success


def test_a_rule_that_cannot_be_evaluated_fails_alone(suite: Any) -> None:
    suite(
        [
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "id"}},
            {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "nowhere"}},
            {"type": "expect_column_values_to_be_between", "kwargs": {"column": "origin", "min_value": 1}},
            {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "origin", "regex": "["}},
            {"type": "expect_column_values_to_be_unique", "kwargs": {"column": "id"}},
        ]
    )
    result = check(TABLE, 1)
    assert [r.success for r in result.results] == [True, False, False, False, True]
    assert [r.error is not None for r in result.results] == [False, True, True, True, False]
    assert not result.success
    assert "nowhere" in str(result.results[1].error)


def test_metrics_of_other_kinds_are_gx_s_own(suite: Any) -> None:
    suite(
        [
            {
                "type": "expect_column_distinct_values_to_equal_set",
                "kwargs": {"column": "origin", "value_set": ["JFK"]},
            },
            {"type": "expect_column_unique_value_count_to_be_between", "kwargs": {"column": "origin", "max_value": 2}},
            {
                "type": "expect_column_values_to_be_between",
                "kwargs": {
                    "column": "departed",
                    "max_value": 10,
                    "row_condition": "id < 12",
                    "condition_parser": "spark",
                },
            },
            {
                "type": "expect_column_values_to_be_unique",
                "kwargs": {"column": "zero", "row_condition": "id < 3", "condition_parser": "spark"},
            },
        ]
    )
    results = check(TABLE, 1).results
    assert [r.error for r in results] == [None] * 4
    assert [r.success for r in results] == [False, True, False, False]
    assert (results[2].unexpected_count, results[2].element_count) == (1, 12)
    assert (results[3].unexpected_count, results[3].element_count) == (3, 3)


def test_some_rows_can_be_checked(suite: Any) -> None:
    assert check(TABLE, 2, where="id < 1000").success


def test_several_tables_and_their_suites_first(suite: Any) -> None:
    first, second = check_all([Request(TABLE, 1), Request(TABLE, 2, suite_name="gate.flights")])
    assert (first.success, second.success) == (True, False)
    with pytest.raises(SuiteNotFoundError, match=r"gate\.flight has no expectation suite"):
        check_all([Request(TABLE, 1), Request("gate_next.flight", 1)])
    suite([{"type": "expect_nothing", "kwargs": {}}])
    with pytest.raises(InvalidSuiteError, match="expect_nothing"):
        check(TABLE, 1)


def test_data_docs_can_be_rendered_from_the_result(suite: Any) -> None:
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer().render(check(TABLE, 2).validation))
    assert "departed" in page
    assert "2500" in page


def test_an_unknown_severity_does_not_reach_the_gate() -> None:
    with pytest.raises(ValueError, match="fatal"):
        gate_result = Suite("gate.flights", (Expectation("expect_column_to_exist", {"column": "id"}, "fatal"),))
        from lakehouse.quality import gx_engine

        gx_engine.validate(spark().table(TABLE), gate_result, gate.EXAMPLES)

"""Row rules mean exactly what Great Expectations' own Spark engine means by them."""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lakehouse import rules
from lakehouse.engine import spark
from lakehouse.suites import Expectation, Suite

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCHEMA = "text string, whole bigint, small int, real double, day date, moment timestamp, a int, b int"
BIG = 2**63 - 1
UTC = dt.UTC

TEXTS = st.one_of(
    st.sampled_from(["", " ", "JFK", "jfk", "N123AA", "ß", "İstanbul", "日本", "e\u0301", "😀", "a\nb", "NaN", "null"]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=6),
)
ROWS = st.tuples(
    st.none() | TEXTS,
    st.none() | st.sampled_from([0, -1, 2400, BIG, -BIG - 1, 2**53, 2**53 + 1]) | st.integers(-5, 5),
    st.none() | st.sampled_from([0, 2**31 - 1, -(2**31)]) | st.integers(-5, 5),
    st.none()
    | st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7e308])
    | st.floats(-5, 5, width=32),
    st.none() | st.sampled_from([dt.date(1, 1, 1), dt.date(2013, 1, 1), dt.date(9999, 12, 31)]),
    st.none()
    | st.sampled_from(
        [
            dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC),
            dt.datetime(2013, 1, 1, tzinfo=UTC),
            dt.datetime(2013, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
        ]
    ),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 3),
)


ALL_KINDS: list[tuple[Any, ...]] = [
    ("JFK", 0, 0, 0.0, dt.date(2013, 1, 1), dt.datetime(2013, 1, 1, tzinfo=UTC), 1, 1),
    ("JFK", BIG, 1, -0.0, dt.date(2013, 1, 1), dt.datetime(2013, 1, 1, tzinfo=UTC), 1, 1),
    ("", None, None, math.nan, None, None, None, 1),
    (None, 2**53, 2, math.nan, None, None, None, None),
    ("日本", 2**53 + 1, 3, math.inf, None, None, 2, None),
    (None, None, None, None, None, None, None, None),
]


def rule(kind: str, **kwargs: Any) -> Expectation:
    return Expectation(f"expect_{kind}", kwargs)


WHERE = {"row_condition": "b > 0", "condition_parser": "spark"}
RULES = [
    *(rule("column_values_to_not_be_null", column=column) for column in ("text", "real", "day")),
    rule("column_values_to_be_null", column="text"),
    rule("column_values_to_be_between", column="whole", min_value=-1, max_value=2400),
    rule("column_values_to_be_between", column="whole", max_value=2**53 + 1, strict_max=True),
    rule("column_values_to_be_between", column="small", min_value=-3, strict_min=True),
    rule("column_values_to_be_between", column="real", min_value=-1.5, max_value=1e300),
    rule("column_values_to_be_between", column="real", min_value=0, max_value=4, strict_min=True, strict_max=True),
    rule("column_values_to_be_between", column="day", min_value="2013-01-01", max_value="2013-12-31"),
    rule("column_values_to_be_between", column="moment", max_value="2013-01-01T00:00:00Z"),
    rule("column_values_to_be_between", column="a", min_value=1, **WHERE),
    rule("column_values_to_be_in_set", column="text", value_set=["JFK", "", "日本"]),
    rule("column_values_to_be_in_set", column="small", value_set=[0, 1, 2]),
    rule("column_values_to_be_in_set", column="real", value_set=[0.0, 1.0]),
    rule("column_values_to_not_be_in_set", column="text", value_set=["JFK", "", "😀"]),
    rule("column_values_to_not_be_in_set", column="whole", value_set=[BIG, 0]),
    rule("column_values_to_match_regex", column="text", regex="^[A-Z0-9]+$"),
    rule("column_values_to_match_regex", column="text", regex=r"\p{L}"),
    rule("column_values_to_not_match_regex", column="text", regex="[a-z]"),
    rule("column_value_lengths_to_be_between", column="text", min_value=1, max_value=3),
    rule("column_value_lengths_to_be_between", column="text", max_value=3, strict_max=True),
    rule("column_value_lengths_to_equal", column="text", value=3),
    *(rule("column_values_to_be_unique", column=column) for column in ("text", "whole", "real", "moment")),
    rule("column_values_to_be_unique", column="a", **WHERE),
    rule("compound_columns_to_be_unique", column_list=["a", "b"]),
    rule("compound_columns_to_be_unique", column_list=["a", "b", "real"], ignore_row_if="any_value_is_missing"),
    rule("compound_columns_to_be_unique", column_list=["a", "text"], ignore_row_if="never"),
    rule("column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b"),
    rule("column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b", or_equal=True),
    rule(
        "column_pair_values_a_to_be_greater_than_b",
        column_A="real",
        column_B="a",
        or_equal=True,
        ignore_row_if="neither",
    ),
    rule("column_pair_values_to_be_equal", column_A="a", column_B="b"),
    rule("column_pair_values_to_be_equal", column_A="a", column_B="b", ignore_row_if="either_value_is_missing"),
    rule("column_pair_values_to_be_equal", column_A="a", column_B="b", ignore_row_if="neither"),
    rule("select_column_values_to_be_unique_within_record", column_list=["a", "b", "small"]),
    rule(
        "select_column_values_to_be_unique_within_record",
        column_list=["a", "b"],
        ignore_row_if="any_value_is_missing",
    ),
]


def frame(rows: list[tuple[Any, ...]]) -> DataFrame:
    return spark().createDataFrame(rows, SCHEMA)


def our_counts(df: DataFrame) -> list[int]:
    from pyspark.sql import functions as F

    judged = rules.broken_rules(df, RULES)
    assert judged.columns == [*df.columns, "_broken"]
    row = judged.agg(
        *(F.count(F.when(F.array_contains("_broken", rules.label(r)), 1)).alias(f"_{i}") for i, r in enumerate(RULES))
    ).collect()[0]
    return list(row)


def gate_counts(df: DataFrame) -> list[tuple[int, int, bool]]:
    """Unexpected rows, rows that count, and verdict, as the gate has them."""
    from lakehouse import gx_engine

    found = gx_engine.validate(df, Suite("test.rules", tuple(RULES)), 0)
    for result in found.results:
        assert "unexpected_count" in result.result, result
    return [
        (r.result["unexpected_count"], r.result["element_count"] - r.result.get("missing_count", 0), bool(r.success))
        for r in found.results
    ]


def gx_counts(df: DataFrame) -> list[int]:
    """Unexpected rows as GX's own Spark engine counts them."""
    from great_expectations.core.batch import Batch
    from great_expectations.execution_engine import SparkDFExecutionEngine
    from great_expectations.execution_engine.sparkdf_batch_data import SparkDFBatchData
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from great_expectations.validator.validator import Validator

    from lakehouse import gx_engine

    engine = SparkDFExecutionEngine(spark=spark(), persist=False)
    validator = Validator(engine, data_context=gx_engine.context(), batches=[Batch(data=SparkDFBatchData(engine, df))])  # type: ignore[arg-type]
    wanted = []
    for each in RULES:
        expectation = ExpectationConfiguration(each.type, dict(each.kwargs)).to_domain_obj()
        dependencies = expectation.get_validation_dependencies(engine, {"result_format": "BOOLEAN_ONLY"})
        wanted.append(dependencies.metric_configurations[f"{expectation.map_metric}.unexpected_count"])
    values, aborted = validator.metrics_calculator.compute_metrics(wanted)
    assert not aborted
    return [values[metric.id] or 0 for metric in wanted]


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(ROWS, max_size=120))
@example(ALL_KINDS)
def test_landing_the_gate_and_gx_count_the_same_rows(rows: list[tuple[Any, ...]]) -> None:
    df = frame(rows)
    labels = [rules.label(r) for r in RULES]
    theirs = dict(zip(labels, gx_counts(df), strict=True))
    assert dict(zip(labels, our_counts(df), strict=True)) == theirs
    assert dict(zip(labels, (count for count, _, _ in gate_counts(df)), strict=True)) == theirs


def test_every_type_is_compared() -> None:
    assert {r.type for r in RULES} == set(rules.ROW_RULES)


def test_zeros_and_nans_are_duplicates_and_nulls_are_not() -> None:
    broken = rules.broken_rules(frame(ALL_KINDS), [rule("column_values_to_be_unique", column="real")])
    assert sorted(row["whole"] for row in broken.where("size(_broken) > 0").collect() if row["whole"] is not None) == [
        0,
        2**53,
        BIG,
    ]
    assert broken.where("size(_broken) > 0").count() == 4


def test_the_share_that_mostly_is_of_is_gx_s() -> None:
    from pyspark.sql import functions as F

    df = frame(ALL_KINDS)
    ours = df.agg(*(F.count(F.when(rules.applies(r), 1)).alias(f"_{i}") for i, r in enumerate(RULES))).collect()[0]
    simple = [i for i, r in enumerate(RULES) if "row_condition" not in r.kwargs and "column" in r.kwargs]
    theirs = gate_counts(df)
    for i in simple:
        if RULES[i].type not in ("expect_column_values_to_not_be_null", "expect_column_values_to_be_null"):
            assert ours[i] == theirs[i][1], rules.label(RULES[i])


def test_a_row_has_every_rule_that_it_breaks() -> None:
    broken = rules.broken_rules(
        frame([("jfk", 9, None, None, None, None, 1, 2), ("JFK", 1, None, None, None, None, 2, 1)]),
        [
            rule("column_values_to_be_between", column="whole", min_value=0, max_value=5),
            rule("column_values_to_match_regex", column="text", regex="^[A-Z]+$"),
            rule("column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b"),
        ],
        column="why",
    )
    assert [row["why"] for row in broken.collect()] == [
        [
            "expect_column_values_to_be_between(whole, 0..5)",
            "expect_column_values_to_match_regex(text, ^[A-Z]+$)",
            "expect_column_pair_values_a_to_be_greater_than_b(a > b)",
        ],
        [],
    ]


@pytest.mark.parametrize("rows", [[], ALL_KINDS])
def test_without_rules_no_row_is_bad(rows: list[tuple[Any, ...]]) -> None:
    assert [row["_broken"] for row in rules.broken_rules(frame(rows), []).collect()] == [[]] * len(rows)

"""Row rules mean exactly what Great Expectations' own Spark engine means by them."""

from __future__ import annotations

import datetime as dt
import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import great_expectations as gx
import numpy as np
import pandas as pd
import pytest
from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from lakehouse.engine import spark
from lakehouse.landing import batches
from lakehouse.quality import rules
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.suites import Suite

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

SCHEMA = "text string, whole bigint, small int, real double, day date, moment timestamp, a int, b int, place int"
BIG = 2**63 - 1
UTC = dt.UTC

TEXTS = st.one_of(
    st.sampled_from(["", " ", "JFK", "jfk", "N123AA", "ß", "İstanbul", "日本", "e\u0301", "😀", "a\nb", "NaN", "null"]),
    st.sampled_from(
        ["2013-01-05", "2013-1-5", " 2013-01-05", "2013-02-30", "20130105", "\u0662\u0660\u0661\u0663-01-05"]
    ),
    st.sampled_from(
        ["{}", '{"a": [1, 2.5e3]}', "[1, 2", "[1,]", "-0", "1e999", '"a"', "'a'", "{} {}", "\ufeff{}", "[" * 5000]
    ),
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
    rule("column_values_to_match_strftime_format", column="text", strftime_format="%Y-%m-%d"),
    rule("column_values_to_be_json_parseable", column="text"),
    rule("column_values_to_be_increasing_within_tolerance", column="day", order_by=["place"], within=["a"]),
    rule(
        "column_values_to_be_increasing_within_tolerance",
        column="moment",
        tolerance_days=0.5,
        order_by=["place"],
        within=["a", "b"],
        **WHERE,
    ),
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
    return spark().createDataFrame([(*row, place) for place, row in enumerate(rows)], SCHEMA)


def pandas_result(rows: pd.DataFrame, kind: str, **kwargs: Any) -> Any:
    """What GX's own pandas engine finds."""
    from lakehouse.quality import gx_engine

    gx_engine.context()
    batch = gx.get_context(mode="ephemeral").data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = batch.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": rows})
    expectation = ExpectationConfiguration(f"expect_{kind}", kwargs).to_domain_obj()
    found = batch.validate(expectation, result_format={"result_format": "COMPLETE"})
    assert "unexpected_count" in found.result, found
    return found


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
    from lakehouse.quality import gx_engine

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
    from great_expectations.validator.validator import Validator

    from lakehouse.quality import gx_engine

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


def examples(number: int) -> settings:
    """So many data sets, the same ones each time; LAKEHOUSE_TEST_EXAMPLES as many times, of a seed that is drawn."""
    more = int(os.environ.get("LAKEHOUSE_TEST_EXAMPLES", "0"))
    checks = list(HealthCheck)
    return settings(
        max_examples=number * (more or 1), deadline=None, suppress_health_check=checks, derandomize=not more
    )


@examples(3)
@given(st.lists(ROWS, min_size=40, max_size=100))
@example([])
@example(ALL_KINDS)
def test_landing_the_gate_and_gx_count_the_same_rows(rows: list[tuple[Any, ...]]) -> None:
    df = frame(rows)
    labels = [rules.label(r) for r in RULES]
    theirs = [*zip(labels, gx_counts(df), strict=True)]
    assert [*zip(labels, our_counts(df), strict=True)] == theirs
    assert [*zip(labels, (count for count, _, _ in gate_counts(df)), strict=True)] == theirs


@examples(2)
@given(st.lists(ROWS, min_size=40, max_size=100))
@example([])
@example([*ALL_KINDS, *ALL_KINDS, *ALL_KINDS])
def test_a_large_batch_is_judged_like_a_small_one(rows: list[tuple[Any, ...]]) -> None:
    """Two days, and of every fifth row a value that could not be read, or all of it."""
    code = f"if(place % 2 = 0, 'type', '{batches.REQUIRED}')"
    fault = f"named_struct('code', {code}, 'text', 'why', 'column', if(place % 4 = 0, '*', 'b'))"
    parsed = frame(rows).selectExpr(
        "* except(b)",
        "if(place % 5 = 0, null, b) as b",
        "'a file' as _source_file",
        "place as _source_row",
        "date_add(date'2013-01-01', place % 2) as _interval",
        f"if(place % 5 = 0, array({fault}), array()) as _faults",
    )
    keys = [each for each in RULES if rules.key(each)]
    suite = Suite("test.rules", (*RULES[:6], *keys, rule("column_values_to_not_be_null", column="b")))

    def judged(size: int) -> tuple[dict[int, Any], dict[str, Any]]:
        with batches.judging(parsed, suite, size) as (found, counts):
            return {row["place"]: (row["_reasons"], row["_codes"]) for row in found.collect()}, counts

    with mock.patch.object(batches, "_repeated", wraps=batches._repeated) as grouped:
        small = judged(0)
        assert not grouped.called
        large = judged(batches.LARGE_BATCH)
        assert grouped.call_count == len(keys) > 0
    assert large == small
    assert len(small[0]) == len(rows)


@examples(5)
@given(st.lists(st.none() | TEXTS, min_size=100, max_size=300))
def test_what_can_be_read_as_a_time_or_as_json_is_that_of_gx_on_pandas_too(texts: list[str | None]) -> None:
    column = pd.DataFrame({"text": pd.Series(texts, dtype=object)})
    df = spark().createDataFrame([(text,) for text in texts], "text string")
    asked = [
        *(
            rule("column_values_to_match_strftime_format", column="text", strftime_format=text)
            for text in ("%Y-%m-%d", "%Y%m%d", "%H", "%j %Y")
        ),
        rule("column_values_to_be_json_parseable", column="text"),
    ]
    for each in asked:
        theirs = pandas_result(column, each.type.removeprefix("expect_"), **each.kwargs).result["unexpected_count"]
        assert df.where(rules.breaks(each)).count() == theirs, each.label


WRITTEN = st.one_of(
    st.none(),
    st.integers(-(2**33), 2**33).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.dates(dt.date(1700, 1, 1), dt.date(2200, 12, 31)).map(str),
    st.sampled_from(
        ["", "soon", "12,5", "1 000", "--1", "1.5.2", "2013-02-30", "2013-13-01", "13/01/2013", "1e", "+7"]
    ),
)


@examples(4)
@given(st.lists(WRITTEN, min_size=100, max_size=300))
@example([str(2**31 - 1), str(2**31), str(-(2**31)), str(-(2**31) - 1), "1e400", "-0.0", "5.0", None])
def test_what_can_be_read_as_a_type_is_what_pandas_reads(texts: list[str | None]) -> None:
    kinds = {"whole": "INT", "real": "DOUBLE", "day": "DATE"}
    declared = [SimpleNamespace(name=n, spark_type=t, format=None, required=False) for n, t in kinds.items()]
    raw = spark().createDataFrame(
        [(text, text, text, place, None) for place, text in enumerate(texts)],
        "whole string, real string, day string, _place int, _malformed struct<code:string,text:string>",
    )
    parsed = batches.parse(raw, SimpleNamespace(columns=declared), {})  # type: ignore[arg-type]
    found = [row.asDict(recursive=True) for row in parsed.orderBy("_place").collect()]

    column = pd.Series(texts, dtype=object)
    real = pd.to_numeric(column, errors="coerce").astype("float64").replace([np.inf, -np.inf], np.nan)
    whole = real.where(column.str.fullmatch(r"[+-]?\d+").eq(True) & real.between(-(2**31), 2**31 - 1))
    day = pd.to_datetime(column, format="%Y-%m-%d", errors="coerce")
    for place, text in enumerate(texts):
        # Its numbers may be off by the last digit, those of Python are not.
        exact = real[place] if text is None or pd.isna(real[place]) else float(text)
        theirs = {"whole": whole[place], "real": exact, "day": day[place]}
        unread = [name for name, value in theirs.items() if pd.isna(value) and text is not None]
        assert [fault["column"] for fault in found[place]["_faults"]] == unread, text
        read = {name: found[place][name] for name in kinds if name not in unread and text is not None}
        assert read == {name: theirs[name].date() if name == "day" else theirs[name] for name in read}, text


DATES = st.sampled_from([dt.date(1000, 1, 1), dt.date(9000, 12, 31), *(dt.date(2013, 1, day) for day in range(1, 29))])


@examples(6)
@given(st.lists(st.lists(st.none() | DATES, max_size=10), min_size=10, max_size=30), st.sampled_from([0, 0.5, 1, 7]))
@example([[dt.date(2013, 1, 1), None, dt.date(2013, 1, 9), dt.date(2013, 1, 2), dt.date(2013, 1, 1)], [], [None]], 7)
def test_dates_increase_within_a_tolerance_as_gx_on_pandas_has_it(
    files: list[list[dt.date | None]], tolerance: float
) -> None:
    rows = [(f"f{n}", place, day) for n, days in enumerate(files) for place, day in enumerate(days)]
    assume(rows)
    expected = rule("column_values_to_be_increasing_within_tolerance", column="day", tolerance_days=tolerance)
    df = spark().createDataFrame(sorted(rows, key=repr), "_source_file string, _source_row int, day date")
    judged = [tuple(row) for row in rules.broken_rules(df, [expected]).collect()]
    ours = sorted(row[:3] for row in judged if row[3])

    table = pd.DataFrame(rows, columns=["file", "place", "day"])
    # By numpy: pandas itself takes dates for nanoseconds, and these are too far apart for them.
    table["day"] = np.array(table["day"].to_list(), "datetime64[us]")
    latest = table.groupby("file")["day"].transform(lambda days: days.cummax().ffill().shift())
    table["least"] = latest - pd.Timedelta(days=tolerance).as_unit("us")
    found = pandas_result(
        table,
        "column_pair_values_a_to_be_greater_than_b",
        column_A="day",
        column_B="least",
        or_equal=True,
        ignore_row_if="either_value_is_missing",
    )
    assert len(ours) == found.result["unexpected_count"]
    assert [rows[index] for index in found.result["unexpected_index_list"] or ()] == sorted(ours, key=rows.index)
    for n, days in enumerate(files):
        if tolerance == 0 and days and set(days) != {None}:
            alone = table[table["file"] == f"f{n}"]
            theirs = pandas_result(alone, "column_values_to_be_increasing", column="day")
            assert theirs.success == (not any(row[0] == f"f{n}" for row in ours)), days

    # Whatever else is taken out of the rows that keep the rule, the others still keep it: the gate lets them pass.
    kept = [row[:3] for place, row in enumerate(judged) if not row[3] and place % 3]
    left = spark().createDataFrame(kept, df.schema)
    assert rules.broken_rules(left, [expected]).where("size(_broken) > 0").count() == 0


def test_every_type_is_compared_and_each_rule_by_itself() -> None:
    assert {r.type for r in RULES} == set(rules.ROW_RULES)
    assert len({rules.label(r) for r in RULES}) == len(RULES)


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

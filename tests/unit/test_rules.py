"""Rules without Spark: which expectations are rules about rows, and how they read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from lakehouse.quality import rules
from lakehouse.quality.expectation import Expectation


@pytest.mark.parametrize(
    ("kind", "kwargs", "text"),
    [
        ("expect_column_values_to_not_be_null", {"column": "carrier"}, "(carrier)"),
        ("expect_column_values_to_be_between", {"column": "t", "min_value": 0, "max_value": 2400}, "(t, 0..2400)"),
        ("expect_column_values_to_be_between", {"column": "t", "min_value": 0.5}, "(t, 0.5..)"),
        (
            "expect_column_values_to_be_between",
            {"column": "t", "max_value": "2013-01-01", "strict_max": True},
            "(t, ..<2013-01-01)",
        ),
        ("expect_column_values_to_be_in_set", {"column": "o", "value_set": ["JFK", 1]}, '(o, ["JFK", 1])'),
        ("expect_column_values_to_match_regex", {"column": "o", "regex": "^[A-Z]+$"}, "(o, ^[A-Z]+$)"),
        ("expect_column_value_lengths_to_equal", {"column": "o", "value": 3}, "(o, 3)"),
        ("expect_compound_columns_to_be_unique", {"column_list": ["a", "b"]}, "(a, b)"),
        (
            "expect_column_pair_values_a_to_be_greater_than_b",
            {"column_A": "a", "column_B": "b", "or_equal": True},
            "(a >= b)",
        ),
        ("expect_table_row_count_to_be_between", {"min_value": 1, "max_value": 9}, "(1..9)"),
        (
            "expect_column_values_to_be_null",
            {"column": "a", "row_condition": "b > 1", "condition_parser": "spark"},
            "(a) where b > 1",
        ),
    ],
)
def test_label(kind: str, kwargs: dict[str, Any], text: str) -> None:
    assert rules.label(Expectation(kind, kwargs)) == kind + text


def test_a_long_set_is_cut_and_tells_from_another_that_begins_like_it() -> None:
    one, other = (
        rules.label(Expectation("expect_column_values_to_be_in_set", {"column": "o", "value_set": [*range(1000), end]}))
        for end in ("x", "y")
    )
    assert len(one) < 200 and re.search(r"… [0-9a-f]{8}\)$", one)
    assert one != other


@pytest.mark.parametrize(
    ("kind", "kwargs", "more"),
    [
        ("compound_columns_to_be_unique", {"column_list": ["a", "b"]}, {"ignore_row_if": "never"}),
        ("column_pair_values_to_be_equal", {"column_A": "a", "column_B": "b"}, {"ignore_row_if": "neither"}),
        ("column_values_to_be_increasing_within_tolerance", {"column": "a"}, {"order_by": ["b"]}),
        ("column_values_to_be_increasing_within_tolerance", {"column": "a"}, {"within": ["b"]}),
    ],
)
def test_rules_that_differ_have_labels_that_differ(kind: str, kwargs: dict[str, Any], more: dict[str, Any]) -> None:
    plain = rules.label(Expectation(f"expect_{kind}", kwargs))
    [(name, value)] = more.items()
    text = value if isinstance(value, str) else f'["{value[0]}"]'
    assert rules.label(Expectation(f"expect_{kind}", kwargs | more)) == f"{plain[:-1]}, {name} {text})"


def test_row_rules_are_those_that_a_row_can_break() -> None:
    assert rules.is_row_rule(Expectation("expect_column_values_to_be_unique", {"column": "a"}))
    assert not rules.is_row_rule(Expectation("expect_column_mean_to_be_between", {"column": "a", "min_value": 0}))
    spark = {"type": "pass_through", "pass_through_filter": "b > 1"}
    assert rules.is_row_rule(Expectation("expect_column_values_to_be_null", {"column": "a", "row_condition": spark}))
    pandas = {"column": "a", "row_condition": "b > 1", "condition_parser": "pandas"}
    assert not rules.is_row_rule(Expectation("expect_column_values_to_be_null", pandas))


def test_what_is_not_a_row_rule_is_refused() -> None:
    with pytest.raises(rules.UnsupportedRuleError, match="cannot be decided row by row"):
        rules.breaks(Expectation("expect_column_mean_to_be_between", {"column": "a", "min_value": 0}))

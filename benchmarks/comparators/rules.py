"""The expectations of a suite as SQL: what a script does that has the rules in JSON files and no library for them.

The conditions are those of DuckDB and of Spark alike, but for how a regular expression is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Expectation = dict[str, Any]

DUCKDB = "regexp_matches({0}, '{1}')"
SPARK = "{0} rlike r'{1}'"


def read(suites: Path, table: str) -> list[Expectation]:
    """The expectations of a table.

    Args:
        suites: Folder of the suites.
        table: Such as ``bronze.weather``.
    """
    layer, _, name = table.partition(".")
    found: list[Expectation] = json.loads((suites / layer / f"{name}.json").read_text("utf-8"))["expectations"]
    return found


def breaks(expectation: Expectation, matches: str = DUCKDB) -> str | None:
    """The condition that holds for a row that breaks an expectation; None where more than one row decides.

    Args:
        expectation: As the suite's JSON has it.
        matches: How a regular expression is asked.
    """
    rule = _BREAKS.get(expectation["type"])
    return rule(expectation["kwargs"], matches) if rule else None


def unique(expectation: Expectation) -> list[str] | None:
    """The columns that must not have the same values in two rows; None where an expectation is about other things.

    Args:
        expectation: As the suite's JSON has it.
    """
    kwargs = expectation["kwargs"]
    match expectation["type"]:
        case "expect_column_values_to_be_unique":
            return [kwargs["column"]]
        case "expect_compound_columns_to_be_unique":
            return list(kwargs["column_list"])
    return None


def considered(expectation: Expectation) -> str:
    """The condition of the rows that ``mostly`` is a share of.

    Args:
        expectation: As the suite's JSON has it.
    """
    kwargs = expectation["kwargs"]
    if "column_A" in kwargs:
        both = "and" if kwargs.get("ignore_row_if") == "either_value_is_missing" else "or"
        return f"{kwargs['column_A']} is not null {both} {kwargs['column_B']} is not null"
    if "column_list" in kwargs or expectation["type"] == "expect_column_values_to_not_be_null":
        return "true"
    return f"{kwargs['column']} is not null"


def _between(value: str, kwargs: dict[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    limits = [f"{value} < {low}"] if low is not None else []
    limits += [f"{value} > {high}"] if high is not None else []
    return " or ".join(limits)


_BREAKS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "expect_column_values_to_not_be_null": lambda kwargs, _: f"{kwargs['column']} is null",
    "expect_column_values_to_be_between": lambda kwargs, _: _between(kwargs["column"], kwargs),
    "expect_column_value_lengths_to_be_between": lambda kwargs, _: _between(f"length({kwargs['column']})", kwargs),
    "expect_column_values_to_be_in_set": lambda kwargs, _: (
        f"{kwargs['column']} not in ({', '.join(map(repr, kwargs['value_set']))})"
    ),
    "expect_column_values_to_match_regex": lambda kwargs, matches: (
        f"not ({matches.format(kwargs['column'], kwargs['regex'])})"
    ),
    "expect_column_pair_values_to_be_equal": lambda kwargs, _: (
        f"{kwargs['column_A']} is distinct from {kwargs['column_B']}"
    ),
    "expect_column_pair_values_a_to_be_greater_than_b": lambda kwargs, _: (
        f"{kwargs['column_A']} {'<' if kwargs.get('or_equal') else '<='} {kwargs['column_B']}"
    ),
}

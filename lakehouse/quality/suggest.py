"""A first suite for a table, from the profile of one version, for its author to edit.

What is suggested holds for that version: Great Expectations has judged it before it is written.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from lakehouse import tables
from lakehouse.errors import LakeError
from lakehouse.quality import profiles, suites
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.suites import Suite

FEW_VALUES = 15
"""A column of text with no more values than these, each of them frequent, is taken for a set of codes."""
MARGIN = 0.5
"""How far beyond the values that were seen a number may lie, as a share of their range."""


class SuiteExistsError(LakeError):
    """A table has a suite already, which its author has edited."""


def suggest(table: str, *, version: int | None = None, force: bool = False) -> Path:
    """Write a first suite of a table.

    Args:
        table: The table, as readers name it.
        version: The Delta version to learn from; by default the released one.
        force: Replace the suite that there is.

    Returns:
        The suite's file.

    Raises:
        SuiteExistsError: There is one, and it is not to be replaced.
        suites.InvalidSuiteError: What was made would not be a valid suite.
    """
    path = suites.suite_path(table)
    if path.exists() and not force:
        raise SuiteExistsError(f"{table} has a suite already: {path}. Use --force to write it anew.")
    chosen = profiles.resolve(table, version=version)
    profiles.profile(table, version=chosen)
    candidates = Suite(table, tuple(expectations(profiles.read(table, chosen))))
    from lakehouse.engine import sql
    from lakehouse.quality import gx_engine

    df = sql(f"select * from {tables.next_table(table)} version as of {chosen}")
    found = gx_engine.validate(df, candidates, 0).results
    kept = [e for e, result in zip(candidates.expectations, found, strict=True) if result.success]
    content: dict[str, Any] = {
        "name": table,
        "id": None,
        "expectations": [{"type": e.type, "kwargs": e.kwargs, "meta": {}, "severity": e.severity} for e in kept],
        "meta": {},
        "notes": f"Suggested from version {chosen}. Say why each rule holds, and take out what holds by chance.",
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
    suites.read(part, table)
    part.replace(path)
    return path


def expectations(profile: list[dict[str, Any]]) -> list[Expectation]:
    """What a profile leads one to expect of later versions, some of it too strict to hold even for this one.

    Args:
        profile: As :func:`lakehouse.quality.profiles.read` gives it.
    """
    columns = [row for row in profile if row["column_name"] is not None]
    expected = [
        Expectation("expect_table_columns_to_match_set", {"column_set": [row["column_name"] for row in columns]}),
        Expectation("expect_table_row_count_to_be_between", {"min_value": 1}),
    ]
    for row in columns:
        expected += _of_column(row)
    return expected


def _of_column(row: dict[str, Any]) -> list[Expectation]:
    name, rows, nulls = row["column_name"], row["row_count"], row["null_count"]
    values = rows - nulls
    expected = []
    if rows and not nulls:
        expected.append(Expectation("expect_column_values_to_not_be_null", {"column": name}))
    elif values:
        share = math.floor(values / rows * 90) / 100
        if share > 0:
            expected.append(
                Expectation("expect_column_values_to_not_be_null", {"column": name, "mostly": share}, "warning")
            )
    if values > 1 and (row["distinct_count"] or 0) >= 0.95 * values:
        expected.append(Expectation("expect_column_values_to_be_unique", {"column": name}))
    top = row["top_values"] or []
    few = 0 < len(top) <= FEW_VALUES and values >= 10 * len(top) and sum(entry["count"] for entry in top) == values
    if row["data_type"] == "string" and few:
        value_set = sorted(entry["value"] for entry in top)
        expected.append(Expectation("expect_column_values_to_be_in_set", {"column": name, "value_set": value_set}))
    if row["mean"] is not None and math.isfinite(row["mean"]):
        low, high = float(row["min"]), float(row["max"])
        margin = (high - low) * MARGIN
        bounds = {"min_value": 0.0 if 0 <= low <= margin else low - margin, "max_value": high + margin}
        expected.append(Expectation("expect_column_values_to_be_between", {"column": name, **bounds}, "warning"))
    return expected

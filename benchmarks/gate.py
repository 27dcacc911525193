"""R3, what a gate costs: twenty rules that pass, against one forced full decode of the same table in the same engine.

A full decode is Spark's ``noop`` write of all columns: every value is read from the files and made into a row, and
nothing is done with it.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import rows_of

SIZE, QUICK_SIZE = "10M", "100k"
GOAL = Goal(1.8)
TABLE = "gold_next.gate_benchmark"
SUITE = "gold.gate_benchmark"

COLUMNS = {
    "day": "date_add(date '2013-01-01', cast(id % 365 as int))",
    "id": "id",
    "carrier": "element_at(array('UA', 'B6', 'DL', 'AA', 'EV', 'MQ', 'US', 'WN'), cast(id % 8 + 1 as int))",
    "flight_number": "cast(id % 6000 + 1 as int)",
    "tail_number": "concat('N', 10000 + xxhash64(id) % 4000)",
    "origin": "element_at(array('EWR', 'JFK', 'LGA'), cast(id % 3 + 1 as int))",
    "destination": "element_at(array('ATL', 'ORD', 'LAX', 'BOS', 'MIA'), cast(xxhash64(id, 1) % 2 + 3 as int))",
    "scheduled_at": "timestamp '2013-01-01 05:00:00Z' + make_interval(0, 0, 0, 0, 0, cast(id % 525600 as int), 0)",
    "departed_at": "timestamp '2013-01-01 05:09:00Z' + make_interval(0, 0, 0, 0, 0, cast(id % 525600 as int), 0)",
    "departure_delay": "if(id % 40 = 0, null, cast(abs(xxhash64(id, 2)) % 90 as double) - 10)",
    "arrival_delay": "if(id % 40 = 0, null, cast(abs(xxhash64(id, 3)) % 120 as double) - 20)",
    "air_time": "cast(30 + abs(xxhash64(id, 4)) % 400 as double)",
    "distance": "cast(80 + abs(xxhash64(id, 5)) % 4900 as double)",
    "source_file": "concat('flights_', id % 365, '.csv')",
    "source_row": "id div 365",
}

RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_table_columns_to_match_set", {"column_set": list(COLUMNS)}),
    ("expect_table_row_count_to_be_between", {"min_value": 1}),
    ("expect_column_values_to_not_be_null", {"column": "day"}),
    ("expect_column_values_to_not_be_null", {"column": "carrier"}),
    ("expect_column_values_to_not_be_null", {"column": "scheduled_at"}),
    ("expect_column_values_to_be_unique", {"column": "id"}),
    ("expect_compound_columns_to_be_unique", {"column_list": ["source_file", "source_row"]}),
    ("expect_column_values_to_match_regex", {"column": "carrier", "regex": "^[0-9A-Z]{2}$"}),
    ("expect_column_values_to_match_regex", {"column": "tail_number", "regex": "^N[0-9]{4,5}$"}),
    ("expect_column_values_to_be_in_set", {"column": "origin", "value_set": ["EWR", "JFK", "LGA"]}),
    ("expect_column_value_lengths_to_equal", {"column": "destination", "value": 3}),
    ("expect_column_values_to_be_between", {"column": "flight_number", "min_value": 1, "max_value": 9999}),
    ("expect_column_values_to_be_between", {"column": "departure_delay", "min_value": -120, "max_value": 2880}),
    ("expect_column_values_to_be_between", {"column": "arrival_delay", "min_value": -180, "max_value": 2880}),
    ("expect_column_values_to_be_between", {"column": "air_time", "min_value": 5, "max_value": 1000}),
    ("expect_column_values_to_not_be_null", {"column": "departure_delay", "mostly": 0.9}),
    (
        "expect_column_pair_values_a_to_be_greater_than_b",
        {"column_A": "departed_at", "column_B": "scheduled_at", "or_equal": True},
    ),
    ("expect_column_mean_to_be_between", {"column": "distance", "min_value": 80, "max_value": 5000}),
    ("expect_column_max_to_be_between", {"column": "air_time", "min_value": 30, "max_value": 1000}),
    ("expect_column_min_to_be_between", {"column": "distance", "min_value": 0, "max_value": 1000}),
]


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Rows of the table, such as ``10M``.
        pairs: How often each side is timed.
    """
    with engine():
        return [measure(size, pairs)]


def measure(size: str, pairs: int) -> Result:
    """Time both sides in turn, on the engine that is there.

    Args:
        size: Rows of the table, such as ``10M``.
        pairs: How often each side is timed.
    """
    from lakehouse.engine import spark, sql
    from lakehouse.quality import suites
    from lakehouse.quality.gate import GateResult, check

    rows = rows_of(size)
    sql("create schema if not exists gold_next").collect()
    columns = ", ".join(f"{expression} as {name}" for name, expression in COLUMNS.items())
    sql(f"create table {TABLE} using delta as select {columns} from range({rows})").collect()
    suites.SUITES_DIR = Path(tempfile.mkdtemp())
    path = suites.suite_path(SUITE)
    path.parent.mkdir()
    content = {"name": SUITE, "expectations": [{"type": type_, "kwargs": kwargs} for type_, kwargs in RULES]}
    path.write_text(json.dumps(content), "utf-8")
    verdicts: list[GateResult] = []

    def gate() -> None:
        verdicts[:] = [check(TABLE, 0, suite_name=SUITE)]

    def decode() -> None:
        spark().sql(f"select * from {TABLE} version as of 0").write.format("noop").mode("overwrite").save()

    def judged() -> dict[str, Any]:
        (verdict,) = verdicts
        assert not verdict.failures, verdict.summary()
        (looked_at,) = {result.element_count for result in verdict.results if result.element_count is not None}
        return {"rows": looked_at}

    def counted() -> dict[str, Any]:
        return {"rows": sql(f"select count(*) from {TABLE}").collect()[0][0]}

    result = Result(
        "R3",
        f"passing gate of {len(RULES)} rules ÷ one forced full decode",
        size,
        GOAL,
        ("gate", "full decode"),
        notes=(f"{len(COLUMNS)} columns. The full decode is Spark's noop write of all of them. Rows are compared.",),
    )
    # Python's part of both is in the figures: building the rules and the verdict, and waiting for the engine.
    return compare(result, Side("gate", gate, judged), Side("full decode", decode, counted), pairs, warm=2)

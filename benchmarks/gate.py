"""What a gate costs: twenty rules that pass, against one forced full decode of the same table in the same engine.

    python -m benchmarks.gate            10 million rows; some minutes
    python -m benchmarks.gate --quick    1 million

Both sides run in turn (gate, decode, decode, gate, …), so that a machine that gets slower or faster meanwhile does it
to both. Starts an engine of its own, in a folder of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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


@contextmanager
def engine() -> Iterator[None]:
    """An engine in a folder of its own."""
    from tests.conftest import free_ports

    home = tempfile.mkdtemp(prefix="lake-benchmark-")
    os.environ.update({"LAKE_HOME": home, **free_ports()})
    command = [sys.executable, "-m", "lakehouse.platform"]
    try:
        subprocess.run([*command, "up", "engine"], check=True, stdout=sys.stderr)
        yield
    finally:
        subprocess.run([*command, "down"], check=True, stdout=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--pairs", type=int, default=6, help="measurements of each side")
    parser.add_argument("--quick", action="store_true", help="1 million rows")
    arguments = parser.parse_args()
    rows = 1_000_000 if arguments.quick else arguments.rows
    with engine():
        measure(rows, arguments.pairs)


def measure(rows: int, pairs: int) -> None:
    """Time both sides in turn.

    Args:
        rows: Size of the table.
        pairs: How often each side is timed.
    """
    from lakehouse import suites
    from lakehouse.engine import spark, sql
    from lakehouse.gate import check

    sql("create schema if not exists gold_next").collect()
    columns = ", ".join(f"{expression} as {name}" for name, expression in COLUMNS.items())
    sql(f"create table {TABLE} using delta as select {columns} from range({rows})").collect()
    suites.SUITES_DIR = Path(tempfile.mkdtemp(dir=os.environ["LAKE_HOME"]))
    path = suites.suite_path(SUITE)
    path.parent.mkdir()
    content = {"name": SUITE, "expectations": [{"type": type_, "kwargs": kwargs} for type_, kwargs in RULES]}
    path.write_text(json.dumps(content), "utf-8")

    def gate() -> float:
        started = time.perf_counter()
        result = check(TABLE, 0, suite_name=SUITE)
        seconds = time.perf_counter() - started
        assert not result.failures, result.summary()
        assert [r.element_count for r in result.results if r.expectation.type.endswith("unique")] == [rows, rows]
        assert result.results[1].observed_value == rows
        return seconds

    def decode() -> float:
        frame = spark().sql(f"select * from {TABLE} version as of 0")
        started = time.perf_counter()
        frame.write.format("noop").mode("overwrite").save()
        return time.perf_counter() - started

    sides = {"gate": gate, "decode": decode}
    counted = sql(f"select count(*) from {TABLE}").collect()[0][0]
    assert counted == rows, counted
    for side in sides.values():  # not timed: code is generated and compiled, files come into the cache
        side()
        side()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for pair in range(pairs):
        for name in sorted(sides, reverse=bool(pair % 2)):
            found[name].append(sides[name]())
            print(f"{name} {found[name][-1]:.2f} s", file=sys.stderr, flush=True)
    ratios = [a / b for a, b in zip(found["gate"], found["decode"], strict=True)]
    print(
        f"{rows} rows, {len(COLUMNS)} columns, {len(RULES)} rules, {len(os.sched_getaffinity(0))} cores: "
        f"gate {statistics.median(found['gate']):.2f} s, full decode {statistics.median(found['decode']):.2f} s, "
        f"ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}, {pairs} pairs)"
    )


if __name__ == "__main__":
    main()

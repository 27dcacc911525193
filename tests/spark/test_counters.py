"""What the steps ask of the engine, in numbers that a busy machine does not change, each with a bound.

A bound that is exceeded means that a step does more than it did. That can be right: then the bound is raised, with the
change that needs it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from lakehouse import tables
from lakehouse.engine import process
from lakehouse.interval import Interval
from lakehouse.quality.gate import check
from lakehouse.readers.files import LARGE_FILE
from lakehouse.releases.audit import gate
from lakehouse.releases.release import release
from tests.spark.counters import counting, reading_logs
from tests.spark.sources import expect, new_source  # noqa: F401 - a fixture

NAME = "counted"
TABLE, STORED = f"bronze.{NAME}", f"bronze_next.{NAME}"
ROWS = 1000
LANDING, GATE, RELEASE = 10, 3, 2
"""Spark jobs, those that Delta runs to find a version's files among them; 8, 2 or 3, and none. GX itself takes 90."""
LANDING_ASKS, GATE_ASKS, RELEASE_ASKS = 3, 3, 3
"""Queries and commands that the same steps send to the engine."""
LANDING_READS, GATE_READS, RELEASE_READS = 8, 8, 10
"""How often the same steps read the log of one table at most."""
TWENTY = [
    expect("table_row_count_to_be_between", min_value=1),
    expect("table_columns_to_match_set", column_set=["id", "day"], exact_match=False),
    *(expect("column_values_to_not_be_null", column=name) for name in ("id", "day", "amount", "pieces", "person")),
    expect("column_values_to_be_unique", column="id"),
    expect("compound_columns_to_be_unique", column_list=["day", "id"]),
    *(expect("column_values_to_be_between", column=name, min_value=0) for name in ("id", "amount", "pieces")),
    *(expect("column_mean_to_be_between", column=name, min_value=0) for name in ("id", "amount", "pieces")),
    *(expect("column_max_to_be_between", column=name, max_value=10**9) for name in ("id", "amount", "pieces")),
    expect("column_values_to_match_regex", column="person", regex="^p[0-9]+$"),
    expect("column_value_lengths_to_be_between", column="person", min_value=1),
]


@pytest.fixture
def source(new_source: Any) -> Iterator[Any]:  # noqa: F811
    """A source that was landed, judged and released before: what is counted is the second time, not the first."""
    made = new_source(NAME)
    made.rules(*TWENTY)
    for day in ("2020-01-01", "2020-01-02"):
        made.put(day, csv(day))
    if tables.head(STORED) is None:
        made.land("2020-01-01")
        made.publish("2020-01-01")
    yield made


def csv(day: str) -> str:
    first = int(day[-2:]) * ROWS
    lines = [f"{i},p{i},{i / 10},{i},{day}" for i in range(first, first + ROWS)]
    return "\n".join(["id,person,amount,pieces,day", *lines]) + "\n"


def files(stored: str) -> set[str]:
    log = tables.delta(stored)
    assert log is not None
    return set(log.file_uris())


def test_the_steps_of_a_day(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    day = Interval.parse("2020-01-02")
    monkeypatch.setattr("lakehouse.ops.compact", lambda _table: None)  # which comes with every 64th commit
    before = files(STORED)
    with counting() as land, reading_logs() as for_landing:
        source.land("2020-01-02")
    written = files(STORED) - before
    with counting() as judge, reading_logs() as for_gate:
        gate([TABLE], day)
    with counting() as publish, reading_logs() as for_release:
        release([TABLE], day)
    assert 1 <= len(written) <= len(os.sched_getaffinity(0))  # one for each task that writes
    assert land.jobs <= LANDING and 1 <= land.statements <= LANDING_ASKS, land
    assert 0 < land.bytes_written <= 2 * len(csv("2020-01-02")), land
    assert judge.jobs <= GATE and 1 <= judge.statements <= GATE_ASKS, judge
    assert publish.jobs <= RELEASE and 1 <= publish.statements <= RELEASE_ASKS, publish
    assert 1 <= max(for_landing.values()) <= LANDING_READS, for_landing
    assert 1 <= max(for_gate.values()) <= GATE_READS, for_gate
    assert 1 <= max(for_release.values()) <= RELEASE_READS, for_release


@pytest.mark.parametrize(("rows", "times"), [(4 * ROWS, 1), (5 * ROWS, 2)])
def test_landing_reads_a_file_once_and_a_large_one_twice(rows: int, times: int, source: Any) -> None:
    engine = process()
    assert engine is not None
    start = 2 * ROWS
    long = "0" * 2000
    lines = [f"{i},p{i}{long},{i / 10},{i},2020-01-02" for i in range(start, start + rows)]
    size = source.put("2020-01-02", "\n".join(["id,person,amount,pieces,day", *lines]) + "\n").stat().st_size
    before = engine.io_counters().read_chars
    source.land("2020-01-02")
    read = engine.io_counters().read_chars - before
    print(f"a file of {size} bytes: {read} were read")
    assert (size > LARGE_FILE) == (times == 2)
    assert times * size < read < (times + 0.5) * size


@pytest.mark.parametrize("many", [False, True])
def test_a_gate_of_twenty_rules_that_pass_takes_few_jobs(
    many: bool, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if many:
        monkeypatch.setattr("lakehouse.quality.uniqueness.MANY_ROWS", 0)
    assert len(TWENTY) == 20
    with counting() as found:
        result = check(STORED)
    assert not result.failures, result.summary()
    assert found.jobs <= GATE, found


def test_a_rule_that_is_a_query_is_asked_once(source: Any) -> None:
    with counting() as without:
        assert not check(STORED).failures
    query = {"unexpected_rows_query": "select * from {batch} where id < 0"}
    source.rules(*TWENTY, {"type": "unexpected_rows_expectation", "kwargs": query})
    with counting() as asked:
        assert not check(STORED).failures
    # GX gives the rows a name, parses its query, and counts: those that break the rule are never fetched.
    assert asked.statements - without.statements == 3, (without, asked)

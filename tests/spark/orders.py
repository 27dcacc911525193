"""A small table with a suite of its own, written by days as a step writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lakehouse import tables
from lakehouse.engine import spark, sql
from lakehouse.interval import Interval
from lakehouse.quality import suites
from lakehouse.releases.audit import gate
from lakehouse.releases.release import release
from lakehouse.steps import step

COLUMNS = {"day": "date", "id": "bigint", "carrier": "string", "amount": "double", "email": "string", "at": "timestamp"}
RULES: list[dict[str, Any]] = [
    {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "carrier", "value_set": ["UA", "B6"]}},
    {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "amount"}, "severity": "warning"},
]


@dataclass
class Orders:
    """The table; each test has its own."""

    table: str
    folder: Path

    @property
    def stored(self) -> str:
        return tables.next_table(self.table)

    @property
    def suite(self) -> Path:
        return suites.suite_path(self.table)

    def create(self) -> None:
        """Make it, empty, with two rules."""
        tables.create(self.stored, COLUMNS, ["day"])
        self.expect(RULES)

    def drop(self) -> None:
        """Take it away again."""
        sql(f"drop view if exists {self.table}").collect()
        sql(f"drop table if exists {self.stored}").collect()

    def expect(self, rules: list[dict[str, Any]], anomalies: list[dict[str, Any]] | None = None) -> None:
        """Write the suite."""
        content = {"name": self.table, "expectations": rules, "meta": {"anomalies": anomalies} if anomalies else {}}
        self.suite.parent.mkdir(exist_ok=True)
        self.suite.write_text(json.dumps(content, indent=2), "utf-8")

    def write(self, day: str, rows: int = 10, **columns: str) -> Interval:
        """Replace a day by rows that are good but for the columns that are given, as SQL over ``id``."""
        interval = Interval.parse(day)
        good = {
            "day": f"date '{interval.start}'",
            "id": "id",
            "carrier": "if(id % 2 = 0, 'UA', 'B6')",
            "amount": "cast(100 + id % 7 as double)",
            "email": "concat('person', id, '@example.com')",
            "at": f"timestamp '{interval.start} 23:00:00Z'",
        } | columns
        query = "select " + ", ".join(f"cast({e} as {COLUMNS[c]}) as {c}" for c, e in good.items())
        with step("test", self.table, interval, writes=self.stored) as run:
            tables.replace_interval(spark().sql(f"{query} from range({rows})"), self.stored, "day", interval, run)
        return interval

    def publish(self, day: str, rows: int = 10, **columns: str) -> int:
        """Write a day, gate it and release it."""
        interval = self.write(day, rows, **columns)
        gate([self.table], interval)
        return release([self.table], interval)


@pytest.fixture
def orders(engine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Orders]:
    """An empty table with two rules."""
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path)
    made = Orders(f"gold.orders_{tmp_path.name}", tmp_path)
    sql("create schema if not exists gold_next").collect()
    sql("create schema if not exists gold").collect()
    made.create()
    yield made
    made.drop()

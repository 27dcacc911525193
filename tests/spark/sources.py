"""A source that a test makes up: its contract, its suite, its drop folder."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lakehouse import contracts, dbt_project
from lakehouse.engine import spark
from lakehouse.interval import Interval
from lakehouse.quality import suites
from lakehouse.releases import release
from lakehouse.releases.audit import gate
from lakehouse.steps import job

FIRST = dt.date(2020, 1, 1)
COLUMNS = {
    "id": {"logicalType": "integer", "logicalTypeOptions": {"format": "i64"}, "primaryKey": True,
           "primaryKeyPosition": 1, "required": True},
    "person": {"logicalType": "string", "tags": ["pii"]},
    "amount": {"logicalType": "number"},
    "pieces": {"logicalType": "integer"},
    "day": {"logicalType": "date", "required": True},
}  # fmt: skip


def expect(kind: str, severity: str = "critical", **kwargs: Any) -> dict[str, Any]:
    return {"type": f"expect_{kind}", "kwargs": kwargs, "severity": severity}


UNIQUE = expect("column_values_to_be_unique", column="id", mostly=0.5)
BOUNDS = expect("column_values_to_be_between", column="amount", min_value=0, max_value=100, mostly=0.5)


@dataclass
class Source:
    """A source of a test.

    Attributes:
        name: Its name.
        folder: Where its files are dropped.
        suffix: How their names end.
    """

    name: str
    folder: Path
    suffix: str
    _home: Path = field(repr=False)

    def file(self, day: str) -> Path:
        return self.folder / f"{self.name}_{day}.{self.suffix}"

    def put(self, day: str, content: bytes | str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file(day).write_bytes(content.encode() if isinstance(content, str) else content)
        return self.file(day)

    def rules(self, *expectations: dict[str, Any]) -> None:
        suite = {"name": f"bronze.{self.name}", "expectations": list(expectations)}
        (self._home / "suites" / "bronze" / f"{self.name}.json").write_text(json.dumps(suite))

    def contract(self, drift: str = "reject", empty: bool = False, **columns: dict[str, Any] | None) -> None:
        """Write the contract; columns are changed, added, or left out where they are None."""
        declared = {k: v for k, v in (COLUMNS | columns).items() if v is not None}
        day = {"property": "frequency", "value": 1, "unit": "d", "scheduler": "cron", "schedule": "0 6 * * *"}
        document = {
            "apiVersion": "v3.1.0", "kind": "DataContract", "id": self.name, "name": self.name, "version": "1.0.0",
            "description": {"purpose": "A test."}, "team": {"name": "tests"},
            "servers": [{"server": "drop", "type": "local", "format": self.suffix.split(".")[0],
                         "path": f"{{drop}}/{self.name}/{self.name}_{{interval}}.{self.suffix}"}],
            "schema": [{"name": self.name, "dataGranularityDescription": "One.", "properties": [
                {"name": name, "classification": "internal", "description": name, **rest}
                for name, rest in declared.items()]}],
            "slaProperties": [{"property": "latency", "value": 0, "unit": "d"}, day,
                              {"property": "retention", "value": 1, "unit": "y"}],
            "customProperties": [{"property": "delivery", "value": "daily"},
                                 {"property": "historyStart", "value": FIRST.isoformat()},
                                 {"property": "allowEmpty", "value": empty},
                                 {"property": "schemaDrift", "value": drift}],
        }  # fmt: skip
        (self._home / "contracts" / f"{self.name}.yaml").write_text(yaml.safe_dump(document))
        contracts.load.cache_clear()

    def land(self, days: str) -> dict[str, Any]:
        return job("land")(self.name, Interval.parse(days))

    def replay(self, days: str, dry_run: bool = False) -> dict[str, Any]:
        return job("replay")(self.name, Interval.parse(days), dry_run)

    def publish(self, days: str) -> int:
        gate([f"bronze.{self.name}"], Interval.parse(days))
        return release.release([f"bronze.{self.name}"], Interval.parse(days))

    def rows(self, columns: str = "*", table: str | None = None) -> list[dict[str, Any]]:
        table = table or f"bronze_next.{self.name}"
        found = spark().sql(f"select {columns} from {table} order by _interval, _source_file, _source_row").collect()
        return [row.asDict() for row in found]

    def bad(self, columns: str = "_source_row, _reasons, _codes") -> list[dict[str, Any]]:
        return self.rows(columns, f"quarantine.{self.name}")


@pytest.fixture
def new_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a source: ``new_source("parcels", "csv")``."""
    from lakehouse.settings import settings

    # The models of the dbt project go on to read the project's own sources.
    dbt_project._write_sources()
    monkeypatch.setattr(dbt_project, "_write_sources", lambda: None)
    (tmp_path / "contracts").mkdir()
    (tmp_path / "suites" / "bronze").mkdir(parents=True)
    monkeypatch.setattr(contracts, "SOURCES_DIR", tmp_path / "contracts")
    monkeypatch.setattr(contracts, "SUITES_DIR", tmp_path / "suites" / "bronze")
    monkeypatch.setattr(suites, "SUITES_DIR", tmp_path / "suites")

    def make(name: str, suffix: str = "csv", drift: str = "reject", **columns: Any) -> Source:
        source = Source(name, Path(settings().drop_url) / name, suffix, tmp_path)
        source.rules(UNIQUE, BOUNDS)
        source.contract(drift, **columns)
        return source

    yield make
    contracts.load.cache_clear()

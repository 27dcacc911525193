"""Masking: which columns count as personal, and what is left of an error."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from lakehouse import contracts, masking, ops


@pytest.fixture(autouse=True)
def _people(monkeypatch: pytest.MonkeyPatch) -> None:
    """One source, of which one column is personal, and what is made of it."""
    contract = SimpleNamespace(columns=[SimpleNamespace(name="id"), SimpleNamespace(name="email")])
    monkeypatch.setattr(contracts, "sources", lambda: ["people"])
    monkeypatch.setattr(contracts, "load", lambda source: contract)
    monkeypatch.setattr(contracts, "personal_columns", lambda table: frozenset({"email"}))
    now, before = dt.datetime(2013, 1, 2, tzinfo=dt.UTC), dt.datetime(2013, 1, 1, tzinfo=dt.UTC)

    def edge(made: str, source: str, kind: str = "direct", at: dt.datetime = now) -> dict[str, Any]:
        table, _, column = made.rpartition(".")
        source_table, _, source_column = source.rpartition(".")
        return {
            "recorded_at": at, "table_name": table, "column_name": column, "source_table": source_table,
            "source_column": source_column, "kind": kind,
        }  # fmt: skip

    rows = [
        edge("bronze.people.email", "source.people.email"),
        edge("silver.stg.contact", "bronze.people.email"),
        edge("gold.customers.writes_to", "silver.stg.contact"),
        edge("gold.customers.number", "bronze.people.id"),
        edge("gold.customers.rank", "silver.stg.contact", "indirect"),
        edge("gold.customers.number", "bronze.people.email", at=before),
    ]
    schema = ops.SCHEMAS["ops.lineage_columns"]
    monkeypatch.setattr(ops, "read", lambda table: pa.Table.from_pylist(rows, schema=schema))


def test_what_is_made_from_a_personal_column_is_hidden_under_every_name() -> None:
    assert masking.hidden_columns("gold.customers", ["number"]) == {"email", "writes_to"}
    assert masking.hidden_columns("gold.others") == {"email"}


def test_a_column_that_nobody_has_classified_is_hidden() -> None:
    columns = ["id", "email", "phone", "_source_file"]
    assert masking.hidden_columns("bronze.people", columns) == {"email", "phone"}


def test_an_error_is_left_its_condition_and_no_value() -> None:
    error = (
        "(org.apache.spark) [CAST_INVALID_INPUT] The value 'Ann' of the type \"STRING\" cannot be cast. SQLSTATE: 22018"
    )
    assert masking.without_values(error).startswith("[CAST_INVALID_INPUT] (its text is not shown")
    assert "Ann" not in masking.without_values(error) + masking.without_values("Ann")

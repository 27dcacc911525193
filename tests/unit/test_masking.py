"""Masking: which columns count as personal, and what is left of an error."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from lakehouse import contracts, masking, ops, tables
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.quality import data_docs
from lakehouse.quality.gate import GateResult
from lakehouse.quality.suites import Suite

NOW, BEFORE = dt.datetime(2013, 1, 2, tzinfo=dt.UTC), dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


def edge(made: str, source: str, kind: str = "direct", at: dt.datetime = NOW) -> dict[str, Any]:
    table, _, column = made.rpartition(".")
    source_table, _, source_column = source.rpartition(".")
    return {
        "recorded_at": at, "table_name": table, "column_name": column, "source_table": source_table,
        "source_column": source_column, "kind": kind,
    }  # fmt: skip


LINEAGE = pa.Table.from_pylist(
    [
        edge("bronze.people.email", "source.people.email"),
        edge("silver.stg.contact", "bronze.people.email"),
        edge("gold.customers.writes_to", "silver.stg.contact"),
        edge("gold.customers.number", "bronze.people.id"),
        edge("gold.customers.rank", "silver.stg.contact", "indirect"),
        edge("gold.customers.number", "bronze.people.email", at=BEFORE),
    ],
    schema=ops.SCHEMAS["ops.lineage_columns"],
)


@pytest.fixture(autouse=True)
def _people(monkeypatch: pytest.MonkeyPatch) -> None:
    """One source, of which one column is personal, and what is made of it."""
    contract = SimpleNamespace(columns=[SimpleNamespace(name="id"), SimpleNamespace(name="email")])
    monkeypatch.setattr(contracts, "sources", lambda: ["people"])
    monkeypatch.setattr(contracts, "load", lambda source: contract)
    monkeypatch.setattr(contracts, "personal_columns", lambda table: frozenset({"email"}))
    monkeypatch.setattr(ops, "read", lambda table: LINEAGE)


def test_what_is_made_from_a_personal_column_is_hidden_under_every_name() -> None:
    assert masking.hidden_columns("gold.customers", ["number"]) == {"email", "writes_to"}
    assert masking.hidden_columns("gold.others") == {"email"}


def test_a_column_that_nobody_has_classified_is_hidden() -> None:
    columns = ["id", "email", "phone", "_source_file"]
    assert masking.hidden_columns("bronze.people", columns) == {"email", "phone"}


def test_while_a_contract_or_model_cannot_be_read_nothing_is_shown_that_may_be_personal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(source: str) -> Any:
        raise contracts.ContractError("line 7")

    monkeypatch.undo()
    monkeypatch.setattr(contracts, "sources", lambda: ["people"])
    monkeypatch.setattr(contracts, "load", load)
    monkeypatch.setattr(tables, "columns", {"bronze_next.people": frozenset({"id", "email", "_interval"})}.__getitem__)
    monkeypatch.setattr(ops, "read", lambda table: LINEAGE)
    assert masking.hidden_columns("bronze.people", ["id", "phone", "_interval"]) == {"id", "email", "phone"}
    assert masking.hidden_columns("gold.customers", ["number", "rank"]) == {"id", "email", "number", "writes_to"}
    monkeypatch.setattr(model_folders, "problems", lambda: {"loyalty": InvalidModelError("line 3")})
    assert masking.hidden_columns("ml.predictions_loyalty", ["number", "rank"]) >= {"number", "rank"}
    assert masking.hidden_columns("ml.predictions_churn", ["number", "rank"]) == {"id", "email"}


RULES: list[tuple[str, dict[str, Any]]] = [
    ("expect_column_values_to_match_regex", {"column": "email", "regex": "^n"}),
    ("expect_column_distinct_values_to_be_in_set", {"column": "email", "value_set": ["n"]}),
    ("expect_column_most_common_value_to_be_in_set", {"column": "email", "value_set": ["n"]}),
    ("expect_column_pair_values_to_be_equal", {"column_A": "carrier", "column_B": "email"}),
    ("expect_column_mean_to_be_between", {"column": "email", "min_value": 1}),  # an error that quotes it
    ("expect_column_values_to_be_in_set", {"column": "carrier", "value_set": ["n"]}),
    ("expect_table_columns_to_match_set", {"column_set": ["email", "x"]}),
]


def test_of_a_personal_column_a_verdict_and_its_page_have_the_counts_and_no_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import great_expectations as gx
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    frame = pd.DataFrame({"email": ["ann@example.com"] * 10, "carrier": ["ZZ"] * 10})
    asset = gx.get_context(mode="ephemeral").data_sources.add_pandas("p").add_dataframe_asset("a")
    batch = asset.add_batch_definition_whole_dataframe("b").get_batch({"dataframe": frame})
    rules = [ExpectationConfiguration(kind, kwargs).to_domain_obj() for kind, kwargs in RULES]
    found = batch.validate(gx.ExpectationSuite(name="bronze.people", expectations=rules))
    assert "example.com" in str(found)
    masking.hide(found, {"email"})
    monkeypatch.setattr(data_docs, "folder", lambda: tmp_path)
    found.meta = {"great_expectations_version": gx.__version__}
    suite = Suite("bronze.people", ())
    name = data_docs.write(GateResult("bronze_next.people", 1, suite, (), found), "run", dt.datetime.now(dt.UTC))
    page = (tmp_path / name).read_text("utf-8")
    assert "example.com" not in f"{found}{page}"
    assert "ZZ" in page and "error occurred" not in caplog.text and "KeyError" not in caplog.text
    by_kind = {r.expectation_config.type: r.result for r in found.results if r.expectation_config}
    assert by_kind["expect_column_values_to_match_regex"]["unexpected_count"] == 10
    assert by_kind["expect_table_columns_to_match_set"]["observed_value"] == ["carrier", "email"]


def test_an_error_is_left_its_condition_and_no_value() -> None:
    error = (
        "(org.apache.spark) [CAST_INVALID_INPUT] The value 'Ann' of the type \"STRING\" cannot be cast. SQLSTATE: 22018"
    )
    assert masking.without_values(error).startswith("[CAST_INVALID_INPUT] (its text is not shown")
    assert "Ann" not in masking.without_values(error) + masking.without_values("Ann")

"""Profiles, and the suites that are suggested from them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from lakehouse import contracts, ops, tables
from lakehouse.cli import command_line
from lakehouse.engine import sql
from lakehouse.quality import profiles, suites
from lakehouse.quality.gate import check
from lakehouse.quality.suggest import SuiteExistsError, suggest
from tests.spark.orders import Orders
from tests.spark.sources import new_source as new_source


def profile(orders: Orders, **which: int) -> dict[str | None, dict[str, object]]:
    profiles.profile(orders.table, **which)
    return {row["column_name"]: row for row in profiles.read(orders.table, profiles.resolve(orders.table, **which))}


def test_the_figures_are_those_of_pandas(orders: Orders) -> None:
    orders.publish("2013-01-01", 1000, amount="if(id % 10 = 0, null, id * 1.5)")
    frame = pd.DataFrame({"id": range(1000)})
    amount = (frame["id"] * 1.5).where(frame["id"] % 10 != 0)
    found = profile(orders)
    assert found[None]["row_count"] == 1000
    row = found["amount"]
    assert (row["null_count"], row["min"], row["max"]) == (100, "1.5", "1498.5")
    assert row["mean"] == pytest.approx(amount.mean())
    assert row["stddev"] == pytest.approx(amount.std())
    assert row["distinct_count"] == pytest.approx(900, rel=0.06)
    for share, value in row["quantiles"]:
        assert value == pytest.approx(amount.quantile(float(share)), abs=3)  # values are up to 3 apart
    assert sum(bin_["y"] for bin_ in row["histogram"]) == 900
    assert {top["value"]: top["count"] for top in found["carrier"]["top_values"]} == {"UA": 500, "B6": 500}
    assert (found["day"]["min"], found["at"]["max"]) == ("2013-01-01", "2013-01-01T23:00:00+00:00")


def test_a_version_is_profiled_once_and_sql_can_read_it(orders: Orders) -> None:
    orders.publish("2013-01-01")
    first = profile(orders)
    assert profile(orders) == first
    query = f"select version, row_count from ops.profiles where table_name = '{orders.table}' and column_name is null"
    assert [tuple(row) for row in sql(f"{query} and source = 'profile'").collect()] == [(1, 10)]


def test_each_release_and_each_version_has_its_profile(orders: Orders) -> None:
    first = orders.publish("2013-01-01")
    orders.publish("2013-01-02")
    orders.write("2013-01-03")
    head = tables.head(orders.stored)
    assert head is not None
    counts = [profile(orders, **which)[None]["row_count"] for which in ({"release_id": first}, {}, {"version": head})]
    assert counts == [10, 20, 30]
    with pytest.raises(LookupError, match="no version 99"):
        profile(orders, version=99)


def test_an_empty_table_has_a_profile(orders: Orders) -> None:
    found = profile(orders, version=0)
    assert (found[None]["row_count"], found["amount"]["null_count"], found["amount"]["mean"]) == (0, 0, None)


def test_no_value_of_a_personal_column_is_kept_or_shown(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "personal_columns", lambda table: frozenset({"email"}))
    orders.publish("2013-01-01")
    assert profile(orders)["email"]["distinct_count"] == 10
    page = profiles.profile(orders.table).read_text("utf-8")
    assert "Personal: its values are not shown" in page
    kept = [row for row in ops.read("ops.profiles").to_pylist() if row["table_name"] == orders.table]
    assert "example.com" not in f"{page}{kept}"


def test_no_value_of_a_column_is_kept_that_nobody_has_classified(new_source: Any) -> None:
    source = new_source("profile_new", drift="evolve")
    source.put("2020-01-05", "id,person,amount,pieces,day,phone\n1,Ann,5,1,2020-01-05,555-0100\n")
    source.land("2020-01-05")
    source.publish("2020-01-05")
    page = profiles.profile(f"bronze.{source.name}").read_text("utf-8")
    kept = {
        row["column_name"]: row for row in ops.read("ops.profiles").to_pylist() if row["table_name"].endswith("_new")
    }
    assert (kept["phone"]["max"], kept["person"]["max"], kept["amount"]["max"]) == (None, None, "5.0")
    assert "555-0100" not in f"{page}{kept}"


def test_the_page_escapes_what_it_shows_and_loads_nothing(orders: Orders) -> None:
    orders.expect([{"type": "expect_column_to_exist", "kwargs": {"column": "id"}}])
    orders.publish("2013-01-01", carrier="'<script>alert(1)</script>'")
    page = profiles.profile(orders.table).read_text("utf-8")
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "<rect" in page and "http" not in page


def test_a_suggested_suite_is_valid_and_passes_on_its_version(orders: Orders) -> None:
    orders.publish("2013-01-01", 200, amount="if(id % 4 = 0, null, id)")
    with pytest.raises(SuiteExistsError, match="--force"):
        suggest(orders.table)
    suggested = CliRunner().invoke(command_line(), ["suggest", orders.table, "--force"])
    assert suggested.exit_code == 0, suggested.output
    path = suites.suite_path(orders.table)
    lint = suites.lint(path, list(profile(orders))[1:])
    assert lint.problems == []
    result = check(orders.stored, 1, suite_name=orders.table)
    assert result.failures == []
    rules = {(e.type, *e.columns): e for e in result.suite.expectations}
    assert rules[("expect_column_values_to_be_in_set", "carrier")].kwargs["value_set"] == ["B6", "UA"]
    assert rules[("expect_column_values_to_not_be_null", "amount")].kwargs["mostly"] == 0.67
    assert ("expect_column_values_to_be_unique", "id") in rules
    assert ("expect_column_values_to_be_unique", "day") not in rules


def test_what_only_looks_unique_is_not_suggested(orders: Orders) -> None:
    orders.publish("2013-01-01", 400, id="if(id = 1, 0, id)")
    rules = {(e.type, *e.columns) for e in suites.read(suggest(orders.table, force=True)).expectations}
    assert ("expect_column_values_to_be_unique", "id") not in rules
    assert ("expect_column_values_to_be_unique", "email") in rules

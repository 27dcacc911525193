"""A table of a PostgreSQL database as a source, read over JDBC from a real server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import yaml

from lakehouse import contracts, readers
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.platform import postgres
from lakehouse.readers.batch import SourceError
from lakehouse.settings import settings
from tests.spark.sources import Source, expect
from tests.spark.sources import new_source as new_source

TABLE = """
create table {name} (
    id bigint primary key, person text, amount double precision, pieces int, day date not null,
    updated_at timestamptz, not_in_the_contract text default 'x'
)"""
VALUES = "id, person, amount, pieces"


@pytest.fixture(scope="module")
def shop(engine: None) -> Iterator[psycopg.Connection]:
    postgres.ensure_database("shop")
    with psycopg.connect(settings().postgres_url("shop"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def new_table(new_source: Any, shop: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Source]:
    """Makes a database table and its contract: ``new_table("orders", load="incremental", watermark="updated_at")``."""
    url = psycopg.conninfo.conninfo_to_dict(settings().postgres_url("shop"))
    for field in ("host", "port", "user", "password"):
        monkeypatch.setenv(f"SHOP_{field.upper()}", str(url[field]))

    def make(name: str, **reading: str) -> Source:
        shop.execute(TABLE.format(name=name))
        source: Source = new_source(name, updated_at={"logicalType": "timestamp"})
        path = contracts.SOURCES_DIR / f"{name}.yaml"
        document = yaml.safe_load(path.read_text())
        document["servers"] = [
            {
                "server": "shop",
                "type": "postgresql",
                "host": "${SHOP_HOST}",
                "port": "${SHOP_PORT}",
                "database": "shop",
                "schema": "public",
                "customProperties": [
                    {"property": "username", "value": "${SHOP_USER}"},
                    {"property": "password", "value": "${SHOP_PASSWORD}"},
                ],
            }
        ]
        document["customProperties"] = [
            each for each in document["customProperties"] if each["property"] != "schemaDrift"
        ] + [{"property": key, "value": value} for key, value in reading.items()]
        path.write_text(yaml.safe_dump(document))
        contracts.load.cache_clear()
        return source

    return make


def load(source: Source, days: str) -> dict[str, Any]:
    """Land and release: what is landed and not released makes way for the next landing."""
    outcome = source.land(days)
    source.publish(days)
    return outcome


def test_a_full_load_keeps_a_snapshot_of_each_day(new_table: Callable[..., Source], shop: psycopg.Connection) -> None:
    customers = new_table("customers", load="full")
    customers.rules(expect("compound_columns_to_be_unique", column_list=["id", "_interval"]))
    shop.execute(
        """insert into customers (id, person, amount, pieces, day, updated_at) values
        (1, 'Zoë "the quick", Ltd.', 0.1, null, '2020-01-02', '2020-01-02T23:30:00-05:00'),
        (2, null, null, 7, '2020-01-03', null)"""
    )
    outcome = load(customers, "2020-01-05")
    assert (outcome["rows_in"], outcome["rows_quarantined"]) == (2, 0)
    shop.execute("update customers set pieces = 8 where id = 2")
    shop.execute("insert into customers (id, amount, day) values (3, 99, '2020-01-06')")
    load(customers, "2020-01-06")
    columns = "_interval, id, person, amount, pieces, day, updated_at"
    first, second, *later = customers.rows(columns)
    assert first == {
        "_interval": dt.date(2020, 1, 5),
        "id": 1,
        "person": 'Zoë "the quick", Ltd.',
        "amount": 0.1,
        "pieces": None,
        "day": dt.date(2020, 1, 2),
        "updated_at": dt.datetime(2020, 1, 3, 4, 30),
    }
    assert second["pieces"] == 7
    assert [(row["_interval"].day, row["id"], row["pieces"]) for row in later] == [
        (6, 1, None),
        (6, 2, 8),
        (6, 3, None),
    ]
    with pytest.raises(SourceError, match="load it for one day"):
        customers.land("2020-01-05/2020-01-06")


def test_an_incremental_load_takes_the_watermarks_of_its_days(
    new_table: Callable[..., Source], shop: psycopg.Connection
) -> None:
    orders = new_table("orders", load="incremental", watermark="updated_at")
    shop.execute(
        """insert into orders (id, amount, day, updated_at) values
        (1, 1, '2020-01-04', '2020-01-04T23:59:59.999999Z'), (2, 2, '2020-01-05', '2020-01-05T00:00:00Z'),
        (3, 3, '2020-01-05', '2020-01-05T23:59:59.999999Z'), (4, 4, '2020-01-06', '2020-01-06T00:00:00Z'),
        (5, 5, '2020-01-05', null)"""
    )
    found = "_interval, id, amount"
    load(orders, "2020-01-06")
    load(orders, "2020-01-05")
    by_day = orders.rows(found)
    assert [(row["_interval"].day, row["id"]) for row in by_day] == [(5, 2), (5, 3), (6, 4)]
    load(orders, "2020-01-05/2020-01-06")
    assert orders.rows(found) == by_day

    shop.execute("update orders set amount = 30, updated_at = '2020-01-06T08:00:00Z' where id = 3")
    load(orders, "2020-01-05")
    load(orders, "2020-01-06")
    assert [(row["_interval"].day, row["id"], row["amount"]) for row in orders.rows(found)] == [
        (5, 2, 2.0), (6, 3, 30.0), (6, 4, 4.0),
    ]  # fmt: skip


def test_a_row_that_breaks_a_rule_goes_to_quarantine(
    new_table: Callable[..., Source], shop: psycopg.Connection
) -> None:
    payments = new_table("payments", load="full")
    shop.execute("insert into payments (id, amount, day) values (1, 5, '2020-01-05'), (2, 101, '2020-01-05')")
    outcome = payments.land("2020-01-05")
    assert (outcome["rows_in"], outcome["rows_out"], outcome["rows_quarantined"]) == (2, 1, 1)
    [bad] = payments.bad("_raw, _source_file, _reasons")
    assert '"amount":101.0' in bad["_raw"]
    assert bad["_source_file"].endswith("/shop/payments") or "payments" in bad["_source_file"]
    assert "amount" in bad["_reasons"][0]


def test_a_row_that_is_replayed_is_the_one_that_would_be_loaded(
    new_table: Callable[..., Source], shop: psycopg.Connection
) -> None:
    refunds = new_table("refunds", load="full")
    shop.execute("alter table refunds alter amount type real")
    shop.execute(
        """insert into refunds (id, amount, day, updated_at) values
        (1, 5.1, '2020-01-05', '2020-01-05T10:30:00.123456Z'), (2, 101.1, '2020-01-05', '2020-01-05T10:30:00.654321Z')
        """
    )
    assert load(refunds, "2020-01-05")["rows_quarantined"] == 1
    refunds.rules(expect("column_values_to_be_between", column="amount", max_value=1000, mostly=0.5))
    assert refunds.replay("2020-01-05")["rows_replayed"] == 1
    replayed = refunds.rows()
    assert replayed[1]["updated_at"].microsecond == 654321
    refunds.land("2020-01-05")
    assert refunds.rows() == replayed


def test_a_database_that_cannot_be_read_is_named(
    new_table: Callable[..., Source], shop: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoices = new_table("invoices", load="full")
    shop.execute("drop table invoices")
    with pytest.raises(LakeError, match=r"invoices.*does not exist"):
        invoices.land("2020-01-05")
    monkeypatch.setenv("SHOP_PASSWORD", "wrong")
    with pytest.raises(LakeError, match="password authentication failed") as refused:
        invoices.land("2020-01-05")
    assert "wrong" not in str(refused.value)
    monkeypatch.delenv("SHOP_PASSWORD")
    with pytest.raises(LakeError, match="SHOP_PASSWORD is not set"):
        readers.read(contracts.load("invoices"), Interval.parse("2020-01-05"))

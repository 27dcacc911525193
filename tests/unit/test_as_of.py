"""How the tables of a query are pinned: what is replaced, and what is left as it is."""

from __future__ import annotations

import pytest

from lakehouse.releases.as_of import AsOfError, rewrite

VERSIONS = {"gold.fct_flights": 17, "bronze.planes": 3}
VIEWS = {
    "silver.stg_planes": "select tail_number, seats from `bronze`.`planes`",
    "silver.twice": "select a.seats from silver.stg_planes a",
}


def pinned(query: str) -> str:
    return rewrite(query, VERSIONS, VIEWS.get)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select * from gold.fct_flights", "select * from gold_next.fct_flights version as of 17"),
        (
            "select f.carrier from `gold`.`fct_flights` f, bronze.planes",
            "select f.carrier from gold_next.fct_flights version as of 17 f, bronze_next.planes version as of 3",
        ),
        (
            "SELECT 'gold.fct_flights' -- gold.fct_flights\nFROM spark_catalog.GOLD.fct_flights /* x */ AS f",
            "SELECT 'gold.fct_flights' -- gold.fct_flights\nFROM gold_next.fct_flights version as of 17 /* x */ AS f",
        ),
        (
            "select gold.fct_flights.origin from gold.fct_flights",
            "select fct_flights.origin from gold_next.fct_flights version as of 17",
        ),
        (
            "with gold as (select 1 as x) select * from gold where exists (select 1 from bronze.planes)",
            "with gold as (select 1 as x) select * from gold "
            "where exists (select 1 from bronze_next.planes version as of 3)",
        ),
        (
            "select ü, p.seats from silver.stg_planes p join ops.runs using (x)",
            "select ü, p.seats from (select tail_number, seats from bronze_next.planes version as of 3) p "
            "join ops.runs using (x)",
        ),
        (
            "select twice.seats from silver.twice",
            "select twice.seats from (select a.seats from "
            "(select tail_number, seats from bronze_next.planes version as of 3) a) as twice",
        ),
        ("select 1 union all select 2", "select 1 union all select 2"),
    ],
)
def test_tables_are_pinned_and_the_rest_is_left_as_it_is(query: str, expected: str) -> None:
    assert pinned(query) == expected


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select * from gold.on_time_league", r"gold\.on_time_league was not released by then"),
        ("select * from gold_next.fct_flights", "was not released by then"),
        ("select * from silver_next.stg_planes", "was not released by then"),
        ("select * from gold.fct_flights version as of 3", "given a version by the query"),
        ("select * from silver.gone", r"silver\.gone is no view"),
        ("select * from other.gold.fct_flights", "another catalog"),
        ("drop table gold.fct_flights", "one query"),
        ("insert into gold.fct_flights select 1", "one query"),
        ("create table x as select * from gold.fct_flights", "one query"),
        ("select 1; select 2", "one query"),
        ("select 1\nfrom (gold.fct_flights", r"cannot be understood.*: line 2, column \d+: Expecting \)\.?$"),
        ("select 'x", "cannot be understood"),
        ("", "one query"),
    ],
)
def test_what_cannot_be_asked_of_the_past_is_refused(query: str, message: str) -> None:
    with pytest.raises(AsOfError, match=message):
        pinned(query)

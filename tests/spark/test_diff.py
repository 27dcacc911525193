"""What differs between two releases, counted without Spark, is what SQL says of the same two states."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner

from lakehouse import cli
from lakehouse.engine import sql
from lakehouse.releases.as_of import as_of
from lakehouse.releases.diff import diff
from tests.spark.sources import new_source as new_source

DAY, NEXT = "2020-01-05", "2020-01-06"
OF_THE_ROW = ["id", "person", "amount", "pieces", "day"]


def test_two_releases_of_a_source_differ_as_sql_says(new_source: Any) -> None:
    source = new_source("compared")
    table = f"bronze.{source.name}"

    def publish(day: str, *ids_and_amounts: tuple[int, int]) -> int:
        rows = "".join(f"{number},Ann,{amount},1,{day}\n" for number, amount in ids_and_amounts)
        source.put(day, "id,person,amount,pieces,day\n" + rows)
        source.land(day)
        return source.publish(day)

    def ids(release_id: int, other: int) -> set[int]:
        """Of the rows that only the first state has."""
        states = (as_of(f"select {', '.join(OF_THE_ROW)} from {table}", each) for each in (release_id, other))
        return {row["id"] for row in sql(" except all ".join(f"({state})" for state in states)).collect()}

    first = publish(DAY, (1, 10), (2, 20), (3, 30))
    publish(NEXT, (7, 70))
    last = publish(DAY, (2, 20), (3, 33), (4, 40), (5, 50))
    gone, come = ids(first, last), ids(last, first)
    assert (gone, come) == ({1, 3}, {3, 4, 5, 7})

    ignored = sorted(set(sql(f"select * from {table}").columns) - {*OF_THE_ROW})
    [found] = diff(first, last, table, ignored)
    assert (found.key, found.removed, found.added, found.changed) == (
        ("id",), len(gone - come), len(come - gone), len(gone & come),
    )  # fmt: skip
    [back] = diff(last, first, table, ignored)
    assert (back.removed, back.added, back.changed) == (found.added, found.removed, found.changed)
    arguments = ["diff", str(first), str(last), "--table", table, "--json", *(f"--ignore={name}" for name in ignored)]
    [said] = json.loads(CliRunner().invoke(cli.command_line(), arguments, catch_exceptions=False).stdout)
    assert (said["added"], said["removed"], said["changed"]) == (3, 1, 1)

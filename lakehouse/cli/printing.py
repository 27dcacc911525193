"""How the commands print what they have found: as tables, JSON, CSV or pages."""

from __future__ import annotations

import csv
import datetime as dt
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree


def print_rows(
    query: str, as_csv: bool = False, as_json: bool = False, limit: int = 100, release: int | None = None
) -> None:
    """Run a query and print its rows.

    Args:
        query: Spark SQL.
        as_csv: Print CSV.
        as_json: Print a JSON array of objects.
        limit: Rows of a table that are printed at most; 0 prints all.
        release: Read every table as it was right after this release.
    """
    from lakehouse.engine import spark
    from lakehouse.releases.as_of import as_of

    if release is not None:
        query = as_of(query, release)
    result = spark().sql(query)
    names = result.columns
    complete = as_csv or as_json or limit == 0
    rows = [dict(zip(names, row, strict=True)) for row in (result if complete else result.limit(limit + 1)).collect()]
    if as_json:
        print(_json(rows))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(map(_cell, row.values()) for row in rows)
    else:
        print_table(names, rows if limit == 0 else rows[:limit])
        if limit and len(rows) > limit:
            print(f"Only the first {limit} rows are shown: use --limit, or --csv for all.", file=sys.stderr)


def print_table(names: list[str], rows: list[dict[str, Any]]) -> None:
    """Print a table; in full where the output is not a terminal."""
    table = Table()
    # As text, since what stands in brackets would be taken for a style.
    for name in names:
        table.add_column(Text(name), overflow="fold")  # a name that does not fit goes on in the next line
    for row in rows:
        table.add_row(*(Text("" if row[name] is None else str(row[name])) for name in names))
    console().print(table)


def show(
    facts: dict[str, Any], tree: Tree, page: Callable[[dict[str, Any]], str], as_json: bool, html: Path | None
) -> None:
    """Print facts as a tree or as JSON, or write a page of them and print where it is."""
    if html is not None:
        from lakehouse import pages

        try:
            pages.write(html, page(facts))
        except OSError as error:
            raise typer.BadParameter(f"{html} cannot be written: {error.strerror}.") from error
        print(html)
    elif as_json:
        print(_json(facts))
    else:
        console().print(tree, highlight=False)


def console() -> Console:
    """Where to print: piped into another program, nothing is cut to the width of a terminal that is not there."""
    return Console() if sys.stdout.isatty() else Console(width=10_000)


def report(outcome: dict[str, Any]) -> None:
    """Print what a step has done, as one line of JSON."""
    print(json.dumps(outcome, default=str))


def _json(value: Any) -> str:
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value of a query as JSON can have it: bytes as hexadecimal digits, NaN and infinity as null."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if hasattr(value, "asDict"):  # a row of Spark, which is a tuple too
        value = value.asDict()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    # What numpy has for a number is one; decimals and intervals keep their digits as text.
    return value.item() if hasattr(value, "item") else str(value)


def _cell(value: Any) -> Any:
    """A value of a query in a cell of CSV, which can tell NaN from nothing."""
    if isinstance(value, float):
        return value
    plain = _plain(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, dict | list) else plain

"""Queries on the lake as it was right after a release: every table at the version that readers saw then.

A query's names of released tables are replaced by those of the stored tables with their versions; the rest of its text
is left as it is. The views of dbt hold no rows: they are replaced by the query that was released, treated likewise.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from lakehouse import tables
from lakehouse.errors import LakeError
from lakehouse.release_log import released, views

CATALOG = "spark_catalog"
UNRELEASED = {*tables.GATED_LAYERS, *(f"{layer}_next" for layer in (*tables.GATED_LAYERS, tables.VIEW_LAYER))}
"""Schemas of which nothing but what was released then can be read."""

EVIDENCE = ("ops", "quarantine")
"""Schemas that no release pins: what happened is read as it is now."""


class AsOfError(LakeError):
    """A query cannot be asked of a past release."""


def as_of(query: str, release_id: int) -> str:
    """The query, on the state of the lake right after a release.

    Args:
        query: One query in Spark SQL.
        release_id: The release.

    Raises:
        AsOfError: It is no query, it cannot be understood, or it names something that was not released by then.
        lakehouse.release_log.UnknownReleaseError: There is no such release.
    """
    versions = {table: state.version for table, state in released(release_id).items()}
    then, now = views(release_id), views()

    def view(name: str) -> str | None:
        if name in now and name not in then:
            raise AsOfError(f"{name} was not released by then. `lake releases {name}` lists what it showed since.")
        return then.get(name) or view_text(name)

    return rewrite(query, versions, view)


def rewrite(query: str, versions: dict[str, int], view: Callable[[str], str | None]) -> str:
    """Replace the names of released tables in a query.

    Args:
        query: One query in Spark SQL.
        versions: Released table to version.
        view: Gives the query of a view that is not itself released, or None for what is no view.
    """
    tree = _parse(query)
    edits: list[tuple[int, int, str]] = []
    for table in tree.find_all(exp.Table):
        name = f"{table.db}.{table.name}".lower()
        if not table.db or table.db.lower() in EVIDENCE:
            continue
        if table.catalog and table.catalog.lower() != CATALOG:
            raise AsOfError(f"{table.sql('spark')} is of another catalog, whose state then is not known.")
        if name in versions:
            if table.args.get("version"):
                raise AsOfError(f"{name} is given a version by the query, and another one by --release.")
            text = f"{tables.next_table(name)} version as of {versions[name]}"
        elif table.db.lower() in UNRELEASED:
            raise AsOfError(
                f"{name} was not released by then. Released tables: {', '.join(sorted(versions)) or 'none yet'}."
            )
        else:
            definition = view(name)
            if definition is None:
                raise AsOfError(f"{name} is no view, and no release pins it: it cannot be read as it was.")
            alias = "" if table.alias else f" as {table.name}"
            text = f"({rewrite(definition, versions, view)}){alias}"
        edits.append((*_span(table.parts), text))
    for column in tree.find_all(exp.Column):
        # With the version behind its name, a table is known by its last part alone.
        if column.args.get("db"):
            edits.append((*_span(column.parts[:-1]), column.table))
    for start, end, text in sorted(edits, reverse=True):
        query = query[:start] + text + query[end + 1 :]
    return query


def view_text(name: str) -> str | None:
    """The query of a view of the engine, or None when there is no such view.

    Args:
        name: ``schema.view``.
    """
    from lakehouse.engine import spark, sql

    if not spark().catalog.tableExists(name):
        return None
    facts = {row["col_name"]: row["data_type"] for row in sql(f"describe table extended {name}").collect()}
    return facts.get("View Text")


def _parse(query: str) -> exp.Query:
    try:
        trees = [tree for tree in sqlglot.parse(query, read="spark") if tree]
    except SqlglotError as error:
        raise AsOfError(f"The query cannot be understood, so its tables cannot be pinned: {_where(error)}") from error
    if len(trees) != 1 or not isinstance(trees[0], exp.Query):
        raise AsOfError("A past release can be asked one query (select …), and nothing else.")
    return trees[0]


def _where(error: SqlglotError) -> str:
    """What the parser says, without the colours in which it shows the query."""
    found = getattr(error, "errors", None)
    if not found:
        return str(error)
    return f"line {found[0]['line']}, column {found[0]['col']}: {found[0]['description']}"


def _span(parts: list[exp.Expr]) -> tuple[int, int]:
    """Where the first of some identifiers begins and the last one ends in the query's text."""
    return parts[0].meta["start"], parts[-1].meta["end"]

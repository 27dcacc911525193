"""The views that hold no rows: as dbt builds them, as they are released, and as readers find them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter

from lakehouse import release_log, tables
from lakehouse.engine import sql
from lakehouse.releases import unreleased

_QUERY = re.compile(r"^View Text: (.*?)\nView Original Text: ", re.MULTILINE | re.DOTALL)


def built() -> dict[str, str]:
    """The views that hold no rows as dbt has built them last, by the names that readers use, and reading those."""
    layer = tables.VIEW_LAYER
    return {f"{layer}.{name}": _renamed(query, layer) for name, query in queries(f"{layer}_next").items()}


def due_with(names: Iterable[str], state: Mapping[str, release_log.Released] | None = None) -> dict[str, str]:
    """The queries that views without rows get with the release of some tables: those that dbt has built last.

    There are none while other tables of the warehouse wait for their release: they were built from these queries too,
    and have not passed.

    Args:
        names: Tables by the name that readers use.
        state: What is released, if that has been read.
    """
    if not tables.of_warehouse(names):
        return {}
    from lakehouse import dbt_project

    state = release_log.released() if state is None else state
    waiting = any(unreleased.pending(table, state) for table in dbt_project.stored_models() if table not in names)
    return {} if waiting else built()


def withdraw() -> list[str]:
    """Have dbt's views as they are released: what a build has made of them that was not released is of no use any more.

    Whoever calls this keeps other builds out.

    Returns:
        The views that were brought back, and those that were dropped, since none of that name is released.
    """
    return show(f"{tables.VIEW_LAYER}_next", others=False)


def outdated() -> list[str]:
    """The views that hold no rows and do not have the query that is released."""
    layer = tables.VIEW_LAYER
    shown = queries(layer)
    return sorted(f"{layer}.{name}" for name, query in _released_as(layer).items() if shown.get(name) != query)


def show(schema: str = tables.VIEW_LAYER, others: bool = True) -> list[str]:
    """Give the views that hold no rows the queries that are released, where they have others.

    Args:
        schema: That of the views that readers use, or of those that dbt makes.
        others: Whether views may stay of which no query is released.

    Returns:
        The views that had another one, and those that were dropped.
    """
    shown = queries(schema)
    released_as = _released_as(schema)
    reads = {name: re.findall(rf"\b{schema}\.(\w+)", query) for name, query in released_as.items()}
    ordered = [name for name in TopologicalSorter(reads).static_order() if name in released_as]
    outdated = [name for name in ordered if shown.get(name) != released_as[name]]
    for name in outdated:
        verb = "alter" if name in shown else "create"
        sql(f"{verb} view {schema}.{name} as {released_as[name]}").collect()
    dropped = [] if others else sorted(shown.keys() - released_as.keys())
    for name in dropped:
        sql(f"drop view {schema}.{name}").collect()
    return [f"{schema}.{name}" for name in outdated + dropped]


def queries(schema: str) -> dict[str, str]:
    """The query of each view of a schema, by its name without the schema."""
    rows = sql(f"show table extended in {schema} like '*'").collect()
    return {row["tableName"]: match[1] for row in rows if (match := _QUERY.search(row["information"]))}


def _released_as(schema: str) -> dict[str, str]:
    """The queries that are released, as views of a schema have them, by the name without the schema."""
    return {tables.split(name)[1]: _renamed(query, schema) for name, query in release_log.views().items()}


def _renamed(query: str, schema: str) -> str:
    """A query that reads the views without rows in one schema, and not in the other."""
    return re.sub(rf"\b{tables.VIEW_LAYER}(_next)?\.", f"{schema}.", query)

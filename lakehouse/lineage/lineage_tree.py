"""The lineage of a table or column as a tree to read, and as plain data."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from lakehouse.lineage import column_lineage
from lakehouse.lineage.column_lineage import Edge
from lakehouse.ml import model_folders

_Neighbours = dict[str, dict[str, set[str]]]
_SHOWN_ABOVE = " [dim](as above)[/dim]"


def facts(name: str, *, up: bool, down: bool) -> dict[str, Any]:
    """The lineage as data for JSON.

    Args:
        name: ``layer.table`` or ``layer.table.column``.
        up: With the edges back to the sources.
        down: With the edges on to the predictions.

    Raises:
        lakehouse.tables.UnknownColumnError: There is no such table or column.
    """
    start = column_lineage.resolve(name)
    table = start[0][0]
    found: dict[str, Any] = {"name": name}
    if up:
        edges = column_lineage.upstream(name)
        found["upstream"] = [asdict(edge) for edge in edges]
        found["conditions"] = [asdict(each) for each in column_lineage.conditions() if each.table == table]
        found["labels"] = [asdict(each) for each in _labels_of(start, edges)]
    if down:
        edges = column_lineage.downstream(name)
        found["downstream"] = [asdict(edge) for edge in edges]
        found["decides_about"] = [
            asdict(each) for each in column_lineage.conditions() if (each.source_table, each.source_column) in start
        ]
        found["label_of"] = [asdict(each) for each in _taught_by(start, edges)]
    return found


def tree(name: str, *, up: bool, down: bool) -> Tree:
    """The lineage as a tree: of tables for a table, of columns for a column.

    Args:
        name: ``layer.table`` or ``layer.table.column``.
        up: With a branch back to the sources.
        down: With a branch on to the predictions.

    Raises:
        lakehouse.tables.UnknownColumnError: There is no such table or column.
    """
    start = column_lineage.resolve(name)
    # A table is also made from one that only decides about its rows.
    of_columns = name.count(".") == 2
    root = Tree(f"[bold]{escape(name)}[/bold]")
    if up:
        branch = root.add("made from")
        neighbours = _neighbours(
            column_lineage.upstream(name, with_conditions=not of_columns), _made, _source, of_columns
        )
        if not neighbours.get(name):
            delivered = "nothing here: it is what the upstream delivers"
            made = "no column: it counts rows, is a constant, or is made by the platform"
            branch.add(f"[dim]{delivered if name.startswith('source.') else made}[/dim]")
        _grow(branch, name, neighbours, set())
        rows = _conditions(start[0][0])
        if rows:
            branch = root.add("its rows decided by")
            for (transformation, source), names in rows.items():
                branch.add(f"{escape(source)}: {escape(', '.join(names))} [dim]{transformation}[/dim]")
        if labels := _labels_of(start, column_lineage.upstream(name)):
            branch = root.add("learnt from")
            for label in labels:
                branch.add(f"{escape(f'{label.table}.{label.column}')} [dim]label of {label.model}[/dim]")
    if down:
        branch = root.add("goes into")
        neighbours = _neighbours(
            column_lineage.downstream(name, with_conditions=not of_columns), _source, _made, of_columns
        )
        if not neighbours.get(name):
            branch.add("[dim]nothing[/dim]")
        _grow(branch, name, neighbours, set())
        decided = _decided(*start[0]) if of_columns else {}
        if decided:
            branch = root.add("decides about the rows of")
            for table, ways in decided.items():
                branch.add(f"{escape(table)} [dim]{', '.join(ways)}[/dim]")
        if labels := _taught_by(start, column_lineage.downstream(name)):
            branch = root.add("teaches")
            for label in labels:
                branch.add(f"{label.model} [dim]by its label {escape(f'{label.table}.{label.column}')}[/dim]")
    return root


@dataclass(frozen=True)
class Label:
    """What a model learns to say: no score is computed from it, but none would be without it.

    Attributes:
        model: As ``models.NAME``.
        table: Of its label.
        column: Of its label.
    """

    model: str
    table: str
    column: str


def _labels() -> list[Label]:
    return [Label(f"models.{spec.name}", spec.label.table, spec.label.column) for spec in model_folders.readable()]


def _labels_of(start: list[tuple[str, str]], edges: list[Edge]) -> list[Label]:
    """The labels of the models that some columns are, or that they are made by."""
    models = {table for table, _ in start} | {edge.source_table for edge in edges}
    return [label for label in _labels() if label.model in models]


def _taught_by(start: list[tuple[str, str]], edges: list[Edge]) -> list[Label]:
    """The labels that some columns are, or that are made from them."""
    columns = {*start, *((edge.table, edge.column) for edge in edges)}
    return [label for label in _labels() if (label.table, label.column) in columns]


def _made(edge: Edge) -> tuple[str, str]:
    return edge.table, edge.column


def _source(edge: Edge) -> tuple[str, str]:
    return edge.source_table, edge.source_column


def _neighbours(
    edges: list[Edge],
    here: Callable[[Edge], tuple[str, str]],
    there: Callable[[Edge], tuple[str, str]],
    of_columns: bool,
) -> _Neighbours:
    """Name to the names one step further, each with the ways that lead there."""
    found: _Neighbours = defaultdict(lambda: defaultdict(set))
    for edge in edges:
        if of_columns:
            found[".".join(here(edge))][".".join(there(edge))].add(edge.transformation)
        elif here(edge)[0] != there(edge)[0]:
            found[here(edge)[0]][there(edge)[0]] = set()
    return found


def _grow(branch: Tree, name: str, neighbours: _Neighbours, shown: set[str]) -> None:
    for further, ways in sorted(neighbours.get(name, {}).items()):
        again = further in shown and bool(neighbours.get(further))
        way = f" [dim]{', '.join(sorted(ways))}[/dim]" if ways else ""
        twig = branch.add(f"{escape(further)}{way}{_SHOWN_ABOVE if again else ''}")
        if not again:
            shown.add(further)
            _grow(twig, further, neighbours, shown)


def _decided(table: str, column: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for each in column_lineage.conditions():
        if (each.source_table, each.source_column) == (table, column):
            found[each.table].append(each.transformation)
    return {name: sorted(set(ways)) for name, ways in sorted(found.items())}


def _conditions(table: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for each in column_lineage.conditions():
        if each.table == table:
            found[each.transformation, each.source_table].append(each.source_column)
    return dict(sorted(found.items()))

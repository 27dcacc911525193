"""The days of a table's rows: by which column, in which files, and how they hang together with those of its inputs.

A row of a source belongs to the day that it was delivered for, a prediction to that of its features. Of a table of dbt
the properties of its model say it:
``writes_days`` are the first and last day that a build replaces, relative to the first and last day of the build, and
``rewrites_days`` those that it replaces where they were there before, relative to the last day of the build;
``reads_days`` gives, by input, the first and last day that a row is made from, relative to the row's day. An input
that is not named there is read whole.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lakehouse import contracts, dbt_project, tables
from lakehouse.data_files import data_files
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec

Days = frozenset[dt.date] | None
"""Days of a table's rows; None for the whole of a table whose rows have no day."""

Span = tuple[int, int]


@dataclass(frozen=True)
class Shape:
    """How the days of a table hang together.

    Attributes:
        writes: First and last day that a write replaces, relative to its interval; None replaces the whole table.
        rewrites: First and last of the further days that it replaces where they were there before, relative to the end.
        reads: Input to the first and last day that a row is made from, relative to its own; None reads all of it.
    """

    writes: Span | None = None
    rewrites: Span | None = None
    reads: Mapping[str, Span | None] = field(default_factory=dict)


def shape(table: str) -> Shape:
    """How the days of a table hang together, by its contract, dbt model or ML model.

    Args:
        table: Name that readers use.
    """
    layer = tables.split(table)[0]
    if layer == "bronze":  # also of a source without a contract, by now; a replay adds to the rows that were landed
        return Shape((0, 0), reads={table: (0, 0)})
    if layer == "gold" and (meta := dbt_project.meta(table)) is not None:
        writes = meta.get("writes_days", (0, 0) if meta.get("interval_column") else None)
        rewrites = meta.get("rewrites_days")
        return Shape(
            writes and (writes[0], writes[1]),
            rewrites and (rewrites[0], rewrites[1]),
            _days_read(table, meta.get("reads_days", {})),
        )
    if spec := specs().get(table):
        return Shape((0, 0), reads={spec.features.table: (0, 0)})
    return Shape()


def _days_read(table: str, declared: Mapping[str, Sequence[int]]) -> dict[str, Span | None]:
    """The days of each released table that a row of a dbt model is made from, by whatever name its query reads it."""
    found: dict[str, Span | None] = {}
    for name in dbt_project.named(table):
        span = (declared[name][0], declared[name][1]) if name in declared else None
        for source in dbt_project.stored_inputs(name):
            before = found.get(source, span)
            found[source] = span and before and (min(span[0], before[0]), max(span[1], before[1]))
    return found


def interval_column(table: str) -> str | None:
    """The DATE column that tells which day a row belongs to; None for a table that is replaced whole.

    Args:
        table: Name that readers use.
    """
    layer, name = tables.split(table)
    if layer == "bronze" and name in contracts.sources():
        return "_interval"
    if layer == "gold" and (meta := dbt_project.meta(table)) is not None:
        found: str | None = meta.get("interval_column")
        return found
    spec = specs().get(table)
    return spec.features.interval_column if spec else None


def held(table: str, version: int) -> list[Interval] | None:
    """The days between which each data file of a version holds rows, by the Delta log.

    Args:
        table: Name that readers use.
        version: A version that it has.

    Returns:
        None where the log does not say, or the rows have no day.
    """
    if (column := interval_column(table)) is None:
        return None
    found = []
    for file in data_files(tables.next_table(table), column, version):
        if file.rows == 0:
            continue
        if file.first is None or file.last is None:
            return None
        found.append(Interval(file.first, file.last))
    return found


def specs() -> dict[str, ModelSpec]:
    """Table of predictions to the model that makes them, those that readers do not see among them."""
    return {
        table: spec
        for spec in model_folders.readable()
        for table in (spec.predictions_table, spec.shadow_table, spec.what_if_table)
    }


def days_of(first: dt.date, last: dt.date) -> frozenset[dt.date]:
    """All days from a first to a last one.

    Args:
        first: The first day.
        last: The last day, included.
    """
    return frozenset(first + dt.timedelta(number) for number in range((last - first).days + 1))

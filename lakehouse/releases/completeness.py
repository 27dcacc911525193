"""Completeness: predictions of exactly the entities that were due, as a rule of their gate.

A scoring says in its commit which version of the features it was about. What is there and what was due is compared by
Great Expectations, with a query for the rows that are only on one side.
"""

from __future__ import annotations

import datetime as dt

from lakehouse import tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.quality.expectation import Expectation
from lakehouse.release_log import released

LABEL = "complete"


def rules(table: str) -> tuple[Expectation, ...]:
    """What the gate has to ask of a table of predictions besides its suite; of any other table nothing.

    Args:
        table: The table, as readers name it.
    """
    spec = model_folders.of_predictions(table)
    if spec is None:
        return ()
    state = released().get(table)
    found: list[Expectation] = []
    taken: set[dt.date] = set()
    stored = tables.next_table(table)
    made = f"{stored} version as of {tables.head(stored)}"
    for commit in tables.lineage(stored, since=state.version if state else 0):
        if "due" not in commit:
            continue
        days = set(Interval.parse(commit["interval"]).days()) - taken
        taken |= days
        if days:
            found.append(_rule(spec, commit["due"]["table"], int(commit["due"]["version"]), made, sorted(days)))
    return tuple(found)


def _rule(spec: ModelSpec, source: str, version: int, made: str, days: list[dt.date]) -> Expectation:
    column = spec.features.interval_column
    keys = ", ".join(f"`{name}`" for name in [*spec.features.entity_key, column])
    within = f"`{column}` in ({', '.join(f'date{str(day)!r}' for day in days)})"
    # GX wants its {batch} to be in a query: a view of one name for all tables, which are judged side by side. So the
    # query names the version itself.
    query = (
        "/* {batch} */ "
        f"select * from (select {keys}, true as due from {tables.next_table(source)} version as of {version} "
        f"where {within}) full outer join (select {keys}, true as made from {made} where {within}) using ({keys}) "
        "where due is null or made is null"
    )
    meta = {"label": f"{LABEL}: the entities of {source} version {version}, {days[0]} to {days[-1]}, and no other"}
    return Expectation("unexpected_rows_expectation", {"unexpected_rows_query": query}, "critical", meta)

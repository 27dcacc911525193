"""Counts in fixed bins: what :mod:`lakehouse.monitoring.drift` compares.

The bins are made once, from the rows in memory that a model was trained on. The rows of later days are counted on the
engine: one pass, and one small row comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from lakehouse.monitoring.drift import CATEGORICAL, NUMERIC, Bins

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

NAMES = 30
"""So many of the most frequent names have a bin of their own."""


def of_numbers(values: pd.Series[Any], bins: int) -> Bins:
    """Bins of a number, without counts: quantiles, fewer where many rows have one value.

    Args:
        values: Numbers or booleans; one that is missing is left out.
        bins: How many.
    """
    import numpy as np

    known = _floats(values)
    known = known[~np.isnan(known)]
    edges = np.unique(np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")) if len(known) else ()
    return Bins(NUMERIC, edges=tuple(map(float, edges)))


def of_names(values: pd.Series[Any]) -> Bins:
    """Bins of a name, without counts: the most frequent ones.

    Args:
        values: Names; one that is missing is left out.
    """
    counts = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return Bins(CATEGORICAL, values=tuple(sorted(map(str, counts.index[:NAMES]))))


def count_in_memory(rows: pd.DataFrame, bins: Mapping[str, Bins]) -> dict[str, Bins]:
    """The same bins with the counts of some rows.

    Args:
        rows: With all of the columns.
        bins: Column to its bins.
    """
    import numpy as np

    found = {}
    for name, each in bins.items():
        if each.kind == NUMERIC:
            values = _floats(rows[name])
            known = values[~np.isnan(values)]
            place = np.searchsorted(each.edges, known, side="left")
            counts = np.bincount(place, minlength=len(each.edges) + 1)
        else:
            known = rows[name].dropna()
            places = {value: n for n, value in enumerate(each.values)}
            place = known.map(str).map(places).fillna(len(each.values)).to_numpy("int64")
            counts = np.bincount(place, minlength=len(each.values) + 1)
        found[name] = replace(each, counts=tuple(map(int, counts)), nulls=len(rows) - len(known))
    return found


def count(
    frame: DataFrame, bins: Mapping[str, Bins], also: Sequence[str] = ()
) -> tuple[dict[str, Bins], tuple[Any, ...]]:
    """The same bins with the counts of some rows on the engine.

    Args:
        frame: The rows, with all of the columns.
        bins: Column to its bins.
        also: Further aggregates of the rows, in SQL, for the same pass.

    Returns:
        Column to its bins with their counts; and the values of the further aggregates.
    """
    from pyspark.sql import functions as F

    asked = [F.count_if(F.expr("true")).alias("rows")]
    for place, (name, each) in enumerate(bins.items()):
        asked += [F.expr(f"count_if({cond})").alias(f"{place}.{n}") for n, cond in enumerate(_conditions(name, each))]
    [row] = frame.agg(*asked, *(F.expr(each).alias(f"also.{n}") for n, each in enumerate(also))).collect()
    found = {}
    for place, (name, each) in enumerate(bins.items()):
        nulls, *counted = [row[f"{place}.{n}"] for n in range(1 + len(each.edges) + len(each.values))]
        known = row["rows"] - nulls
        if each.kind == NUMERIC:
            below = [0, *counted, known]
            counts = tuple(b - a for a, b in pairwise(below))
        else:
            counts = (*counted, known - sum(counted))
        found[name] = replace(each, counts=counts, nulls=nulls)
    return found, tuple(row[f"also.{n}"] for n in range(len(also)))


def no_value(name: str, bins: Bins) -> str:
    """The condition that a row has no value, in SQL.

    Args:
        name: Its column.
        bins: The bins of the column.
    """
    return next(_conditions(name, bins))


def _conditions(name: str, bins: Bins) -> Iterator[str]:
    """First that there is no value; then, of numbers, that it is at most an edge, and of names, that it is that one."""
    if bins.kind == NUMERIC:
        number = _number(name)
        yield f"{number} is null"
        yield from (f"{number} <= {edge!r}D" for edge in bins.edges)
    else:
        yield f"`{name}` is null"
        yield from (f"`{name}` = {_literal(value)}" for value in bins.values)


def _floats(values: pd.Series[Any]) -> Any:
    import numpy as np
    import pandas as pd

    return pd.to_numeric(values).to_numpy("float64", na_value=np.nan)


def _number(name: str) -> str:
    # Not a number is no value, as it is to the models; nor is text, in a column that has become one of text.
    return f"nanvl(try_cast(`{name}` as double), null)"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

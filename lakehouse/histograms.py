"""Counts in fixed bins, on the engine: one pass over the rows, and one small row comes back.

What :mod:`lakehouse.drift` compares. The bins are made once, from a training snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from lakehouse.drift import CATEGORICAL, NUMERIC, Bins

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

NAMES = 30
"""So many of the most frequent names have a bin of their own."""


def layout(frame: DataFrame, numeric: Sequence[str], categorical: Sequence[str], bins: int) -> dict[str, Bins]:
    """Bins for columns, without counts: quantiles of numbers, the most frequent names.

    Args:
        frame: The rows that the bins are made for.
        numeric: Columns of numbers or booleans.
        categorical: Columns of names.
        bins: Bins of a number; fewer where many rows have one value.
    """
    from pyspark.sql import functions as F

    shares = [place / bins for place in range(1, bins)]
    found: dict[str, Bins] = {}
    if numeric:
        asked = [F.percentile_approx(F.expr(_number(name)), shares).alias(name) for name in numeric]
        edges = frame.agg(*asked).collect()[0].asDict()
        found |= {name: Bins(NUMERIC, edges=tuple(sorted(set(edges[name] or ())))) for name in numeric}
    for name in categorical:
        known = frame.where(F.col(name).isNotNull()).groupBy(name).count().orderBy(F.desc("count"), name).limit(NAMES)
        found[name] = Bins(CATEGORICAL, values=tuple(sorted(str(row[0]) for row in known.collect())))
    return found


def count(frame: DataFrame, bins: Mapping[str, Bins]) -> dict[str, Bins]:
    """The same bins with the counts of some rows.

    Args:
        frame: The rows, with all of the columns.
        bins: Column to its bins.
    """
    from pyspark.sql import functions as F

    asked = [F.count_if(F.expr("true")).alias("rows")]
    for place, (name, each) in enumerate(bins.items()):
        asked += [F.expr(f"count_if({cond})").alias(f"{place}.{n}") for n, cond in enumerate(_conditions(name, each))]
    row = frame.agg(*asked).collect()[0].asDict()
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
    return found


def _conditions(name: str, bins: Bins) -> Iterator[str]:
    """First that there is no value; then, of numbers, that it is at most an edge, and of names, that it is that one."""
    if bins.kind == NUMERIC:
        number = _number(name)
        yield f"{number} is null"
        yield from (f"{number} <= {edge!r}D" for edge in bins.edges)
    else:
        yield f"`{name}` is null"
        yield from (f"`{name}` = {_literal(value)}" for value in bins.values)


def _number(name: str) -> str:
    # Not a number is no value, as it is to the models.
    return f"nanvl(cast(`{name}` as double), null)"


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

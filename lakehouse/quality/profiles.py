"""Profiles: what is in each column of one version of a table, kept in ``ops.profiles`` and shown as a page.

All of it comes from one query with Spark's own functions. Distinct values are an estimate (HyperLogLog), and so are
quantiles and histograms; top values are exact up to some ten thousand distinct ones. Of personal columns only counts
are taken.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lakehouse import masking, ops, pages, tables
from lakehouse.errors import LakeError
from lakehouse.release_log import NotReleasedError, released
from lakehouse.settings import settings
from lakehouse.steps import step

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TOP_VALUES = 20
BINS = 20

_NUMERIC = ("tinyint", "smallint", "int", "bigint", "float", "double", "decimal")
_ORDERED = (*_NUMERIC, "date", "timestamp", "string", "char", "varchar")
_COUNTABLE = (*_ORDERED, "boolean", "binary")


def profile(table: str, *, release_id: int | None = None, version: int | None = None) -> Path:
    """Profile one version of a table, once; later calls find what was kept.

    Args:
        table: The table, as readers name it.
        release_id: The version that readers saw right after this release; by default the present one.
        version: A Delta version, released or not.

    Returns:
        The page.
    """
    chosen = resolve(table, release_id, version)
    rows = read(table, chosen)
    if not rows:
        rows = _profile(table, chosen)
    path = settings().home / "profiles" / table.replace(".", "/") / f"{chosen}.html"
    pages.write(path, page(table, chosen, rows))
    return path


def resolve(table: str, release_id: int | None = None, version: int | None = None) -> int:
    """The Delta version that is meant.

    Args:
        table: The table, as readers name it.
        release_id: The version that readers saw right after this release; by default the present one.
        version: A Delta version.

    Raises:
        LakeError: Both are given.
        NotReleasedError: There is no such version.
    """
    if release_id is not None and version is not None:
        raise LakeError("Give a release or a version, not both.")
    head: int | None = tables.head(tables.next_table(table))
    if head is None:
        raise NotReleasedError(f"There is no table {table}.")
    if version is not None:
        if not 0 <= version <= head:
            raise NotReleasedError(f"{table} has no version {version}: its newest one is {head}.")
        return version
    if tables.split(table)[0] not in tables.GATED_LAYERS:
        return head
    state = released(release_id).get(table)
    if state is None:
        raise NotReleasedError(f"{table} has no released version. Name one of those that were written with --version.")
    return state.version


def read(table: str, version: int) -> list[dict[str, Any]]:
    """A profile that was kept: a row for the table, and one for each column; empty when there is none.

    Args:
        table: The table, as readers name it.
        version: The Delta version.
    """
    log = ops.read("ops.profiles")
    wanted = pc.and_(pc.equal(log["table_name"], table), pc.equal(log["version"], version))
    rows: list[dict[str, Any]] = log.filter(pc.and_(wanted, pc.equal(log["source"], "profile"))).to_pylist()
    # Two who ask at the same moment may both have kept one.
    return [row for row in rows if row["run_id"] == rows[0]["run_id"]]


def compute(df: DataFrame, hidden: Collection[str] = ()) -> list[dict[str, Any]]:
    """Count and measure every column in one query.

    Args:
        df: The rows.
        hidden: Columns of which no value may be kept.

    Returns:
        A row for the table, whose ``column_name`` is None, and one for each column in their order.
    """
    types = {field.name: field.dataType.simpleString() for field in df.schema.fields}
    from pyspark.sql import functions as F

    figures = {name: _figures(name, type_, name in hidden) for name, type_ in types.items()}
    asked = [F.count(F.lit(1)).alias("rows")] + [
        column.alias(f"{index}.{figure}")
        for index, columns in enumerate(figures.values())
        for figure, column in columns.items()
    ]
    found = df.agg(*asked).collect()[0].asDict(recursive=True)
    rows = found["rows"]
    profile: list[dict[str, Any]] = [{"column_name": None, "row_count": rows}]
    for index, (name, type_) in enumerate(types.items()):
        values = {figure: found[f"{index}.{figure}"] for figure in figures[name]}
        profile.append({"column_name": name, "data_type": type_, "row_count": rows, **_kept(values, rows)})
    return profile


def _profile(table: str, version: int) -> list[dict[str, Any]]:
    from lakehouse.engine import sql

    with step("profile", table, None) as run:
        stored = tables.next_table(table)
        run.versions_in[stored] = version
        df = sql(f"select * from {stored} version as of {version}")
        common: dict[str, Any] = {
            "run_id": run.run_id,
            "profiled_at": dt.datetime.now(dt.UTC),
            "source": "profile",
            "table_name": table,
            "version": version,
        }
        rows = [common | row for row in compute(df, masking.hidden_columns(table, df.columns))]
        ops.append("ops.profiles", rows)
        run.rows_in = rows[0]["row_count"]
    return pa.Table.from_pylist(rows, schema=ops.SCHEMAS["ops.profiles"]).to_pylist()  # as they are read back


def _figures(name: str, type_: str, hidden: bool) -> dict[str, Column]:
    from pyspark.sql import functions as F

    column = F.col(f"`{name}`")
    kind = type_.partition("(")[0]
    figures = {"values": F.count(column)}
    if kind in _COUNTABLE:
        figures["distinct_count"] = F.approx_count_distinct(column, 0.02)
    if hidden:
        return figures
    if kind in _ORDERED:
        figures |= {"min": F.min(column), "max": F.max(column)}
    if kind in _COUNTABLE and kind != "binary":
        # It counts nulls as a value.
        figures["top_values"] = F.expr(f"approx_top_k(`{name}`, {TOP_VALUES + 1})")
    if kind in _NUMERIC:
        number = column.cast("double")
        figures |= {
            "mean": F.avg(number),
            "stddev": F.stddev(number),
            "quantiles": F.percentile_approx(number, list(QUANTILES)),
            "histogram": F.histogram_numeric(number, F.lit(BINS)),
        }
    return figures


def _kept(values: dict[str, Any], rows: int) -> dict[str, Any]:
    kept = {name: values.get(name) for name in ("mean", "stddev", "histogram")}
    kept["null_count"] = rows - values["values"]
    if "distinct_count" in values:
        kept["distinct_count"] = min(values["distinct_count"], values["values"])
    for name in ("min", "max"):
        kept[name] = None if values.get(name) is None else text(values[name])
    if values.get("quantiles"):
        kept["quantiles"] = [(str(share), value) for share, value in zip(QUANTILES, values["quantiles"], strict=True)]
    if "top_values" in values:
        top = [entry for entry in values["top_values"] or () if entry["item"] is not None][:TOP_VALUES]
        kept["top_values"] = [{"value": text(entry["item"]), "count": entry["count"]} for entry in top]
    return kept


def text(value: Any) -> str:
    """A value as ``ops.profiles`` keeps it: times in ISO 8601, UTC.

    Args:
        value: As Spark gives it; a timestamp in this machine's zone, without saying so.
    """
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def page(table: str, version: int, rows: list[dict[str, Any]]) -> str:
    """The page of a profile.

    Args:
        table: The table, as readers name it.
        version: Its version.
        rows: The profile, as it is kept.
    """
    columns = [row | {"bars": bars(row)} for row in rows if row["column_name"] is not None]
    [whole] = [row for row in rows if row["column_name"] is None]
    hidden = masking.hidden_columns(table, [row["column_name"] for row in columns])
    return pages.render(
        "profile.html", title=f"{table}, version {version}", table=whole, columns=columns, hidden=hidden
    )


def bars(row: dict[str, Any], width: float = 240, height: float = 60) -> list[dict[str, float]]:
    """The histogram of a column as rectangles whose areas are the numbers of rows.

    Args:
        row: The column's row of a profile.
        width: Of the drawing.
        height: Of the drawing.
    """
    found = [bin_ for bin_ in row["histogram"] or () if bin_["y"] > 0]
    if len(found) < 2:
        return []
    low, high = float(row["min"]), float(row["max"])
    edges = [low, *((a["x"] + b["x"]) / 2 for a, b in itertools.pairwise(found)), high]
    heights = [bin_["y"] / max(b - a, 1e-300) for bin_, (a, b) in zip(found, itertools.pairwise(edges), strict=True)]
    scale, tallest = width / (high - low), max(heights)
    return [
        {
            "x": (a - low) * scale,
            "width": (b - a) * scale,
            "y": height * (1 - h / tallest),
            "height": height * h / tallest,
        }
        for h, (a, b) in zip(heights, itertools.pairwise(edges), strict=True)
    ]

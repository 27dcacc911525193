"""Reports of models in use, as pages: what ``ops.model_metrics`` says of an interval, and of those before it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from lakehouse import ops, pages
from lakehouse.interval import Interval
from lakehouse.monitoring.measuring import ALL, LOG
from lakehouse.registry.registry import CHAMPION
from lakehouse.settings import settings

Row = dict[str, Any]
"""A row of ``ops.model_metrics``."""

SHOWN = 60
"""So many intervals of the past are drawn."""

WIDTH, HEIGHT = 420, 90


def of_task(dag_id: str, airflow_run_id: str, task_id: str) -> list[Row]:
    """What the newest try of an Airflow task has measured.

    Args:
        dag_id: The task's DAG.
        airflow_run_id: The run of the DAG.
        task_id: The task.
    """
    field = pc.field
    run = (field("airflow_dag_id") == dag_id) & (field("airflow_run_id") == airflow_run_id)
    tries = ops.read("ops.runs", ["run_id"], where=run & (field("airflow_task_id") == task_id))["run_id"]
    found: list[Row] = ops.read(LOG, where=field("run_id").isin(tries.combine_chunks())).to_pylist()
    return found


def read(model: str, until: dt.date | None = None) -> list[Row]:
    """What was measured of a model, as far back as it is drawn.

    Args:
        model: The model.
        until: Only intervals that end by this day.
    """
    wanted = pc.field("model_name") == model
    if until is not None:
        wanted &= pc.field("interval_end") <= until
    ends = ops.read(LOG, ["interval_end"], where=wanted & (pc.field("role") == CHAMPION))["interval_end"]
    if drawn := sorted(ends.unique().to_pylist())[-SHOWN:]:
        wanted &= pc.field("interval_end") >= drawn[0]
    rows: list[Row] = ops.read(LOG, where=wanted).to_pylist()
    return rows


def report(model: str, interval: Interval) -> str:
    """The report of an interval, as it is known now.

    Args:
        model: The model.
        interval: The days.
    """
    mine = (pc.field("model_name") == model) & (pc.field("interval_end") <= interval.end)
    decisions = ops.read("ops.retrain_decisions", where=mine).sort_by("at").to_pylist()
    return page(model, interval, read(model, interval.end), decisions)


def newest(model: str) -> Interval | None:
    """The newest interval that was measured.

    Args:
        model: The model.
    """
    days = ["interval_start", "interval_end"]
    known = ops.read(LOG, days, where=pc.field("model_name") == model).group_by(days).aggregate([]).to_pylist()
    return max((Interval(row["interval_start"], row["interval_end"]) for row in known),
               key=lambda interval: (interval.end, interval.start), default=None)  # fmt: skip


def write(model: str, interval: Interval) -> Path:
    """Write the report of an interval, and return where it is.

    Args:
        model: The model.
        interval: The days.
    """
    path = settings().home / "monitoring" / model / f"{str(interval).replace('/', '_')}.html"
    pages.write(path, report(model, interval))
    return path


def page(model: str, interval: Interval, rows: Sequence[Row], decisions: Sequence[Row] = ()) -> str:
    """The report of an interval.

    Args:
        model: The model.
        interval: The days.
        rows: What was measured of the model up to then.
        decisions: Rows of ``ops.retrain_decisions`` to mark.
    """
    mine = [row for row in rows if (row["interval_start"], row["interval_end"]) == (interval.start, interval.end)]
    versions = sorted({(row["role"], row["model_version"]) for row in mine})
    history = _history(rows)
    return pages.render(
        "monitoring.html",
        title=f"{model}, {interval}",
        versions=[_version(mine, role, version) for role, version in versions],
        lines=_lines(history),
        heat=_heat(history),
        decisions=[row for row in decisions if row["decision"] != "kept"][-SHOWN:],
        width=WIDTH,
        height=HEIGHT,
    )


def drawing(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Some lines of the report as a picture, for a document: SVG, with the months below.

    Args:
        rows: What was measured of a model.
        names: The figures of all rows that are drawn.
    """
    found = {line["name"]: line for line in _lines(_history(rows))}
    lines = [found[name] | {"months": list(_months(found[name]["first"], found[name]["last"]))} for name in names]
    return pages.render("drawing.svg", lines=lines, width=WIDTH, height=HEIGHT, step=HEIGHT + 46)


def _months(first: dt.date, last: dt.date) -> Iterator[tuple[float, str]]:
    """Where each month begins in a line, and its name."""
    for day in Interval(first, last).days():
        if day.day == 1:
            yield _place(day, first, last), f"{day:%b}"


def _place(day: dt.date, first: dt.date, last: dt.date) -> float:
    """How far to the right of a line a day is."""
    return (day - first).days / max((last - first).days, 1) * (WIDTH - 8) + 4


def _version(rows: Sequence[Row], role: str, version: int) -> dict[str, Any]:
    own = [row for row in rows if row["role"] == role and row["model_version"] == version]
    features: dict[str, dict[str, Row]] = {}
    segments: dict[str, dict[str, Row]] = {}
    for row in own:
        if row["segment"].startswith("feature="):
            features.setdefault(row["segment"].removeprefix("feature="), {})[row["metric"]] = row
        elif row["segment"] not in (ALL, "score"):
            segments.setdefault(row["segment"], {})[row["metric"]] = row
    columns = list(dict.fromkeys(metric for found in segments.values() for metric in found))
    return {
        "title": f"{role}, version {version}",
        "whole": [row for row in own if row["segment"] in (ALL, "score")],
        "features": sorted(features.items(), key=lambda item: -(item[1]["psi"]["value"] if "psi" in item[1] else 0)),
        "segments": segments,
        "columns": columns,
    }


def _history(rows: Sequence[Row]) -> list[Row]:
    """What the champions of the past were found to do."""
    own = sorted((row for row in rows if row["role"] == CHAMPION), key=lambda row: row["interval_end"])
    ends = sorted({row["interval_end"] for row in own})[-SHOWN:]
    return [row for row in own if row["interval_end"] >= ends[0]]


def _lines(history: Sequence[Row]) -> list[dict[str, Any]]:
    """A line for each figure of all rows, over the intervals."""
    names = list(dict.fromkeys(row["metric"] for row in history if row["segment"] == ALL))
    drawn = []
    for name in names:
        points = [
            row for row in history if row["segment"] == ALL and row["metric"] == name and row["value"] is not None
        ]
        if len(points) < 2:
            continue
        low, high = min(row["value"] for row in points), max(row["value"] for row in points)
        first, last = points[0]["interval_end"], points[-1]["interval_end"]
        spread = (high - low) or 1.0
        placed = [
            {
                "x": _place(row["interval_end"], first, last),
                "y": (1 - (row["value"] - low) / spread) * (HEIGHT - 8) + 4,
                "verdict": row["verdict"] or "",
                "text": f"{row['interval_end']}: {row['value']:.4g} (version {row['model_version']})",
            }
            for row in points
        ]
        drawn.append({"name": name, "points": placed, "low": low, "high": high, "first": first, "last": last})
    return drawn


def _heat(history: Sequence[Row]) -> dict[str, Any]:
    """The stability index of each feature in each interval."""
    rows = [row for row in history if row["metric"] == "psi"]
    ends = sorted({row["interval_end"] for row in rows})
    names = list(dict.fromkeys(row["segment"] for row in rows))
    cells = {(row["segment"], row["interval_end"]): row for row in rows}
    return {
        "ends": ends,
        "rows": [(name.removeprefix("feature="), [cells.get((name, end)) for end in ends]) for name in names],
    }

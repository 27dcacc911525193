"""R1, a day's run from the delivered files to the released predictions, against a script that does the same.

The day is the first of March 2013. What is known of the flights of that day (their schedule) and of the day before
(their outcomes) is multiplied to the size that is asked for; weather, fleet, airports and all days before are as they
were. The model was trained on those.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable, write_deltalake

from benchmarks import data
from benchmarks.comparators import daily as comparator
from benchmarks.harness import Goal, Result, Side, compare
from benchmarks.platform import engine
from benchmarks.sizes import bytes_of
from lakehouse.interval import Interval

SIZE, QUICK_SIZE = "100MB", "1MB"
GOALS = {"1GB": Goal(1.4)}
GOAL = Goal(2.0)
"""Of all other sizes."""

DAY = dt.date(2013, 3, 1)
BEFORE = DAY - dt.timedelta(days=1)
FIRST = dt.date(2013, 1, 1)
WINDOW = Interval(dt.date(2013, 1, 8), BEFORE - dt.timedelta(days=1))
"""What the model is trained on: the features of the first week look back on nothing."""

MODEL = comparator.MODEL
SOURCES = list(comparator.SOURCES)
GOLD = [f"gold.{name}" for name in comparator.MODELS]
PREDICTIONS = f"ml.{comparator.PREDICTIONS}"
BYTES_OF_A_FLIGHT = 152
"""In both files together."""

OF_THE_RUN = {"run_id", "release_id", "scored_at"}
"""Columns that name the run and not its data."""


@dataclass(frozen=True)
class Lake:
    """A platform before its day.

    Attributes:
        home: Its state folder.
        flights: Of each of the two days that were multiplied.
        delivered: Bytes of the files that the day takes in.
        model: URI of the registered model.
        mlflow: Where MLflow keeps it.
    """

    home: Path
    flights: int
    delivered: int
    model: str
    mlflow: str

    def seed(self, root: Path) -> Path:
        """Give another side the same tables, as they were released last.

        Args:
            root: Folder of its tables.
        """
        for table in [*(f"bronze.{source}" for source in SOURCES), *GOLD]:
            layer, _, name = table.partition(".")
            write_deltalake(root / layer / name, DeltaTable(stored(table)).to_pyarrow_table())
        return root


def run(size: str, pairs: int) -> list[Result]:
    """Time both sides in turn.

    Args:
        size: Of the files of the day, such as ``100MB``.
        pairs: How often each side is timed.
    """
    with prepared(size) as lake:
        return [measure(lake, size, pairs)]


def measure(lake: Lake, size: str, pairs: int) -> Result:
    """Time both sides in turn, on the engine that is there.

    Args:
        lake: The platform before its day.
        size: Of the files of the day, such as ``100MB``.
        pairs: How often each side is timed.
    """
    from lakehouse.quality.suites import SUITES_DIR
    from lakehouse.settings import settings

    root = lake.seed(lake.home / "comparator")
    script = comparator.Day(DAY, Path(settings().drop_url), SUITES_DIR, root, lake.model)
    verdicts: dict[str, Any] = {}

    def theirs() -> None:
        verdicts.update(script.run())

    def judged() -> dict[str, Any]:
        return {table: summary(list(map(dataclasses.astuple, found))) for table, found in verdicts.items()}

    result = Result(
        "R1",
        "a day's run: land, gate, build, score, release ÷ a script of DuckDB, delta-rs and scikit-learn",
        size,
        GOALS.get(size, GOAL),
        ("the platform", "script"),
        notes=(
            about(lake),
            "All rows of all tables are compared: landed, quarantined (row and count of reasons), gold, predictions "
            "(scores bit by bit); so are the verdict of each rule and the number of rows that break it. Columns that "
            "name the run are not.",
            "Both sides are warm, each in a process that has its libraries loaded. The script works for these tables "
            "and this day only, and scores with the registered pipeline of scikit-learn; the platform with its "
            "compiled form, where there is one. The script has no anomaly rules and no pages of verdicts, no record of "
            "runs and lineage, no locks, and does not look for later days whose features would have to be built again. "
            "Its release is a file that names versions. All of this makes the ratio worse for the platform.",
        ),
    )
    return compare(
        result,
        Side("the platform", run_day, lambda: left(stored, platform_verdicts())),
        Side("script", theirs, lambda: left(lambda table: root / table.replace(".", "/"), judged())),
        pairs,
    )


def about(lake: Lake) -> str:
    """What the day and its history are.

    Args:
        lake: The platform before its day.
    """
    return (
        f"Six sources deliver {lake.delivered / 1e6:.0f} MB: {lake.flights:,} flights in the schedule of the day and "
        "in the outcomes of the day before, 3 rows in 1,000 of them bad; weather, planes, airlines and airports as "
        f"they were. Two months of history in their own size. Source by source is landed, gated and released; "
        f"{len(GOLD)} tables are built, tested, gated and released; the day's flights are scored, gated and released."
    )


@contextmanager
def prepared(size: str) -> Iterator[Lake]:
    """A platform with its history loaded, its model trained, and the files of the day delivered.

    Args:
        size: Of the files of the day, such as ``100MB``.
    """
    from infra.demo.upstream import deliver

    with engine() as home:
        from lakehouse import warehouse
        from lakehouse.registry import registry, roles
        from lakehouse.releases.audit import gate
        from lakehouse.releases.release import release
        from lakehouse.settings import settings
        from lakehouse.steps import job

        drop = Path(settings().drop_url)
        deliver(drop, since=FIRST, until=DAY, sources=SOURCES)
        flights = bytes_of(size) // BYTES_OF_A_FLIGHT
        data.flights_of(DAY, flights, {"flight_schedule": file("flight_schedule", DAY)})
        files = {source: file(source, BEFORE) for source in ("flight_schedule", "flight_actuals")}
        data.flights_of(BEFORE, flights, files)
        for source in SOURCES:
            days = Interval(FIRST, arrival(source) - dt.timedelta(days=1))
            job("land")(source, days)
            gate([f"bronze.{source}"], days)
            release([f"bronze.{source}"], days)
        history = Interval(FIRST, WINDOW.end)
        warehouse.build(history)
        gate(GOLD, history)
        release(GOLD, history)
        settings().mlflow_tracking_uri = mlflow = f"sqlite:///{home}/mlflow.sqlite"
        registry.connect().create_experiment(MODEL, artifact_location=(home / "artifacts").as_uri())
        job("train")(MODEL, WINDOW)
        model = f"models:/{MODEL}/{roles.champion(MODEL, DAY).version}"
        delivered = sum(file(source, arrival(source)).stat().st_size for source in SOURCES)
        yield Lake(home, flights, delivered, model, mlflow)


def arrival(source: str) -> dt.date:
    """The day that the file is about which a source delivers for the day of the run.

    Args:
        source: Such as ``weather``.
    """
    return DAY + dt.timedelta(comparator.SOURCES[source].days)


def file(source: str, day: dt.date) -> Path:
    """A delivered file.

    Args:
        source: Such as ``weather``.
        day: The day that it is about.
    """
    from lakehouse.settings import settings

    return Path(settings().drop_url) / source / f"{source}_{day}.{comparator.SOURCES[source].suffix}"


def run_day() -> None:
    """Run the day as the DAGs do it, one after the other: what `lake land`, `gate`, `build`, `score`, `release` run."""
    from lakehouse import warehouse
    from lakehouse.releases.audit import gate
    from lakehouse.releases.release import release
    from lakehouse.steps import job

    for source in SOURCES:
        delivered = Interval(arrival(source), arrival(source))
        job("land")(source, delivered)
        gate([f"bronze.{source}"], delivered)
        release([f"bronze.{source}"], delivered)
    day = Interval(DAY, DAY)
    warehouse.build(day)
    gate(GOLD, day)
    release(GOLD, day)
    job("score")(MODEL, day)
    gate([PREDICTIONS], day)
    release([PREDICTIONS], day)


def stored(table: str) -> Path:
    """The folder of one of the platform's tables.

    Args:
        table: By the name that readers use.
    """
    from lakehouse import tables

    return Path(tables.location(tables.next_table(table)).removeprefix("file://"))


def left(folder: Any, verdicts: dict[str, Any]) -> dict[str, Any]:
    """What a side has left: all tables, and what its rules have said of them.

    Args:
        folder: Gives the folder of a table.
        verdicts: Table to what came of its rules.
    """
    found: dict[str, Any] = {"verdicts": verdicts}
    for table in [*(f"bronze.{source}" for source in SOURCES), *GOLD, PREDICTIONS]:
        # As the platform orders them: the order decides about the hash.
        names = [field.name for field in DeltaTable(stored(table)).schema().fields if field.name not in OF_THE_RUN]
        found[table] = data.digest(folder(table), [f'"{name}"' for name in names])
    for source in ("flight_schedule", "flight_actuals"):
        refused = ["_interval", "_source_row", "len(_reasons) as reasons"]
        found[f"quarantine.{source}"] = data.digest(
            folder(f"quarantine.{source}"), refused, f"_interval = '{arrival(source)}'"
        )
    return found


def platform_verdicts() -> dict[str, Any]:
    """What the platform's gate has said last of each table."""
    from lakehouse import ops
    from lakehouse.quality.suites import load

    rows = ops.read("ops.gate_results")
    found = {}
    for table in [*(f"bronze.{source}" for source in SOURCES), *GOLD, PREDICTIONS]:
        mine = rows.filter(pc.equal(rows["table_name"], table))
        mine = mine.filter(pc.equal(mine["checked_at"], pc.max(mine["checked_at"]))).to_pylist()
        # Rules that follow from the history, or from another table, have been added to those of the suite.
        own = {
            (each.type, json.dumps(each.kwargs, ensure_ascii=False, sort_keys=True))
            for each in load(table).expectations
        }
        found[table] = summary(
            [
                (row["expectation"], row["kwargs"], row["severity"], row["success"], row["unexpected_count"])
                for row in mine
                if (row["expectation"], row["kwargs"]) in own
            ]
        )
    return found


def summary(verdicts: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The verdicts of a table's rules, short enough to be kept.

    Args:
        verdicts: Type, arguments, severity, success and broken rows of each.
    """
    text = json.dumps(sorted(verdicts), ensure_ascii=False)
    return {
        "rules": len(verdicts),
        "failed": sorted(f"{type_} {kwargs}" for type_, kwargs, _, success, _ in verdicts if not success),
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }

"""The year 2013 again, week by week: what the retraining policy does, against never and against every week.

    python -m benchmarks.year            the whole year; about an hour
    python -m benchmarks.year --weeks 4  its first weeks

Starts an engine of its own, in a folder of its own (``--home``), and goes on where it stopped when it was cut off. The
lake is loaded once for the whole year, since a row of features looks only at days before its own.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lakehouse.interval import Interval

MODEL = "flight_delay"
YEAR = Interval.parse("2013-01-01/2013-12-31")
FIRST = Interval.parse("2013-01-08/2013-02-28")
"""Window of the first training: the features of the first week look back on nothing."""
SOURCES = ("airlines", "airports", "planes", "flight_schedule", "flight_actuals", "weather")


def say(message: str) -> None:
    """Print a line of progress, with the time.

    Args:
        message: The line.
    """
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


def weeks() -> list[Interval]:
    """The weeks that are scored, the last one shorter."""
    starts = range((YEAR.end - FIRST.end).days)[::7]
    first = FIRST.end + dt.timedelta(days=1)
    return [Interval(first + dt.timedelta(days=n), min(YEAR.end, first + dt.timedelta(days=n + 6))) for n in starts]


def training_windows() -> list[Interval]:
    """What could be trained on: before the first week, and after each of them but the last."""
    days = FIRST.end - FIRST.start
    return [FIRST, *(Interval(week.end - days, week.end) for week in weeks()[:-1])]


def load() -> None:
    """Land, gate and release the year of every source, and build the warehouse of it; once."""
    from infra.demo.upstream import deliver
    from lakehouse import contracts, warehouse
    from lakehouse.audit import gate
    from lakehouse.release import release, released
    from lakehouse.settings import settings
    from lakehouse.steps import job

    deliver(settings().drop_url)
    for source in SOURCES:
        contract = contracts.load(source)
        interval = Interval(YEAR.start, min(YEAR.end, contract.history_end or YEAR.end))
        if contract.table not in released():
            say(f"land {source} {interval}")
            job("land")(source, interval)
            gate([contract.table], interval)
            release([contract.table], interval)
    gold = warehouse.stored_models()
    if not set(gold) <= set(released()):
        say("build the warehouse")
        warehouse.build(YEAR)
        gate(gold, YEAR)
        release(gold, YEAR)


def replay(upto: int | None) -> None:
    """Score, monitor and decide week by week, and train when the policy says so.

    Args:
        upto: Only so many weeks.
    """
    from lakehouse import ops, registry, roles
    from lakehouse.audit import gate
    from lakehouse.release import release
    from lakehouse.steps import job

    spec = registry.load(MODEL)
    table = spec.predictions_table

    def train(window: Interval, cause: str | None) -> None:
        rows = ops.read("ops.models", ["model_name", "window_end"]).to_pylist()
        if {"model_name": MODEL, "window_end": window.end} not in rows:
            outcome = job("train")(MODEL, window, "the replay", cause)
            say(f"trained on {window}: version {outcome['model_version']}: {outcome['reason']}")

    train(FIRST, None)
    for week in weeks()[:upto]:
        decisions = ops.read("ops.retrain_decisions").to_pylist()
        decided = next((row for row in decisions if row["interval_end"] == week.end), None)
        if decided is None:
            started = time.monotonic()
            version = roles.champion(MODEL, week.start).version
            job("score")(MODEL, week)
            gate([table], week)
            release([table], week)
            job("monitor")(MODEL, week)
            outcome = job("retrain")(MODEL, week, "the replay")
            say(f"{week}: version {version}: {outcome['decision']}: {outcome['reason']}"
                f" ({time.monotonic() - started:.0f} s)")  # fmt: skip
            decided = {"decision": outcome["decision"], "reason": outcome["reason"]}
        if decided["decision"] == "retrain":
            days = FIRST.end - FIRST.start
            train(Interval(week.end - days, week.end), decided["reason"])


def prepare_mlflow(home: Path) -> None:
    """Have MLflow keep its files in the folder of the benchmark.

    Args:
        home: The folder.
    """
    from lakehouse import registry

    client = registry.connect()
    if client.get_experiment_by_name(MODEL) is None:
        client.create_experiment(MODEL, artifact_location=(home / "artifacts").as_uri())


def served(home: Path) -> dict[str, Any]:
    """By policy: the scores that each flight was given, how many trainings there were, and how many champions.

    Args:
        home: Folder of the benchmark.
    """
    import pandas as pd

    import lakehouse
    from lakehouse import ops, promotion, registry, roles, training

    spec = registry.load(MODEL)
    day, key = spec.features.interval_column, spec.features.entity_key
    outcomes = lakehouse.read(spec.label.table, columns=[*key, day, spec.label.column, *spec.promotion.segments])
    outcomes = outcomes[outcomes[spec.label.column].notna()].rename(columns={spec.label.column: "outcome"})
    outcomes["outcome"] = outcomes["outcome"].astype("float64")
    windows = training_windows()
    of = {window.end: pd.read_parquet(home / "weekly" / f"{window.end}.parquet") for window in windows}
    weekly = weeks()

    def within(frame: pd.DataFrame, interval: Interval) -> pd.DataFrame:
        return frame[(frame[day] >= interval.start) & (frame[day] <= interval.end)]

    champion, fair, champions = windows[0], [], 1
    for week, window in zip(weekly, windows, strict=True):
        if window != windows[0]:
            split = training.split(window, spec.training)
            fitted = training.split(champion, spec.training).train.end
            rows = within(outcomes[outcomes[day] > fitted], split.test).assign(day=lambda rows: rows[day])
            for who, of_whom in (("champion", champion), ("challenger", window)):
                rows = rows.merge(of[of_whom.end].rename(columns={"score": who}), on=[*key, day])
            if promotion.decide(rows, spec).promote:
                champion, champions = window, champions + 1
        fair.append(within(of[champion.end], week))
    newest = [within(of[window.end], week) for window, week in zip(windows, weekly, strict=True)]
    decided = [row for row in ops.read("ops.retrain_decisions").to_pylist() if row["decision"] == "retrain"]
    appointed = [event for event in roles.events(MODEL) if event["event"] in roles.APPOINTMENTS]
    mine = lakehouse.read(spec.predictions_table, columns=[*key, day, "score"])
    arms = {
        "never again": (of[windows[0].end], 1, 1),
        "by the policy": (mine, 1 + len(decided), len(appointed)),
        "every week, must win": (pd.concat(fair), len(windows), champions),
        "every week, newest serves": (pd.concat(newest), len(windows), len(windows)),
    }
    scored = Interval(weekly[0].start, max(mine[day]))
    return {
        name: (within(frame, scored).merge(outcomes, on=[*key, day]), trainings, count)
        for name, (frame, trainings, count) in arms.items()
    }


def report(home: Path) -> Iterator[str]:
    """What came of it, as Markdown.

    Args:
        home: Folder of the benchmark.
    """
    from lakehouse import ops, registry, roles
    from lakehouse.metrics import metric

    spec = registry.load(MODEL)
    day = spec.features.interval_column
    arms = served(home)
    names = ["log_loss", "brier", "auc", "calibration_error"]
    yield "| trained | trainings | champions | " + " | ".join(names) + " |"
    yield "|---|---|---|" + "---|" * len(names)
    for name, (rows, trainings, champions) in arms.items():
        y, p = rows["outcome"].to_numpy(), rows["score"].to_numpy()
        values = [f"{metric(each).of(y, p, spec.decision_threshold):.4f}" for each in names]
        yield f"| {name} | {trainings} | {champions} | {' | '.join(values)} |"
    yield ""
    yield "Log loss by month:"
    yield ""
    yield "| month | flights | late | " + " | ".join(arms) + " |"
    yield "|---|---|---|" + "---|" * len(arms)
    months = {
        name: dict(list(rows.groupby([d.strftime("%Y-%m") for d in rows[day]]))) for name, (rows, *_) in arms.items()
    }
    for month, rows in next(iter(months.values())).items():
        parts = [by[month] for by in months.values()]
        values = [f"{metric('log_loss').of(r['outcome'].to_numpy(), r['score'].to_numpy(), None):.4f}" for r in parts]
        yield f"| {month} | {len(rows)} | {rows['outcome'].mean():.1%} | {' | '.join(values)} |"
    yield ""
    yield "| after the week to | decision | because | what came of it |"
    yield "|---|---|---|---|"
    made = {row["window_end"]: row["model_version"] for row in ops.read("ops.models").to_pylist()}
    events = {event["model_version"]: event for event in roles.events(MODEL)}
    for row in sorted(ops.read("ops.retrain_decisions").to_pylist(), key=lambda row: row["interval_end"]):
        if row["decision"] == "retrain":
            event = events.get(made.get(row["window_end"]))
            came = f"version {event['model_version']} {event['event']}" if event else ""
            yield f"| {row['interval_end']} | {row['decision']} | {row['reason']} | {came} |"
    counts = Counter(row["decision"] for row in ops.read("ops.retrain_decisions").to_pylist())
    yield ""
    yield "Decisions: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + "."


def main() -> None:
    """Replay the year and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "lakehouse-year")
    parser.add_argument("--weeks", type=int, help="only the first weeks that are scored")
    arguments = parser.parse_args()
    from tests.conftest import free_ports

    os.environ.update({"LAKE_HOME": str(arguments.home), **free_ports()})
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{arguments.home}/mlflow.sqlite"
    arguments.home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lakehouse.platform"]
    try:
        subprocess.run([*command, "up", "engine"], check=True, stdout=sys.stderr)
        load()
        prepare_mlflow(arguments.home)
        weekly = subprocess.Popen([sys.executable, "-m", "benchmarks.weekly", str(arguments.home)])
        replay(arguments.weeks)
        if weekly.wait():
            raise SystemExit("The weekly trainings have failed: see above.")
        for line in report(arguments.home):
            print(line, flush=True)
    finally:
        from lakehouse.engine import spark

        if spark.cache_info().currsize:
            spark().stop()  # it would wait for the engine to come back
        subprocess.run([*command, "down"], check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()

"""The year 2013 again, week by week: what the retraining policy does, against never and against every week.

    lake bench year            the whole year; some 20 minutes
    lake bench year --weeks 4  its first weeks

Works in a folder of its own (``--home``), and goes on where it stopped when it was cut off. The lake is loaded once, by
an engine of its own, for the whole year, since a row of features looks only at days before its own. The weeks are then
replayed on the released tables with the library's functions, without the engine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import platform
from lakehouse.interval import Interval

if TYPE_CHECKING:
    from benchmarks.replay import Week, Year
    from lakehouse.model_spec import ModelSpec

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


def rows_of(weeks_: list[Week]) -> list[dict[str, Any]]:
    """The measures as rows of ``ops.model_metrics``, for the report.

    Args:
        weeks_: The weeks, as the policy drove them.
    """
    numbers = {window: n for n, window in enumerate(dict.fromkeys(week.champion for week in weeks_), 1)}
    return [
        {
            "model_name": MODEL,
            "model_version": numbers[week.champion],
            "role": "champion",
            "interval_start": week.days.start,
            "interval_end": week.days.end,
            **vars(measure),
        }
        for week in weeks_
        for measure in week.measures
    ]


def report(year: Year, done: list[Week]) -> Iterator[str]:
    """What came of it, as Markdown.

    Args:
        year: The rows.
        done: The weeks, as the policy drove them.
    """
    import pandas as pd

    from lakehouse.training import LABEL

    day, windows = year.spec.features.interval_column, training_windows()[: len(done)]
    champion, fair = windows[0], []
    for week, window in zip(done, windows, strict=True):
        if window != champion and window != windows[0] and year.contest(champion, window).promote:
            champion = window
        fair.append((week.days, champion))
    plans = {
        "never again": (1, [(week.days, windows[0]) for week in done]),
        "by the policy": (1 + sum(week.contest is not None for week in done), [(w.days, w.champion) for w in done]),
        "every week, must win": (len(windows), fair),
        "every week, newest serves": (len(windows), [(week.days, w) for week, w in zip(done, windows, strict=True)]),
    }
    served = {}
    for name, (_, plan) in plans.items():
        rows = pd.concat([year.rows(days, window) for days, window in plan])
        served[name] = rows[rows[LABEL].notna()].assign(outcome=lambda rows: rows[LABEL].astype("float64"))
    names = ["log_loss", "brier", "auc", "calibration_error"]
    yield from _table(
        ["trained", "trainings", "champions", *names],
        (
            [name, trainings, len({window for _, window in plan}), *_figures(served[name], names, year.spec)]
            for name, (trainings, plan) in plans.items()
        ),
    )
    months = {name: rows.groupby([each.strftime("%Y-%m") for each in rows[day]]) for name, rows in served.items()}
    drifted = pd.Series({w.days.end: _value(w, "drifted_share") for w in done})
    drifted = drifted.groupby([each.strftime("%Y-%m") for each in drifted.index]).mean()
    yield from _table(
        ["month", "flights", "late", "features drifted", *(f"log loss, {name}" for name in months)],
        (
            [
                month,
                len(rows),
                f"{rows['outcome'].mean():.1%}",
                f"{drifted.get(month, float('nan')):.0%}",
                *(_figures(by.get_group(month), ["log_loss"], year.spec)[0] for by in months.values()),
            ]
            for month, rows in months["never again"]
        ),
    )
    yield from _table(
        ["after the week to", "cause", "what came of it"],
        (
            [
                week.days.end,
                week.decision.reason,
                f"{'wins' if week.contest.promote else 'kept out'}: {week.contest.difference}",
            ]
            for week in done
            if week.contest
        ),
    )
    counts = Counter(week.decision.outcome for week in done)
    yield "Decisions: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + "."


def _figures(rows: Any, names: list[str], spec: ModelSpec) -> list[str]:
    from lakehouse.metrics import metric

    y, p = rows["outcome"].to_numpy(), rows["score"].to_numpy("float64")
    return [f"{metric(name).of(y, p, spec.decision_threshold):.4f}" for name in names]


def _value(week: Week, name: str) -> float:
    return next(each.value for each in week.measures if each.metric == name and each.segment == "all") or 0.0


def _table(head: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def replay(home: Path, upto: int | None) -> None:
    """Let the policy decide week by week, and print what came of it.

    Args:
        home: Folder of the benchmark.
        upto: Only so many weeks.
    """
    from benchmarks import weekly
    from benchmarks.replay import Year, drive
    from lakehouse import monitoring_pages, pages, registry

    spec = registry.load(MODEL)
    frame = weekly.read(spec)

    def train(window: Interval) -> Any:
        return weekly.train(home, frame, spec, window)

    year = Year(spec, frame, lru_cache(6)(train))
    done = []
    for week in drive(year, FIRST, weeks()[:upto]):
        say(f"{week.days}: {week.decision.outcome}: {week.decision.reason}")
        if week.contest:
            say(f"    {'wins' if week.contest.promote else 'kept out'}: {'; '.join(week.contest.reasons)}")
        done.append(week)
    decisions = [
        {"interval_start": week.days.start, "interval_end": week.days.end, "decision": week.decision.outcome,
         "reason": week.decision.reason} for week in done
    ]  # fmt: skip
    page = home / "year.html"
    pages.write(page, monitoring_pages.page(MODEL, done[-1].days, rows_of(done), decisions))
    for line in report(year, done):
        print(line, flush=True)
    say(f"The report of the year: {page}")


def main() -> None:
    """Load the year once, replay it, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "lakehouse-year")
    parser.add_argument("--weeks", type=int, help="only the first weeks that are scored")
    arguments = parser.parse_args()
    platform.isolate(arguments.home)
    arguments.home.mkdir(parents=True, exist_ok=True)
    loaded = arguments.home / "loaded"
    if not loaded.exists():
        try:
            platform.start("engine")
            load()
            loaded.touch()
        finally:
            platform.stop()
    replay(arguments.home, arguments.weeks)


if __name__ == "__main__":
    main()

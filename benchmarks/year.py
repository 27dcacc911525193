"""The year 2013 again, week by week: what the retraining policy does, against never and against every week.

    lake bench year            the whole year; some 20 minutes
    lake bench year --weeks 4  its first weeks

Works in a folder of its own (``--home``), and goes on where it stopped when it was cut off; what another code has made
is made again. The lake is loaded once, by an engine of its own, for the whole year, since a row of features looks only
at days before its own. The weeks are then replayed on the released tables with the library's functions, without it.

What came of the whole year is kept in ``benchmarks/results/year``, and the tables and the picture of its page are made
of that.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from benchmarks import code, platform
from lakehouse.interval import Interval
from lakehouse.monitoring.drift import RED
from lakehouse.monitoring.measuring import ALL
from lakehouse.settings import PROJECT_DIR

if TYPE_CHECKING:
    from benchmarks.replay import Week, Year
    from lakehouse.registry.promotion import Decision

MODEL = "flight_delay"
YEAR = Interval.parse("2013-01-01/2013-12-31")
FIRST = Interval.parse("2013-01-08/2013-02-28")
"""Window of the first training: the features of the first week look back on nothing."""
SOURCES = ("airlines", "airports", "planes", "flight_schedule", "flight_actuals", "weather")
LOSS = "log_loss"
METRICS = (LOSS, "brier", "auc", "calibration_error")
RESULT = PROJECT_DIR / "benchmarks" / "results" / "year" / f"{MODEL}.json"
PAGE = PROJECT_DIR / "docs" / "how-to" / "monitor.md"
PICTURE = PAGE.parent / "figures" / "year.svg"
DRAWN = ("mean_outcome", "drifted_share", "skill")
"""Lines of the report that the page shows."""
PART, END = "<!-- year: written by lake bench year -->\n", "<!-- end -->\n"


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
    from lakehouse import contracts, dbt_project, warehouse
    from lakehouse.release_log import released
    from lakehouse.releases.audit import gate
    from lakehouse.releases.release import release
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
    gold = dbt_project.stored_models()
    if not set(gold) <= set(released()):
        say("build the warehouse")
        warehouse.build(YEAR)
        gate(gold, YEAR)
        release(gold, YEAR)


def lake_sha256() -> str:
    """Hash of the code that lands the year and builds the warehouse of it."""
    modules = (
        "infra.demo.upstream",
        "spark_jobs.land",
        "lakehouse.warehouse",
        "lakehouse.releases.audit",
        "lakehouse.releases.release",
    )
    return code.sha256(*modules, folders=("dbt", "spark_jobs/sources", "expectations/bronze", "expectations/gold"))


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


def outcome(year: Year, first: Decision, done: list[Week]) -> dict[str, Any]:
    """What came of it, as it is kept: each week, and the figures of every way to go on.

    Args:
        year: The rows.
        first: The decision about the first training.
        done: The weeks, as the policy drove them.
    """
    windows = training_windows()[: len(done)]
    fair, champion = [], windows[0]
    for week, window in zip(done, windows, strict=True):
        if window != windows[0] and year.contest(champion, window).promote:
            champion = window
        fair.append((week.days, champion))
    plans = {
        "never again": (1, [(week.days, windows[0]) for week in done]),
        "by the policy": (1 + sum(week.contest is not None for week in done), [(w.days, w.champion) for w in done]),
        "every week, must win": (len(windows), fair),
        "every week, newest serves": (len(windows), [(week.days, w) for week, w in zip(done, windows, strict=True)]),
    }
    return {
        "model": MODEL,
        "first": {"window": str(FIRST), **asdict(first)},
        "weeks": [_week(week) for week in done],
        "plans": [
            {"name": name, "trainings": trainings, "champions": len({window for _, window in plan})}
            | _figures(year, plan)
            for name, (trainings, plan) in plans.items()
        ],
    }


def _week(week: Week) -> dict[str, Any]:
    measures = [vars(each) for each in week.measures if each.segment == ALL or each.verdict == RED]
    return {
        "days": str(week.days),
        "champion": str(week.champion),
        "decision": week.decision.outcome,
        "causes": week.decision.causes,
        "reason": week.decision.reason,
        "contest": asdict(week.contest) if week.contest else None,
        "measures": measures,
    }


def _figures(year: Year, plan: list[tuple[Interval, Interval]]) -> dict[str, Any]:
    """Metrics of all flights of a plan with an outcome, and of those of each month."""
    import pandas as pd

    from lakehouse.ml.metrics import metric
    from lakehouse.ml.training import LABEL

    rows = pd.concat([year.rows(days, window) for days, window in plan])
    rows = rows[rows[LABEL].notna()]
    month = [day.strftime("%Y-%m") for day in rows[year.spec.features.interval_column]]

    def of(part: Any, name: str) -> float:
        outcomes, scores = part[LABEL].to_numpy("float64"), part["score"].to_numpy("float64")
        return metric(name).of(outcomes, scores, year.spec.decision_threshold)

    return {
        "metrics": {name: of(rows, name) for name in METRICS},
        "months": {
            name: {"rows": len(part), "late": float(part[LABEL].astype("float64").mean()), LOSS: of(part, LOSS)}
            for name, part in rows.groupby(month)
        },
    }


def report(kept: dict[str, Any]) -> Iterator[str]:
    """What came of it, as Markdown.

    Args:
        kept: Outcome of :func:`outcome`, as it was kept.
    """
    weeks_, plans = kept["weeks"], kept["plans"]
    yield "Every flight with an outcome, each scored by the version that was champion of its week:"
    yield ""
    yield from _table(
        ["trained", "trainings", "champions", *METRICS],
        (
            [each["name"], each["trainings"], each["champions"], *(f"{each['metrics'][name]:.4f}" for name in METRICS)]
            for each in plans
        ),
    )
    yield "Log loss by month:"
    yield ""
    drifted = defaultdict(list)
    for week in weeks_:
        share = next(each["value"] for each in week["measures"] if each["metric"] == "drifted_share")
        drifted[f"{Interval.parse(week['days']).end:%Y-%m}"].append(share)
    yield from _table(
        ["month", "flights", "late", "features drifted", *(each["name"] for each in plans)],
        (
            [
                month,
                found["rows"],
                f"{found['late']:.1%}",
                f"{mean(drifted[month]):.0%}" if drifted[month] else "",
                *(f"{each['months'][month][LOSS]:.4f}" for each in plans),
            ]
            for month, found in plans[0]["months"].items()
        ),
    )
    yield "Each training of the policy:"
    yield ""
    yield from _table(
        ["after the week to", "cause", "what came of it"],
        (
            [
                Interval.parse(week["days"]).end,
                week["reason"],
                f"{'wins' if week['contest']['promote'] else 'kept out'}: {'; '.join(week['contest']['reasons'])}",
            ]
            for week in weeks_
            if week["contest"]
        ),
    )
    counts = Counter(week["decision"] for week in weeks_)
    yield f"Of {len(weeks_)} weeks: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) + "."
    if kept.get("machine"):
        yield ""
        yield f"Replayed on {kept['machine']['date']}, at commit `{kept['commit'][:7]}`."


def _table(head: list[str], rows: Iterable[list[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(map(str, row))} |"
    yield ""


def fill(page: str, kept: dict[str, Any]) -> str:
    """A page with the tables of the year as they were kept.

    Args:
        page: What the page holds.
        kept: Outcome of :func:`outcome`.
    """
    before, found, rest = page.partition(PART)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"The page has no part {PART.strip()} ... {END.strip()}")
    text = "\n".join(report(kept))
    return f"{before}{PART}\n{text}\n\n{END}{after}"


def picture(kept: dict[str, Any]) -> str:
    """The seasons of the year as the report draws them.

    Args:
        kept: Outcome of :func:`outcome`, as it was kept.
    """
    from lakehouse.monitoring.reports import drawing
    from lakehouse.registry.registry import CHAMPION

    numbers = {window: n for n, window in enumerate(dict.fromkeys(week["champion"] for week in kept["weeks"]), 1)}
    rows = [
        {"role": CHAMPION, "model_version": numbers[week["champion"]], "interval_end": days.end, **measure}
        for week in kept["weeks"]
        for days in [Interval.parse(week["days"])]
        for measure in week["measures"]
    ]
    return drawing(rows, DRAWN)


def replay(home: Path, upto: int | None) -> dict[str, Any]:
    """Let the policy decide week by week.

    Args:
        home: Folder of the benchmark.
        upto: Only so many weeks.

    Returns:
        What came of it: :func:`outcome`, and what it was made of.
    """
    from benchmarks import harness, weekly
    from benchmarks.replay import Year, drive
    from lakehouse import pages
    from lakehouse.ml import model_folders
    from lakehouse.monitoring import reports
    from lakehouse.steps import code_version

    spec = model_folders.load(MODEL)
    trainings = weekly.Trainings(home, weekly.read(spec), spec)
    trained: dict[Interval, dict[str, Any]] = {}

    def train(window: Interval) -> Any:
        found = trainings.scores(window)
        if window not in trained:
            trained[window] = trainings.facts(window)
            loss = trained[window][f"test_{spec.metrics.optimize}"]
            say(f"trained on {window}: {trained[window]['selected']}, {loss:.4f}")
        return found

    year = Year(spec, trainings.frame, lru_cache(6)(train))
    first = year.contest(None, FIRST)
    say(f"the first: {'; '.join(first.reasons)}")
    if not first.promote:
        raise SystemExit("The first training does not beat its baseline: there is no champion to go on with.")
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
    pages.write(page, reports.page(MODEL, done[-1].days, rows_of(done), decisions))
    say(f"The report of the year: {page}")
    return outcome(year, first, done) | {
        "trainings": {str(window): trained[window] for window in sorted(trained)},
        "machine": harness.machine(),
        "commit": code_version(),
        "sha256": {
            "lake": lake_sha256(),
            "trainings": trainings.sha256,
            "decisions": code.sha256("benchmarks.replay", folders=(f"models/{MODEL}", "expectations/ml")),
        },
    }


def keep(kept: dict[str, Any], path: Path) -> Path:
    """Keep what came of it as JSON.

    Args:
        kept: Outcome of :func:`replay`.
        path: The file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, default=str, ensure_ascii=False) + "\n", "utf-8")
    return path


def main() -> None:
    """Load the year once, replay it, and print what came of it; of the whole year, keep it and write its page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(tempfile.gettempdir()) / "lakehouse-year")
    parser.add_argument("--weeks", type=int, help="only the first weeks that are scored; nothing is kept of it")
    arguments = parser.parse_args()
    home = arguments.home.resolve()
    lake = home / f"lake-{lake_sha256()[:16]}"
    for other in home.glob("lake-*"):
        if other != lake:  # of another code
            shutil.rmtree(other)
    lake.mkdir(parents=True, exist_ok=True)
    platform.isolate(lake)
    loaded = lake / "loaded"
    if not loaded.exists():
        try:
            platform.start("engine")
            load()
            loaded.touch()
        finally:
            platform.stop()
    kept = replay(home, arguments.weeks)
    print("\n".join(report(kept)), flush=True)
    if arguments.weeks is None:
        say(f"kept in {keep(kept, RESULT)}")
        whole = json.loads(RESULT.read_text("utf-8"))
        PAGE.write_text(fill(PAGE.read_text("utf-8"), whole), "utf-8")
        PICTURE.write_text(picture(whole), "utf-8")
        say(f"written: {PAGE}, {PICTURE}")


if __name__ == "__main__":
    main()

"""The ``lake`` command: everything that Airflow runs can be run by hand, and the platform is managed."""

from __future__ import annotations

import csv
import datetime as dt
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.tree import Tree

from lakehouse.errors import LakeError
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.settings import PROJECT_DIR, UnknownSettingError, settings

app = typer.Typer(
    name="lake",
    help="Data lakehouse and batch-ML platform: run it, load it, query it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
STEPS, QUERIES, DEVELOPMENT = "Steps (what the DAG tasks run)", "Looking at data", "Development"


def _interval(text: str) -> Interval:
    try:
        return Interval.parse(text)
    except InvalidIntervalError as error:
        raise typer.BadParameter(str(error)) from error


def _sources() -> list[str]:
    from lakehouse import contracts

    return contracts.sources()


def _models() -> list[str]:
    from lakehouse import registry

    return registry.models()


SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a contract.", autocompletion=_sources)]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model folder.", autocompletion=_models)]
IntervalOption = Annotated[
    Interval,
    typer.Option("--interval", "-i", parser=_interval, metavar="DAY|FIRST/LAST", help="Day, or range of days."),
]
Names = Annotated[list[str], typer.Argument(metavar="TABLE", help="Such as gold.fct_flights.")]


@app.command(rich_help_panel=STEPS)
def land(source: SourceName, interval: IntervalOption) -> None:
    """Land an interval of a source in bronze; bad rows go to quarantine."""
    from lakehouse.steps import job

    _report(job("land")(source, interval))


@app.command(rich_help_panel=STEPS)
def replay(
    source: SourceName,
    interval: IntervalOption,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many rows would pass, and what is wrong with the others.")
    ] = False,
) -> None:
    """Take the quarantined rows of an interval through the contract and suite as they are now."""
    from lakehouse.steps import job

    _report(job("replay")(source, interval, dry_run))


@app.command(rich_help_panel=STEPS)
def gate(names: Names, interval: IntervalOption) -> None:
    """Check what was written to tables, as one set; withdraw it if it does not pass."""
    from lakehouse.audit import gate as run

    _report(run(names, interval))


@app.command(rich_help_panel=STEPS)
def release(
    names: Annotated[list[str] | None, typer.Argument(metavar="TABLE", help="Such as gold.fct_flights.")] = None,
    interval: Annotated[
        Interval | None,
        typer.Option("--interval", "-i", parser=_interval, metavar="DAY|FIRST/LAST", help="Day, or range of days."),
    ] = None,
    override: Annotated[
        str | None,
        typer.Option(metavar="RUN_ID", help="Publish what this gate (run_id in ops.gate_results) has turned down."),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; an override needs it.")] = None,
) -> None:
    """Make the audited versions of tables visible, as one set; or override a gate's verdict."""
    if override is not None:
        from lakehouse.override import override as publish

        if names or interval:
            raise typer.BadParameter(
                "--override publishes the tables of that gate: give it no TABLE and no --interval."
            )
        if not reason:
            raise typer.BadParameter("--override needs a --reason.")
        _report({"release_id": publish(override, reason)})
        return
    if not names or interval is None or reason:
        raise typer.BadParameter("Give one TABLE or more and an --interval; --reason goes with --override.")
    from lakehouse.release import release as run

    _report({"release_id": run(names, interval)})


@app.command(rich_help_panel=STEPS)
def rollback(
    what: Annotated[str, typer.Argument(metavar="RELEASE|TABLE", help="Number of a release, or gold.fct_flights.")],
    to: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="Go back to the state right after this release.")
    ] = None,
) -> None:
    """Make what readers saw before a release visible again: all tables of the release, or one table."""
    from lakehouse.rollback import rollback as run

    _report(run(what, to))


@app.command(rich_help_panel=STEPS)
def build(
    interval: IntervalOption,
    select: Annotated[str | None, typer.Option(help="dbt's selection of models; all without it.")] = None,
    full_refresh: Annotated[
        bool, typer.Option("--full-refresh", help="Create the tables anew, with these days only.")
    ] = False,
) -> None:
    """Build the warehouse with dbt: the silver views and the next versions of the gold tables."""
    from lakehouse import warehouse

    _report(warehouse.build(interval, select, full_refresh=full_refresh))


@app.command(rich_help_panel=STEPS)
def train(
    model: ModelName,
    interval: Annotated[
        Interval | None,
        typer.Option(
            "--interval",
            "-i",
            "--window",
            parser=_interval,
            metavar="FIRST/LAST",
            help="Training window; without it, the last days with outcomes, as many as model.yaml says.",
        ),
    ] = None,
) -> None:
    """Train a model on the released features of a window, and register it."""
    from lakehouse.steps import job

    _report(job("train")(model, interval))


@app.command(rich_help_panel=STEPS)
def score(
    model: ModelName,
    interval: IntervalOption,
    model_version: Annotated[
        int | None, typer.Option(min=1, metavar="VERSION", help="Refuse when another version is the champion.")
    ] = None,
    what_if: Annotated[
        int | None,
        typer.Option(min=1, metavar="VERSION", help="This version scores, apart from the predictions, any days."),
    ] = None,
) -> None:
    """Score an interval, each day with the version of a model that was its champion."""
    from lakehouse.steps import job

    if what_if is None:
        _report(job("score")(model, interval, model_version))
        return
    if model_version is not None:
        raise typer.BadParameter("--what-if says which version scores: give no --model-version beside it.")
    _report(job("what_if")(model, interval, what_if))


@app.command(rich_help_panel=STEPS)
def monitor(model: Annotated[str, typer.Argument(help="Name of a model folder.")], interval: IntervalOption) -> None:
    """Measure drift, data and performance of an interval that was scored; again when its outcomes are known."""
    from lakehouse.steps import job

    _report(job("monitor")(model, interval))


@app.command(rich_help_panel=STEPS)
def retrain(
    model: Annotated[str, typer.Argument(help="Name of a model folder.")],
    interval: Annotated[
        Interval | None,
        typer.Option(
            "--interval",
            "-i",
            parser=_interval,
            metavar="DAY|FIRST/LAST",
            help="Monitored days; the newest without it.",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be decided, and why.")] = False,
) -> None:
    """Train a model again if its policy finds a cause; the decision is kept with its evidence."""
    from lakehouse.steps import job

    decided = job("retrain")(model, interval, check=check)
    _report(decided)
    if decided["decision"] == "retrain" and not check:
        _report(job("train")(model, Interval.parse(decided["window"]), None, decided["reason"]))


@app.command(rich_help_panel=STEPS)
def promote(
    what: Annotated[str, typer.Argument(metavar="MODEL[@VERSION]", help="A version; the newest one without a number.")],
    reason: Annotated[
        str | None, typer.Option(help="Make it champion by your word, without a comparison; this is kept with it.")
    ] = None,
) -> None:
    """Compare a version with the champion on the same frozen rows, and make it champion if it wins."""
    from lakehouse.steps import job

    model, version = _version(what)
    _report(job("promote")(model, version, reason))


@app.command("rollback-model", rich_help_panel=STEPS)
def rollback_model(
    model: ModelName,
    reason: Annotated[str, typer.Option(help="Why; it is kept with the model's history.")],
    to: Annotated[int | None, typer.Option(metavar="VERSION", help="Without it, the champion before this one.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Champion of this day and later ones; without it, of all it may.")
    ] = None,
    rescore: Annotated[
        bool, typer.Option("--rescore", help="Score, gate and release again what the withdrawn version has scored.")
    ] = False,
) -> None:
    """Make an earlier champion score again."""
    from lakehouse.steps import job

    first = _interval(since).start if since else None
    _report(job("rollback_model")(model, reason, to, first, rescore))


@app.command(rich_help_panel=STEPS)
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE", help="Such as gold.fct_flights; all without it.")
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="The versions that readers saw right after this release.")
    ] = None,
) -> None:
    """Read every byte of the released tables, and compare it with what was recorded when they were released."""
    from lakehouse.verify import verify as run

    _report(run(names, release))


@app.command(rich_help_panel=STEPS)
def reproduce(
    what: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION]", help="A registered version; all of the model's without one.")
    ],
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Score past predictions again, instead of training.")
    ] = False,
    interval: Annotated[
        Interval | None,
        typer.Option("--interval", "-i", parser=_interval, metavar="DAY|FIRST/LAST", help="Days of the predictions."),
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="The predictions that readers saw right after this release.")
    ] = None,
) -> None:
    """Train a model version, or score past predictions, again from what they were made from, and compare."""
    from lakehouse.steps import job

    model, at, version = what.partition("@")
    if predictions:
        if at or interval is None:
            raise typer.BadParameter("--predictions needs MODEL, without a version, and an --interval.")
        _report(job("reproduce_predictions")(model, interval, release))
        return
    if interval is not None or release is not None or (at and not version.isdigit()):
        raise typer.BadParameter(
            "Give MODEL@VERSION, or MODEL for all; --interval and --release go with --predictions."
        )
    from lakehouse import registry
    from lakehouse.reproduction import NotReproducedError

    if at:
        _report(job("reproduce_training")(model, int(version)))
        return
    differ = []
    for each in registry.versions(registry.load(model).name):
        try:
            outcome = job("reproduce_training")(model, each.version)
        except NotReproducedError as error:
            differ.append(each.version)
            outcome = {"equal": False, "because": str(error)}
        _report({"model_version": each.version, **outcome})
    if differ:
        raise NotReproducedError(
            f"Of the versions of {model}, these come out otherwise: {', '.join(map(str, differ))}."
        )


@app.command(rich_help_panel=STEPS)
def maintain(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, what is kept, by what, and how many bytes.")
    ] = False,
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Keep what was replaced so many days ago; without it, the setting keep_days."),
    ] = None,
) -> None:
    """Delete what contracts no longer keep, put small files together, and remove files that nothing needs."""
    from lakehouse import maintain as maintenance

    if not dry_run:
        _report(maintenance.maintain(keep_days))
        return
    work = [vars(each) for each in maintenance.upcoming()]
    if work:
        _table(["table", "what", "days", "files", "bytes"], work)
    plans = maintenance.plan(keep_days)
    shown = [
        {
            "table": plan.table,
            "version": pin.version,
            "kept for": "\n".join(pin.why),
            "bytes beside the newest version": pin.bytes,
        }
        for plan in plans
        for pin in plan.pinned
    ]
    _table(["table", "version", "kept for", "bytes beside the newest version"], shown)
    going = [{"table": plan.table, "files": len(plan.files), "bytes": plan.bytes} for plan in plans if plan.files]
    _table(["table", "files", "bytes"], going)
    total = sum(len(plan.files) for plan in plans), sum(plan.bytes for plan in plans)
    print("{} files of {} bytes would go.".format(*total))


@app.command(rich_help_panel=QUERIES)
def sql(
    query: Annotated[str | None, typer.Argument(help="Spark SQL; an interactive prompt without it.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
    limit: Annotated[int, typer.Option(help="Rows of a table that are printed at most; 0 prints all.")] = 100,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="Every table as it was right after this release.")
    ] = None,
) -> None:
    """Query the released tables."""
    if query is None:
        _prompt(limit, release)
        return
    print_rows(query, as_csv, as_json, limit, release)


@app.command(rich_help_panel=QUERIES)
def models(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL[@VERSION]]", help="Only this one, with everything that was decided."),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Print the model card of this version, or else of the champion.")
    ] = False,
) -> None:
    """List the models with their champions and challengers; of one model, each decision about its versions and why."""
    from lakehouse import registry, roles

    if card:
        name, number = _version(model or "")
        spec = registry.load(name)
        wanted = roles.champion(spec.name) if number is None else registry.version(spec.name, number)
        print(registry.card(wanted))
        return
    if model is not None:
        for event in roles.events(registry.load(model).name):
            print(
                f"{event['at']:%Y-%m-%d %H:%M} version {event['model_version']} {event['event']}, may score from "
                f"{event['serves_from']} on, by {event['decided_by']}: {event['reason']}"
            )
        return
    shown = []
    for spec in map(registry.load, registry.models()):
        log = roles.events(spec.name)
        office = roles.in_office(log) or dict.fromkeys(["model_version", "serves_from"])
        champion = {"champion": office["model_version"], "since": office["serves_from"]}
        shown.append({"model": spec.name, **champion, "challenger": roles.challenging(log), "owner": spec.owner})
    _table(["model", "champion", "since", "challenger", "owner"], shown)


@app.command(rich_help_panel=QUERIES)
def explain(
    prediction: Annotated[str | None, typer.Argument(metavar="PREDICTION_ID", help="Its prediction_id.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of a model folder.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="What it is about: a value for each column of the entity key, in order.")
    ] = None,
    date: Annotated[str | None, typer.Option(metavar="DAY", help="Its day, such as 2013-03-01.")] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="As readers saw it right after this release.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with a drawn graph.")] = None,
) -> None:
    """Explain a prediction: its reasons, its model and training, its inputs, their gates, and the source files."""
    from lakehouse import explain as explanations
    from lakehouse import graphs, trees
    from lakehouse.prediction_id import prediction_id

    day = _interval(date) if date else None
    if day and not day.is_day:
        raise typer.BadParameter("--date takes one day.")
    if prediction is None:
        if not (model and key and day):
            raise typer.BadParameter("Give a PREDICTION_ID, or --model, --key and --date.")
        prediction = prediction_id(model, key, day.start)
    elif key:
        raise typer.BadParameter("Give a PREDICTION_ID or a --key, not both.")
    row = explanations.find(prediction, model, day.start if day else None, release)
    found = explanations.explain(row)
    _show(found, trees.of_explanation(found), graphs.page_of_explanation, as_json, html)


@app.command(rich_help_panel=QUERIES)
def impact(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DAYS|TABLE@VERSION|COLUMN|MODEL@VERSION",
            help="weather_2013-03-01.jsonl, 2013-03-01/2013-03-03, bronze.weather@3, bronze.weather.temperature_f "
            "or flight_delay@1.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with a drawn graph.")] = None,
) -> None:
    """Find everything that was made from something: tables, models and predictions, and whether they are visible."""
    from lakehouse import graphs, trees
    from lakehouse.impact import impact as run

    found = run(what)
    facts = {**asdict(found), "visible": found.visible}
    _show(facts, trees.of_impact(found), lambda _: graphs.page_of_impact(found), as_json, html)


@app.command(rich_help_panel=QUERIES)
def releases(
    table: Annotated[str | None, typer.Argument(help="Only the releases of this table.")] = None,
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """List what became visible, when, and why; a release is one set of tables."""
    from lakehouse.release import sets

    found = sets(table)[:limit]
    if as_json:
        print(json.dumps(found, default=str, indent=2))
        return
    for each in found:
        each["tables"] = "\n".join(f"{name} {shown}" for name, shown in each["tables"].items())
        each["released_at"] = f"{each['released_at']:%Y-%m-%d %H:%M:%S}"
    _table(["release", "released_at", "tables", "days", "reason", "by"], found)


@app.command(rich_help_panel=QUERIES)
def diff(
    before: Annotated[int, typer.Argument(metavar="RELEASE", help="The earlier release.")],
    after: Annotated[int, typer.Argument(metavar="RELEASE", help="The later one.")],
    table: Annotated[str | None, typer.Option(help="Only this table.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column that does not count (repeatable).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """Count the rows that were added, removed and changed between the states right after two releases."""
    from lakehouse.diff import diff as run

    found = [asdict(one) for one in run(before, after, table, ignore or ())]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        one["versions"] = f"{'none' if one['before'] is None else one['before']} → {one['after']}"
        one["key"] = ", ".join(one["key"])
        one["columns"] = ", ".join([f"+{c}" for c in one["columns_added"]] + [f"-{c}" for c in one["columns_removed"]])
    _table(["table", "versions", "added", "removed", "changed", "key", "columns"], found)


@app.command(rich_help_panel=QUERIES)
def profile(
    table: Annotated[str, typer.Argument(help="Such as gold.fct_flights.")],
    release: Annotated[int | None, typer.Option(help="As of this release; the present one without it.")] = None,
    version: Annotated[int | None, typer.Option(help="This Delta version, released or not.")] = None,
) -> None:
    """Count and measure each column of a table, keep that in ops.profiles, and write a page of it."""
    from lakehouse.profiles import profile as run

    print(run(table, release_id=release, version=version))


@app.command(rich_help_panel=DEVELOPMENT)
def suggest(
    table: Annotated[str, typer.Argument(help="Such as gold.fct_flights.")],
    version: Annotated[int | None, typer.Option(help="The Delta version to learn from, released or not.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the suite that there is.")] = False,
) -> None:
    """Write a first suite for a table from its profile; edit it before you rely on it."""
    from lakehouse.suggest import suggest as run

    print(run(table, version=version, force=force))


@app.command(rich_help_panel=QUERIES)
def lineage(
    name: Annotated[str, typer.Argument(metavar="TABLE[.COLUMN]", help="Such as gold.fct_flights.is_late.")],
    up: Annotated[bool, typer.Option("--up", help="Only what it is made from.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what is made from it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what a table or column is made from, back to the sources, and what is made from it."""
    from lakehouse import lineage_tree

    both = up == down
    if as_json:
        print(json.dumps(lineage_tree.facts(name, up=up or both, down=down or both), indent=2))
        return
    # Piped into another program, a line is not cut to the width of a terminal that is not there.
    console = Console(width=None if sys.stdout.isatty() else 1000)
    console.print(lineage_tree.tree(name, up=up or both, down=down or both))


@app.command(rich_help_panel=QUERIES)
def cost(
    by: Annotated[Literal["table", "model", "owner", "step"], typer.Option(help="What to add up by.")] = "table",
    interval: Annotated[
        Interval | None,
        typer.Option(
            "--interval",
            "-i",
            parser=_interval,
            metavar="DAY|FIRST/LAST",
            help="Days on which the steps ran; the last 30 without it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Add up what the steps have used, and what that costs; warn of budgets that are exceeded."""
    from lakehouse import cost as costs

    days = interval or costs.last_days(dt.datetime.now(dt.UTC).date())
    runs = costs.read(days)
    charged = costs.charges(runs)
    found = costs.totals(costs.owned(charged) if by == "owner" else charged, by, settings())
    warnings = list(costs.warnings(days.end).values())
    advice = costs.advice(runs, *costs.granted())
    if as_json:
        rows = [asdict(total) | {"per_1000_predictions": total.per_1000_predictions} for total in found]
        facts = {"days": str(days), "by": by, "currency": settings().currency, "totals": rows}
        print(json.dumps(facts | {"warnings": warnings, "advice": advice}, indent=2))
        return
    amount = f"cost in {settings().currency}"
    shown = [
        {
            by: total.name,
            "runs": total.runs,
            "seconds": f"{total.seconds:.1f}",
            "CPU s": f"{total.cpu_seconds:.1f}",
            "engine's CPU s": f"{total.engine_cpu_seconds:.1f}",
            "cores": f"{total.cores:.1f}",
            "bytes in": total.bytes_in,
            amount: f"{total.cost:.4f}",
            "per 1000 predictions": None if (each := total.per_1000_predictions) is None else f"{each:.4f}",
        }
        for total in found
    ]
    columns = [by, "runs", "seconds", "CPU s", "engine's CPU s", "cores", "bytes in", amount]
    _table([*columns, "per 1000 predictions"] if by == "model" else columns, shown)
    for line in [*warnings, *advice]:
        print(line)


@app.command("data-docs", rich_help_panel=QUERIES)
def data_docs(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
) -> None:
    """Write the list of Great Expectations' pages about the gates, and print where it is."""
    from lakehouse.data_docs import write_index

    path = write_index()
    print(path)
    if open_:
        typer.launch(path.as_uri())


alerts = typer.Typer(
    help="What the platform has told people about, and whether they have seen it.", no_args_is_help=True
)
app.add_typer(alerts, name="alerts", rich_help_panel=QUERIES)


@alerts.command("list")
def list_alerts(
    all_: Annotated[bool, typer.Option("--all", help="Also those that are acknowledged or over.")] = False,
) -> None:
    """List the alerts that wait for somebody, the newest first."""
    from lakehouse.alerts import read

    _table(
        ["alert", "raised_at", "severity", "table", "days", "message", "sent", "acknowledged_by", "over_since"],
        [
            {
                "alert": alert.alert_id,
                "raised_at": f"{alert.raised_at:%Y-%m-%d %H:%M}",
                "severity": alert.cause.severity,
                "table": alert.cause.table,
                "days": alert.cause.interval,
                "message": alert.cause.message,
                "sent": ", ".join(sorted(alert.sent)),
                "acknowledged_by": alert.acknowledged_by,
                "over_since": alert.resolved_at and f"{alert.resolved_at:%Y-%m-%d %H:%M}",
            }
            for alert in reversed(read())
            if all_ or alert.unanswered
        ],
    )


@alerts.command("ack")
def acknowledge_alert(
    alert_id: Annotated[int, typer.Argument(metavar="ID", help="Number of the alert.")],
    by: Annotated[str | None, typer.Option(help="Who has seen it; you without it.")] = None,
) -> None:
    """Say that you look after an alert, so that it is sent to nobody else."""
    from lakehouse.alerts import acknowledge

    alert = acknowledge(alert_id, by)
    print(f"{alert}\nacknowledged by {alert.acknowledged_by}")


@app.command(rich_help_panel=DEVELOPMENT)
def docs(
    interval: Annotated[
        Interval | None,
        typer.Option("--interval", "-i", parser=_interval, metavar="DAY|FIRST/LAST", help="Days of the SQL shown."),
    ] = None,
) -> None:
    """Write dbt's documentation of the warehouse: models, columns, tests, SQL and the graph."""
    from lakehouse import warehouse

    print(warehouse.docs(interval or Interval.parse(dt.date.today().isoformat())))


@app.command(rich_help_panel=DEVELOPMENT, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the test suite, in two processes where the machine has room; arguments go to pytest, which then is one."""
    from psutil import virtual_memory

    # Each has an engine of its own, and one of them the whole platform.
    room = len(os.sched_getaffinity(0)) > 1 and virtual_memory().available > 12 * 2**30
    arguments = context.args or (["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"] if room else [])
    raise typer.Exit(subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=PROJECT_DIR))


@app.command(
    rich_help_panel=DEVELOPMENT,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def bench(context: typer.Context) -> None:
    """Run benchmarks beside what each is compared with, and write the page of figures; --help tells the options."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "benchmarks", *context.args], cwd=PROJECT_DIR))


@app.command(
    rich_help_panel=DEVELOPMENT,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def faults(context: typer.Context) -> None:
    """Kill tasks and parts in the middle of the daily job, and compare; --help tells the options."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tests.faults", *context.args], cwd=PROJECT_DIR))


@app.command(rich_help_panel=DEVELOPMENT)
def check() -> None:
    """Lint, check the format, and check the types."""
    commands = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    results = [subprocess.call([sys.executable, "-m", *command], cwd=PROJECT_DIR) for command in commands]
    raise typer.Exit(max(results))


new = typer.Typer(help="Make the files of a new source, table or model.", no_args_is_help=True)
app.add_typer(new, name="new", rich_help_panel=DEVELOPMENT)


@new.command("source")
def new_source(
    name: str, format_: Annotated[str, typer.Option("--format", help="csv, jsonl, parquet, avro or jdbc.")] = "csv"
) -> None:
    """A contract and its suite."""
    from lakehouse import scaffold

    _made(scaffold.new_source(name, format_))


@new.command("table")
def new_table(name: str) -> None:
    """A gold table: query, properties and suite."""
    from lakehouse import scaffold

    _made(scaffold.new_table(name))


@new.command("model")
def new_model(name: str) -> None:
    """A model folder, and the suite of its predictions."""
    from lakehouse import scaffold

    _made(scaffold.new_model(name))


def _version(what: str) -> tuple[str, int | None]:
    model, at, version = what.partition("@")
    if at and not version.isdigit():
        raise typer.BadParameter("Give MODEL or MODEL@VERSION, such as flight_delay@2.")
    return model, int(version) if at else None


def _made(paths: list[Path]) -> None:
    for path in paths:
        print(f"made {path.relative_to(PROJECT_DIR)}")
    print("Edit them, then run `lake check` and `lake test`.")


def _prompt(limit: int, release: int | None) -> None:
    import readline  # noqa: F401  (gives input() its line editing and history)

    statement, prompt = "", "lake> " if release is None else f"lake@{release}> "
    while True:
        try:
            statement += input(prompt if not statement else f"{'->':>{len(prompt) - 1}} ") + "\n"
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            statement = ""
            continue
        if statement.strip() in ("", "quit", "exit", "\\q"):
            if statement.strip():
                return
            statement = ""
        elif statement.rstrip().endswith(";"):
            try:
                print_rows(statement.rstrip().rstrip(";"), False, False, limit, release)
            except _expected() as error:
                print(_first_lines(error), file=sys.stderr)
            statement = ""


def print_rows(
    query: str, as_csv: bool = False, as_json: bool = False, limit: int = 100, release: int | None = None
) -> None:
    """Run a query and print its rows.

    Args:
        query: Spark SQL.
        as_csv: Print CSV.
        as_json: Print a JSON array of objects.
        limit: Rows of a table that are printed at most; 0 prints all.
        release: Read every table as it was right after this release.
    """
    from lakehouse.as_of import as_of
    from lakehouse.engine import spark

    if release is not None:
        query = as_of(query, release)
    result = spark().sql(query)
    names = result.columns
    complete = as_csv or as_json or limit == 0
    rows = [dict(zip(names, row, strict=True)) for row in (result if complete else result.limit(limit + 1)).collect()]
    if as_json:
        print(json.dumps(rows, default=_plain, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([_plain(value) for value in row.values()] for row in rows)
    else:
        _table(names, rows if limit == 0 else rows[:limit])
        if limit and len(rows) > limit:
            print(f"Only the first {limit} rows are shown: use --limit, or --csv for all.", file=sys.stderr)


def _plain(value: Any) -> Any:
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if hasattr(value, "asDict"):
        return value.asDict(recursive=True)
    return value


def _table(names: list[str], rows: list[dict[str, Any]]) -> None:
    table = Table()
    for name in names:
        table.add_column(name, overflow="fold")  # a name that does not fit goes on in the next line
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in names))
    console = Console()
    # Piped into another program, a table is not cut to the width of a terminal that is not there.
    console.print(table, crop=console.is_terminal, soft_wrap=not console.is_terminal)


def _show(
    facts: dict[str, Any], tree: Tree, page: Callable[[dict[str, Any]], str], as_json: bool, html: Path | None
) -> None:
    if html is not None:
        from lakehouse import pages

        pages.write(html, page(facts))
        print(html)
    elif as_json:
        print(json.dumps(facts, default=_plain, indent=2))
    else:
        # Piped into another program, a line is not cut to the width of a terminal that is not there.
        console = Console() if sys.stdout.isatty() else Console(width=10_000)
        console.print(tree, highlight=False)


def _report(outcome: dict[str, Any]) -> None:
    print(json.dumps(outcome, default=str))


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose message is enough: the platform's own and the engine's, which needs no stack trace either."""
    engine = sys.modules.get("pyspark.errors")
    return (LakeError, engine.PySparkException) if engine else (LakeError,)


def _first_lines(error: BaseException) -> str:
    """What an error says, without the query's plan and the stacks of two languages."""
    if "pyspark" in sys.modules:
        from lakehouse.engine import GONE, lost, spark

        if lost(error):
            spark.cache_clear()  # whoever asks again gets a session of the new engine
            return f"{GONE} Ask again; `lake status` shows whether it is back."
    text = str(error).split("\n\nJVM stacktrace")[0]
    return re.sub(r"(; line \d+ pos \d+);\n.*", r"\1", text, flags=re.DOTALL).strip()


def _register() -> None:
    from lakehouse.platform.commands import register

    register(app)
    for extension in entry_points(group="lakehouse.commands"):
        extension.load()(app)


def main() -> None:
    """Run the command line; an expected error is one clear message and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lakehouse").setLevel(logging.INFO)
    try:
        _register()
        app()
    except UnknownSettingError as error:
        print(f"lake: {error}", file=sys.stderr)
        sys.exit(2)
    except ValidationError as error:
        print(f"lake: lake.toml or the environment has a wrong setting: {error}", file=sys.stderr)
        sys.exit(2)
    except _expected() as error:
        print(f"lake: {_first_lines(error)}", file=sys.stderr)
        sys.exit(1)

"""``lake sql``, ``explain``, ``lineage`` and the other commands that look at data."""

from __future__ import annotations

import datetime as dt
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from lakehouse.cli.arguments import PageOption, days_option, parse_day, parse_version
from lakehouse.cli.printing import console, print_rows, print_table, show
from lakehouse.cli.prompt import prompt, script
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.settings import settings

PANEL = "Looking at data"


def sql(
    query: Annotated[
        str | None,
        typer.Argument(
            help="Spark SQL. Without it an interactive prompt, or the statements of a file: lake sql < FILE."
        ),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
    limit: Annotated[
        int, typer.Option(help="Rows of a table that are printed at most, 100 without it; 0 prints all.")
    ] = 100,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="Every table as it was right after this release.")
    ] = None,
) -> None:
    """Query the released tables."""
    if as_csv and as_json:
        raise typer.BadParameter("Give --csv or --json.")
    if query is None and sys.stdin is None:
        raise typer.BadParameter("There is no input to read statements from: give one as an argument.")
    if query is None and sys.stdin.isatty():
        prompt(limit, release)
        return
    statements = script(sys.stdin.read()) if query is None else [query]
    if len(statements) > 1 and (as_csv or as_json):
        raise typer.BadParameter("--csv and --json are for one statement.")
    for statement in statements:
        print_rows(statement, as_csv, as_json, limit, release)


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
    from lakehouse.ml import model_folders
    from lakehouse.registry import model_versions, registry, roles

    if card:
        name, number = parse_version(model or "")
        spec = model_folders.load(name)
        wanted = roles.champion(spec.name) if number is None else model_versions.find(spec.name, number)
        print(registry.card(wanted))
        return
    if model is not None:
        for event in roles.events(model_folders.load(model).name):
            print(
                f"{event['at']:%Y-%m-%d %H:%M} version {event['model_version']} {event['event']}, may score from "
                f"{event['serves_from']} on, by {event['decided_by']}: {event['reason']}"
            )
        return
    shown = []
    for spec in model_folders.readable():
        log = roles.events(spec.name)
        office = roles.in_office(log) or dict.fromkeys(["model_version", "serves_from"])
        champion = {"champion": office["model_version"], "since": office["serves_from"]}
        shown.append({"model": spec.name, **champion, "challenger": roles.challenging(log), "owner": spec.owner})
    print_table(["model", "champion", "since", "challenger", "owner"], shown)
    for problem in model_folders.problems().values():
        typer.echo(problem, err=True)


def explain(
    prediction: Annotated[str | None, typer.Argument(metavar="PREDICTION_ID", help="Its prediction_id.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of a model folder.")] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(help="What it is about: its entity key, with one --key for each column, in order."),
    ] = None,
    date: Annotated[
        dt.date | None, typer.Option(parser=parse_day, metavar="DAY", help="Its day, such as 2013-03-01.")
    ] = None,
    release: Annotated[
        int | None, typer.Option(metavar="RELEASE", help="As readers saw it right after this release.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    html: PageOption = None,
) -> None:
    """Explain a prediction: its reasons, its model and training, its inputs, their gates, and the source files."""
    from lakehouse.provenance import explain as explanations
    from lakehouse.provenance import graphs, trees

    _one_of(as_json, html)
    if prediction is None:
        if not (model and key and date):
            raise typer.BadParameter("Give a PREDICTION_ID, or --model, --key and --date.")
        row = explanations.find_about(model, key, date, release)
    elif key:
        raise typer.BadParameter("Give a PREDICTION_ID or a --key, not both.")
    else:
        row = explanations.find(prediction, model, date, release)
    found = explanations.explain(row)
    show(found, trees.of_explanation(found), graphs.page_of_explanation, as_json, html)


def impact(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|DAYS|TABLE@VERSION|COLUMN|MODEL@VERSION",
            help="weather_2013-03-01.jsonl, 2013-03-01/2013-03-03, bronze.weather@3, bronze.weather.temperature_f, "
            "models.flight_delay.score, ml.predictions_flight_delay.decision or flight_delay@1.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
    html: PageOption = None,
) -> None:
    """Find everything that was made from something: tables, models and predictions, and whether they are visible."""
    from lakehouse.provenance import graphs, trees
    from lakehouse.provenance.impact import impact as run

    _one_of(as_json, html)
    try:
        found = run(what)
    except InvalidIntervalError as error:
        raise typer.BadParameter(str(error)) from error
    facts = {**asdict(found), "visible": found.visible}
    show(facts, trees.of_impact(found), lambda _: graphs.page_of_impact(found), as_json, html)


def _one_of(as_json: bool, html: Path | None) -> None:
    if as_json and html:
        raise typer.BadParameter("--html writes a page, --json prints: give one of them.")


def releases(
    table: Annotated[str | None, typer.Argument(help="Only the releases of this table.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest; 20 without it.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """List what became visible, when, and why; a release is one set of tables."""
    from lakehouse.release_log import NotReleasedError, sets

    found = sets(table)
    if table and not found:
        raise NotReleasedError(f"No release has changed {table}. `lake releases` lists the newest of all tables.")
    found = found[:limit]
    if as_json:
        print(json.dumps(found, default=str, indent=2))
        return
    for each in found:
        each["tables"] = "\n".join(f"{name} {shown}" for name, shown in each["tables"].items())
        each["released_at"] = f"{each['released_at']:%Y-%m-%d %H:%M:%S}"
    print_table(["release", "released_at", "tables", "days", "reason", "by"], found)


def diff(
    before: Annotated[int, typer.Argument(metavar="RELEASE", help="The earlier release.")],
    after: Annotated[int, typer.Argument(metavar="RELEASE", help="The later one.")],
    table: Annotated[str | None, typer.Option(help="Only this table.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column that does not count (repeatable).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
) -> None:
    """Count the rows that were added, removed and changed between the states right after two releases."""
    from lakehouse.releases.diff import diff as run

    found = [asdict(one) for one in run(before, after, table, ignore or ())]
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        one["versions"] = f"{'none' if one['before'] is None else one['before']} → {one['after']}"
        one["key"] = ", ".join(one["key"])
        one["columns"] = ", ".join([f"+{c}" for c in one["columns_added"]] + [f"-{c}" for c in one["columns_removed"]])
    print_table(["table", "versions", "added", "removed", "changed", "key", "columns"], found)


def profile(
    table: Annotated[str, typer.Argument(help="Such as gold.fct_flights.")],
    release: Annotated[int | None, typer.Option(help="As of this release; the present one without it.")] = None,
    version: Annotated[int | None, typer.Option(help="This Delta version, released or not.")] = None,
) -> None:
    """Count and measure each column of a table, keep that in ops.profiles, and write a page of it."""
    from lakehouse.quality.profiles import profile as run

    print(run(table, release_id=release, version=version))


def lineage(
    name: Annotated[str, typer.Argument(metavar="TABLE[.COLUMN]", help="Such as gold.fct_flights.is_late.")],
    up: Annotated[bool, typer.Option("--up", help="Only what it is made from.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what is made from it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show what a table or column is made from, back to the sources, and what is made from it."""
    from lakehouse.lineage import lineage_tree

    both = up == down
    if as_json:
        print(json.dumps(lineage_tree.facts(name, up=up or both, down=down or both), indent=2))
        return
    console().print(lineage_tree.tree(name, up=up or both, down=down or both))


def cost(
    by: Annotated[
        Literal["table", "model", "owner", "step"],
        typer.Option(help="What to add up by: table, model, owner or step; table without it."),
    ] = "table",
    interval: Annotated[
        Interval | None,
        days_option("Days on which the steps ran; the last 30 without it."),
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
    print_table([*columns, "per 1000 predictions"] if by == "model" else columns, shown)
    for line in [*warnings, *advice]:
        print(line)


def data_docs(
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser of this machine.")] = False,
) -> None:
    """Write the list of Great Expectations' pages about the gates, and print where it is."""
    from lakehouse.quality.data_docs import write_index

    path = write_index()
    print(path)
    if open_:
        typer.launch(path.as_uri())


def register(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which its help lists them.

    Args:
        app: The ``lake`` command.
    """
    for query in (sql, models, explain, impact, releases, diff, profile, lineage, cost, data_docs):
        app.command(rich_help_panel=PANEL)(query)

"""The ``lake`` command: everything that Airflow runs can be run by hand, and the platform is managed."""

from __future__ import annotations

import csv
import datetime as dt
import json
import logging
import subprocess
import sys
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from lakehouse.errors import LakeError
from lakehouse.interval import Interval, InvalidIntervalError
from lakehouse.settings import PROJECT_DIR, UnknownSettingError

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


IntervalOption = Annotated[
    Interval,
    typer.Option("--interval", "-i", parser=_interval, metavar="DAY|FIRST/LAST", help="Day, or range of days."),
]
Names = Annotated[list[str], typer.Argument(metavar="TABLE…", help="Such as gold.fct_flights.")]


@app.command(rich_help_panel=STEPS)
def land(source: Annotated[str, typer.Argument(help="Name of a contract.")], interval: IntervalOption) -> None:
    """Land an interval of a source in bronze; bad rows go to quarantine."""
    from lakehouse.steps import job

    _report(job("land")(source, interval))


@app.command(rich_help_panel=STEPS)
def replay(source: Annotated[str, typer.Argument(help="Name of a contract.")], interval: IntervalOption) -> None:
    """Take the quarantined rows of an interval through the contract and suite as they are now."""
    from lakehouse.steps import job

    _report(job("replay")(source, interval))


@app.command(rich_help_panel=STEPS)
def gate(names: Names, interval: IntervalOption) -> None:
    """Check what was written to tables, as one set; withdraw it if it does not pass."""
    from lakehouse.audit import gate as run

    _report(run(names, interval))


@app.command(rich_help_panel=STEPS)
def release(names: Names, interval: IntervalOption) -> None:
    """Make the audited versions of tables visible, as one set."""
    from lakehouse.release import release as run

    _report({"release_id": run(names, interval)})


@app.command(rich_help_panel=STEPS)
def build(
    interval: IntervalOption,
    select: Annotated[str | None, typer.Option(help="dbt's selection of models; all without it.")] = None,
) -> None:
    """Build the warehouse with dbt: the silver views and the next versions of the gold tables."""
    from lakehouse import warehouse

    _report(warehouse.build(interval, select))


@app.command(rich_help_panel=STEPS)
def train(model: Annotated[str, typer.Argument(help="Name of a model folder.")], interval: IntervalOption) -> None:
    """Train a model on the released features of a window, and register it."""
    from lakehouse.steps import job

    _report(job("train")(model, interval))


@app.command(rich_help_panel=STEPS)
def score(model: Annotated[str, typer.Argument(help="Name of a model folder.")], interval: IntervalOption) -> None:
    """Score an interval with the champion of a model."""
    from lakehouse.steps import job

    _report(job("score")(model, interval))


@app.command(rich_help_panel=QUERIES)
def sql(
    query: Annotated[str | None, typer.Argument(help="Spark SQL; an interactive prompt without it.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of objects.")] = False,
    limit: Annotated[int, typer.Option(help="Rows of a table that are printed at most; 0 prints all.")] = 100,
) -> None:
    """Query the released tables."""
    if query is None:
        _prompt(limit)
        return
    print_rows(query, as_csv, as_json, limit)


@app.command(rich_help_panel=QUERIES)
def releases(
    table: Annotated[str | None, typer.Argument(help="Only the releases of this table.")] = None,
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
) -> None:
    """List what became visible, and when."""
    from lakehouse import ops

    rows = ops.read("ops.releases").sort_by([("release_id", "descending"), ("table_name", "ascending")]).to_pylist()
    chosen = [row for row in rows if table in (None, row["table_name"])][:limit]
    _table(["release_id", "released_at", "table_name", "version", "previous_version", "reason"], chosen)


@app.command(rich_help_panel=DEVELOPMENT, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def test(context: typer.Context) -> None:
    """Run the test suite; further arguments go to pytest."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "pytest", *context.args], cwd=PROJECT_DIR))


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
    name: str, format_: Annotated[str, typer.Option("--format", help="csv, jsonl, parquet or jdbc.")] = "csv"
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


def _made(paths: list[Path]) -> None:
    for path in paths:
        print(f"made {path.relative_to(PROJECT_DIR)}")
    print("Edit them, then run `lake check` and `lake test`.")


def _prompt(limit: int) -> None:
    import readline  # noqa: F401  (gives input() its line editing and history)

    statement = ""
    while True:
        try:
            statement += input("lake> " if not statement else "   -> ") + "\n"
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
                print_rows(statement.rstrip().rstrip(";"), False, False, limit)
            except _expected() as error:
                print(_first_lines(error), file=sys.stderr)
            statement = ""


def print_rows(query: str, as_csv: bool = False, as_json: bool = False, limit: int = 100) -> None:
    """Run a query and print its rows.

    Args:
        query: Spark SQL.
        as_csv: Print CSV.
        as_json: Print a JSON array of objects.
        limit: Rows of a table that are printed at most; 0 prints all.
    """
    from lakehouse.engine import spark

    result = spark().sql(query)
    names = result.columns
    complete = as_csv or as_json or limit == 0
    rows = [dict(zip(names, row, strict=True)) for row in (result if complete else result.limit(limit + 1)).collect()]
    if as_json:
        print(json.dumps(rows, default=_plain, indent=2))
    elif as_csv:
        writer = csv.writer(sys.stdout)
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
    table = Table(*names)
    for row in rows:
        table.add_row(*("" if row[name] is None else str(row[name]) for name in names))
    console = Console()
    # Piped into another program, a table is not cut to the width of a terminal that is not there.
    console.print(table, crop=console.is_terminal, soft_wrap=not console.is_terminal)


def _report(outcome: dict[str, Any]) -> None:
    print(json.dumps(outcome, default=str))


def _expected() -> tuple[type[Exception], ...]:
    """Errors whose message is enough: the platform's own and the engine's, which needs no stack trace either."""
    engine = sys.modules.get("pyspark.errors")
    return (LakeError, engine.PySparkException) if engine else (LakeError,)


def _first_lines(error: BaseException) -> str:
    return str(error).split("\n\nJVM stacktrace")[0].strip()


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

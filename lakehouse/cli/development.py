"""``lake test``, ``check``, ``new`` and the other commands for those who change the platform or what runs on it."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from lakehouse.cli.arguments import days_option
from lakehouse.interval import Interval
from lakehouse.settings import PROJECT_DIR

PANEL = "Development"

new = typer.Typer(help="Make the files of a new source, table or model.", no_args_is_help=True)


def suggest(
    table: Annotated[str, typer.Argument(help="Such as gold.fct_flights.")],
    version: Annotated[int | None, typer.Option(help="The Delta version to learn from, released or not.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the suite that there is.")] = False,
) -> None:
    """Write a first suite for a table from its profile; edit it before you rely on it."""
    from lakehouse.quality.suggest import suggest as run

    print(run(table, version=version, force=force))


def docs(
    interval: Annotated[
        Interval | None,
        days_option("Days of the SQL shown; today without it."),
    ] = None,
) -> None:
    """Write dbt's documentation of the warehouse: models, columns, tests, SQL and the graph."""
    from lakehouse import dbt_project

    print(dbt_project.docs(interval or Interval.parse(dt.date.today().isoformat())))


def test(context: typer.Context) -> None:
    """Run the test suite, or folders of it, in two processes where the machine has room; arguments go to pytest."""
    from psutil import virtual_memory

    # Each has an engine of its own, and one of them the whole platform.
    room = len(os.sched_getaffinity(0)) > 1 and virtual_memory().available > 12 * 2**30
    whole = all((PROJECT_DIR / argument).is_dir() for argument in context.args)
    processes = ["-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"] if room and whole else []
    raise typer.Exit(subprocess.call([sys.executable, "-m", "pytest", *processes, *context.args], cwd=PROJECT_DIR))


def bench(context: typer.Context) -> None:
    """Run benchmarks beside what each is compared with, and write the page of figures; --help tells the options."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "benchmarks", *context.args], cwd=PROJECT_DIR))


def faults(context: typer.Context) -> None:
    """Kill, stop or starve tasks and parts in the middle of the daily job, and compare; --help tells the options."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "tests.faults", *context.args], cwd=PROJECT_DIR))


def check() -> None:
    """Read all contracts, models and suites, lint, and check the format, the types and who imports whom."""
    commands = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports", "--no-logo"])
    tools = Path(sys.executable).parent
    if missing := [tool for tool, *_ in commands if not (tools / tool).exists()]:
        print(f"{', '.join(missing)}: not in {tools}. `./lake check` installs the development tools.")
        raise typer.Exit(1)
    declared = _check_declared()  # first, as the rest takes longer
    sys.stdout.flush()
    results = [subprocess.call([tools / tool, *arguments], cwd=PROJECT_DIR) for tool, *arguments in commands]
    raise typer.Exit(max(*results, declared))


def _check_declared() -> int:
    """Print what is wrong with what is declared, and what an author should know of it; 1 if something is wrong."""
    from lakehouse import contracts
    from lakehouse.landing.batches import TYPES
    from lakehouse.ml import model_folders
    from lakehouse.quality import suites

    # With a drift that lets columns in, a rule may be about one that the contract does not have.
    columns = {
        contract.table: [*(column.name for column in contract.columns), *TYPES]
        for contract in contracts.readable()
        if contract.schema_drift != "evolve"
    }
    found = [suites.lint(suites.suite_path(name), columns.get(name)) for name in suites.names()]
    for note in (note for lint in found for note in lint.notes):
        print(f"note: {note}")
    declared = [*contracts.problems().values(), *model_folders.problems().values()]
    problems = [*declared, *(problem for lint in found for problem in lint.problems)]
    for problem in problems:
        print(problem)
    if not problems:
        print("All contracts, models and suites are valid.")
    return int(bool(problems))


@new.command("source")
def new_source(
    name: str,
    format_: Annotated[str, typer.Option("--format", help="csv, jsonl, parquet, avro or jdbc.")] = "csv",
    history_start: Annotated[
        dt.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], metavar="DAY", help="The first day that there is data for; today without."),
    ] = None,
) -> None:
    """A contract and its suite."""
    from lakehouse import scaffold

    _made(scaffold.new_source(name, format_, history_start.date() if history_start else None))


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


def register(app: typer.Typer) -> None:
    """Add the commands to the command line, in the order in which its help lists them.

    Args:
        app: The ``lake`` command.
    """
    # Arguments that these do not know are those of the program that they start.
    passing_on = {"allow_extra_args": True, "ignore_unknown_options": True}
    app.command(rich_help_panel=PANEL)(suggest)
    app.command(rich_help_panel=PANEL)(docs)
    app.command(rich_help_panel=PANEL, context_settings=passing_on)(test)
    for command in (bench, faults):
        app.command(rich_help_panel=PANEL, context_settings={**passing_on, "help_option_names": []})(command)
    app.command(rich_help_panel=PANEL)(check)
    app.add_typer(new, name="new", rich_help_panel=PANEL)


def _made(paths: list[Path]) -> None:
    for path in paths:
        print(f"made {path.relative_to(PROJECT_DIR)}")
    print("Edit them, then run `lake check`; `lake test` runs all tests of the platform with them.")

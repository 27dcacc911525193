"""``lake up``, ``down``, ``status``, ``logs``, ``doctor`` and ``reset``."""

from __future__ import annotations

import subprocess
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from lakehouse.settings import MLFLOW_USER, settings

NOT_RUNNING = 3

PartNames = Annotated[
    list[str] | None,
    typer.Argument(metavar="PART", help="Parts, with what they need: postgres, engine, mlflow, airflow …"),
]


def up(names: PartNames = None) -> None:
    """Start the platform, or some parts of it, and wait until it works."""
    from lakehouse.platform import lifecycle
    from lakehouse.platform.airflow import ADMIN_USER
    from lakehouse.platform.parts import select

    lifecycle.up(names or (), say=_say)
    s = settings()
    wanted = select(names or ())
    _say("")
    if "api-server" in wanted:
        _say(f"Airflow   {s.airflow_base_url}   user {ADMIN_USER}, password: airflow_admin_password")
    if "mlflow" in wanted:
        _say(f"MLflow    {s.mlflow_uri}   user {MLFLOW_USER}, password: mlflow_password")
    if "engine" in wanted:
        _say(f"SQL       jdbc:hive2://127.0.0.1:{s.ports.thrift}   user lake, password: sql_password")
    _say(f"The passwords are in {s.home / 'secrets.json'}. `lake down` stops everything.")


def down() -> None:
    """Stop the platform in good order, and wait until it has stopped."""
    from lakehouse.platform import lifecycle

    lifecycle.down(say=_say)
    _say("Stopped.")


def status() -> None:
    """Show how each part stands; exit code 0 when all of them work, 3 when not."""
    from lakehouse.platform import lifecycle

    found = lifecycle.status()
    table = Table("part", "state", "pid", "ports", "health", "up for")
    for one in found:
        table.add_row(
            one.part.name,
            one.state,
            str(one.pid or ""),
            " ".join(str(port) for port in one.part.port_numbers().values()),
            one.health,
            f"{one.uptime // 3600}:{one.uptime // 60 % 60:02}:{one.uptime % 60:02}" if one.pid else "",
        )
    Console(soft_wrap=False).print(table)
    if not all(one.works for one in found):
        raise typer.Exit(NOT_RUNNING)


def logs(
    names: PartNames = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines; 50 without it.")] = 50,
) -> None:
    """Show the logs of all parts, or of some."""
    from lakehouse.platform.errors import PlatformError
    from lakehouse.platform.parts import parts

    known = parts()
    for name in names or ():
        if not any(name in (part.name, *part.groups) for part in known.values()):
            raise PlatformError(f"There is no part {name!r} here. The parts are: {', '.join(known)} (or: airflow).")
    files = [
        part.log
        for part in known.values()
        if (not names or {part.name, *part.groups} & set(names)) and part.log.exists()
    ]
    if not files:
        raise PlatformError(f"There are no logs in {settings().home / 'logs'} yet: nothing was started.")
    try:
        subprocess.run(["tail", "-n", str(lines), *(["-F"] if follow else []), *files], check=False)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def doctor() -> None:
    """Say what is wrong with this machine or the platform, and the way out; exit code 1 when something is."""
    from lakehouse.platform.doctor import examine

    problems = 0
    for finding in examine():
        mark = {True: "ok  ", False: "FAIL"}[finding.fine]
        _say(f"{mark}  {finding.subject}: {finding.found}")
        if not finding.fine:
            problems += 1
            _say(f"      way out: {finding.way_out}")
    if problems:
        raise typer.Exit(1)


def reset(yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
    """Stop the platform and delete all of its state: data, databases, models, logs, passwords."""
    from lakehouse.platform import lifecycle

    if not yes:
        typer.confirm(f"Delete {settings().home} with everything in it?", abort=True)
    lifecycle.reset(say=_say)
    _say(f"{settings().home} is gone.")


def airflow(context: typer.Context) -> None:
    """Airflow's own command line, against this platform: `lake airflow users list`."""
    from lakehouse.platform.airflow import command

    command(context.args)


def register(app: typer.Typer) -> None:
    """Add the commands to an application.

    Args:
        app: The application.
    """
    for command in (up, down, status, logs, doctor, reset):
        app.command()(command)
    # Every option, --help among them, is Airflow's.
    everything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(context_settings=everything)(airflow)


def _say(line: str) -> None:
    typer.echo(line)

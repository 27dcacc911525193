"""The ``lake`` command: everything that Airflow runs can be run by hand, and the platform is managed."""

from __future__ import annotations

import logging
import sys
from importlib.metadata import entry_points
from importlib.metadata import version as distribution_version
from typing import Annotated

import typer
from pydantic import ValidationError

from lakehouse.cli import alerts, development, queries, steps
from lakehouse.cli.errors import expected, first_lines
from lakehouse.platform import commands as platform
from lakehouse.settings import InvalidSettingError


def _say_version(asked: bool) -> None:
    if asked:
        print(f"lakehouse {distribution_version('lakehouse')}")
        raise typer.Exit


def command_line() -> typer.Typer:
    """Put the ``lake`` command together, with the commands of the platform and of every installed extension.

    Returns:
        The command. Its help lists panels and commands in the order in which they are added here.
    """
    app = typer.Typer(
        name="lake",
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for commands in (steps, queries, alerts, development, platform):
        commands.register(app)
    for extension in entry_points(group="lakehouse.commands"):
        extension.load()(app)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Data lakehouse and batch-ML platform: run it, load it, query it."""


def main() -> None:
    """Run the command line; an expected error is one clear message and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("lakehouse").setLevel(logging.INFO)
    try:
        lake = command_line()
        lake()
    except InvalidSettingError as error:
        print(f"lake: {error}", file=sys.stderr)
        sys.exit(2)
    except ValidationError as error:
        for each in error.errors():
            setting = ".".join(map(str, each["loc"]))
            print(f"lake: the setting {setting} is wrong: {each['msg']}, not {each['input']!r}.", file=sys.stderr)
        print("lake: docs/reference/settings.md lists what can be set in lake.toml and by variables.", file=sys.stderr)
        sys.exit(2)
    except expected() as error:
        print(f"lake: {first_lines(error)}", file=sys.stderr)
        sys.exit(1)

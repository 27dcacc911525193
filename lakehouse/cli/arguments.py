"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lakehouse.interval import Interval, InvalidIntervalError


def parse_interval(text: str) -> Interval:
    """Read a day or a range of days, or refuse it as a wrong argument."""
    try:
        return Interval.parse(text)
    except InvalidIntervalError as error:
        raise typer.BadParameter(str(error)) from error


def parse_version(what: str) -> tuple[str, int | None]:
    """Take ``MODEL[@VERSION]`` apart, or refuse it as a wrong argument."""
    model, at, version = what.partition("@")
    if at and not version.isdigit():
        raise typer.BadParameter("Give MODEL or MODEL@VERSION, such as flight_delay@2.")
    return model, int(version) if at else None


def _sources() -> list[str]:
    from lakehouse import contracts

    return contracts.sources()


def _models() -> list[str]:
    from lakehouse import registry

    return registry.models()


SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a contract.", autocompletion=_sources)]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model folder.", autocompletion=_models)]


def days_option(meaning: str) -> Any:
    """The option ``--interval``.

    Args:
        meaning: Its help text.
    """
    return typer.Option("--interval", "-i", parser=parse_interval, metavar="DAY|FIRST/LAST", help=meaning)


IntervalOption = Annotated[Interval, days_option("Day, or range of days.")]
TableNames = Annotated[list[str], typer.Argument(metavar="TABLE", help="Such as gold.fct_flights.")]

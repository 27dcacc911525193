"""Arguments and options that several commands share."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any

import typer

from lakehouse.interval import Interval, InvalidIntervalError, day
from lakehouse.wording import did_you_mean


def parse_interval(text: str) -> Interval:
    """Read a day or a range of days, or refuse it as a wrong argument."""
    try:
        return Interval.parse(text)
    except InvalidIntervalError as error:
        raise typer.BadParameter(str(error)) from error


def parse_day(text: str) -> dt.date:
    """Read a day, or refuse it as a wrong argument."""
    try:
        return day(text)
    except ValueError as error:
        raise typer.BadParameter(f"Give one day, such as 2013-03-01: {error}.") from error


def check_page(path: Path | None) -> Path | None:
    """Refuse a file that no page can be written to, before the page is made."""
    try:
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            reason = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
            raise typer.BadParameter(f"{path} {reason}: name the file to write.")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}.") from error
    return path


def parse_version(what: str) -> tuple[str, int | None]:
    """Take ``MODEL[@VERSION]`` apart, or refuse it as a wrong argument."""
    model, at, version = what.partition("@")
    if at and not version.isdigit():
        raise typer.BadParameter("Give MODEL or MODEL@VERSION, such as flight_delay@2.")
    return model, int(version) if at else None


def check_tables(names: list[str]) -> None:
    """Refuse what is no table that is gated, as a wrong argument."""
    known = _tables()
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, "Tables are named as in gold.fct_flights.", most=3)
            raise typer.BadParameter(f"{name!r} is no table with a suite of expectations.{hint}")


def _tables() -> list[str]:
    from lakehouse.quality import suites

    return suites.names()


def _sources() -> list[str]:
    from lakehouse import contracts

    return contracts.sources()


def _models() -> list[str]:
    from lakehouse.ml import model_folders

    return model_folders.models()


SourceName = Annotated[str, typer.Argument(metavar="SOURCE", help="Name of a contract.", autocompletion=_sources)]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model folder.", autocompletion=_models)]


def days_option(meaning: str) -> Any:
    """The option ``--interval``.

    Args:
        meaning: Its help text.
    """
    return typer.Option("--interval", "-i", parser=parse_interval, metavar="DAY|FIRST/LAST", help=meaning)


IntervalOption = Annotated[Interval, days_option("Day, or range of days.")]
PageOption = Annotated[
    Path | None,
    typer.Option("--html", callback=check_page, metavar="FILE", help="Write a page with a drawn graph."),
]
TableNames = Annotated[
    list[str],
    typer.Argument(metavar="TABLE", help="Such as gold.fct_flights.", autocompletion=_tables),
]

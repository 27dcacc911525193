"""The data files of a version of a table, and the days that they hold, out of the Delta log."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from lakehouse import tables


@dataclass(frozen=True)
class DataFile:
    """A data file of a version.

    Attributes:
        path: Within the table's folder, as the log writes it.
        bytes: Its size.
        rows: How many it has; None when its writer has not said so.
        first: The earliest day of its rows; None without statistics, or without a row that has a day.
        last: The latest day of its rows.
    """

    path: str
    bytes: int
    rows: int | None
    first: dt.date | None
    last: dt.date | None


def data_files(stored: str, column: str, version: int | None = None) -> list[DataFile]:
    """The data files of a version, by path.

    Args:
        stored: Name of an existing stored table.
        column: DATE column that tells a row's day, of which the table keeps statistics.
        version: Which; the newest without it.

    Raises:
        deltalake.exceptions.DeltaError: The log does not hold the version, or is damaged.
    """
    log = tables.delta(stored, version)
    if log is None:
        raise LookupError(f"The table {stored} does not exist.")
    actions = log.get_add_actions(flatten=True)
    names = set(actions.column_names)
    columns = ("path", "size_bytes", "num_records", f"min.{column}", f"max.{column}")
    values = [actions[name].to_pylist() if name in names else [None] * actions.num_rows for name in columns]
    return sorted((DataFile(*row) for row in zip(*values, strict=True)), key=lambda file: file.path)

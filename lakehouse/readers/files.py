"""What the readers of files share: listing, hashing, and where a record stands in its file."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import TYPE_CHECKING

import fsspec

from lakehouse.readers import SourceError
from lakehouse.settings import settings

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

_CHUNK = 1 << 20


def delivered(contract: Contract, interval: Interval) -> dict[str, dt.date]:
    """The path of each file that an interval consists of, and its day.

    Args:
        contract: Contract of a source of files.
        interval: The days wanted.

    Returns:
        Path or URL to day; whether the files exist is not looked at.
    """
    return {path: day for day, path in contract.locations(interval, settings().drop_url).items()}


def missing(contract: Contract, interval: Interval) -> list[str]:
    """The files of an interval that have not arrived.

    Args:
        contract: Contract of a source of files.
        interval: The days wanted.
    """
    return [path for path in delivered(contract, interval) if not fsspec.url_to_fs(path)[0].exists(path)]


def fingerprints(paths: list[str]) -> dict[str, dict[str, str | int]]:
    """Size in bytes and SHA-256 of each file.

    Args:
        paths: Files that exist.

    Raises:
        SourceError: A file is not there, or has no bytes at all.
    """
    found: dict[str, dict[str, str | int]] = {}
    absent = [path for path in paths if not fsspec.url_to_fs(path)[0].exists(path)]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        raise SourceError(f"{len(absent)} of {len(paths)} files have not arrived: {shown}.")
    for path in paths:
        digest, size = hashlib.sha256(), 0
        with fsspec.open(path, "rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        if size == 0:
            raise SourceError(f"{path} is empty (0 bytes). Ask its sender to deliver it again, then run this again.")
        found[relative(path)] = {"bytes": size, "sha256": digest.hexdigest()}
    return found


def relative(path: str) -> str:
    """A path as seen from the drop folder, or as it is when it lies elsewhere."""
    return path.removeprefix(settings().drop_url.rstrip("/") + "/")


def with_position(df: DataFrame, paths: dict[str, dt.date], order: list[Column]) -> DataFrame:
    """Add ``_source_file``, ``_source_row`` and ``_interval`` to records that carry ``_path``.

    Args:
        df: Records with ``_path``, the URL that Spark read them from.
        paths: Path to day of each file that was read.
        order: What sorts the records of one file as they stand in it.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    known = F.create_map(
        *(F.lit(item) for path, day in paths.items() for item in (_name(path), f"{relative(path)}\n{day.isoformat()}"))
    )
    found = F.split(known[F.element_at(F.split(F.url_decode("_path"), "/"), -1)], "\n")
    return (
        df.withColumn("_source_file", found[0])
        .withColumn("_interval", found[1].cast("date"))
        .withColumn("_source_row", F.row_number().over(Window.partitionBy("_path").orderBy(*order)).cast("bigint"))
        .drop("_path")
    )


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1]

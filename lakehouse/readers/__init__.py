"""Readers: bring what a source delivered into one common shape, every value as it arrived.

A reader returns the contract's columns (text for CSV and JSON lines, typed for Parquet and databases) and

- ``_source_file`` and ``_source_row``: where the record stands; rows count from 1, a header is not a row;
- ``_raw``: the record as text;
- ``_malformed``: why the record could not be taken apart, else null.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

PROVENANCE = ("_source_file", "_source_row", "_raw", "_malformed")


class SourceError(LakeError):
    """What the source delivered cannot be read as its contract says."""


@dataclass(frozen=True)
class Batch:
    """What a source delivered for an interval.

    Attributes:
        rows: The records, in the readers' common shape, with ``_interval``.
        files: Path to size in bytes and SHA-256 of each file; empty for a database.
    """

    rows: DataFrame
    files: dict[str, dict[str, str | int]] = field(default_factory=dict)


def read(contract: Contract, interval: Interval) -> Batch:
    """Read what a source delivered for an interval with the reader that its contract names.

    Args:
        contract: The source's contract; its format names a module of this package.
        interval: The days to read.

    Raises:
        SourceError: A file is missing, empty or has another header than the contract's.
    """
    reader = importlib.import_module(f"lakehouse.readers.{contract.format}")
    batch: Batch = reader.read(contract, interval)
    return batch


def missing(contract: Contract, interval: Interval) -> list[str]:
    """What an interval still waits for; a database is always there.

    Args:
        contract: The source's contract.
        interval: The days wanted.
    """
    if contract.format == "jdbc":
        return []
    from lakehouse.readers import files

    return files.missing(contract, interval)

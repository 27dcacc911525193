"""Readers: bring what a source delivered into one common shape, every value as it arrived.

A reader returns the contract's columns (text for CSV and JSON lines, typed for Parquet and databases) and

- ``_source_file`` and ``_source_row``: where the record stands; rows count from 1, a header is not a row;
- ``_raw``: the record as it arrived: text, or a struct of typed values, of which
  :func:`lakehouse.readers.jsonl.as_text` makes JSON; JSON where files have several schemas;
- ``_columns``: the names of the fields of ``_raw`` in their order, where the record itself does not have them;
- ``_malformed``: code and text of why the record could not be taken apart, or of what it has too much, else null.

The same reader takes records apart that were kept as text, so that a replay reads them as landing did.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lakehouse.readers import files
from lakehouse.readers.batch import Batch, SourceError, UnfinishedError, UnfitRuleError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.contracts import Contract
    from lakehouse.interval import Interval

DATA_EXCEPTION = "22"
"""Class of the SQL states that say that a value is not what a function takes; their messages quote it."""


def read(contract: Contract, interval: Interval) -> Batch:
    """Read what a source delivered for an interval with the reader that its contract names.

    Args:
        contract: The source's contract; its format names a module of this package.
        interval: The days to read.

    Raises:
        SourceError: A file is missing, empty or has another header than the contract's.
    """
    batch: Batch = _reader(contract).read(contract, interval)
    return batch


def reread(records: DataFrame, contract: Contract) -> Batch:
    """Take records apart that were kept as text.

    Args:
        records: ``_raw``, ``_columns`` and any other columns whose names begin with ``_``, which are passed on.
        contract: The source's contract as it is now.

    Raises:
        SourceError: The contract as it is now does not have the columns of the records.
    """
    batch: Batch = _reader(contract).reread(records, contract)
    return batch


@contextmanager
def reading(contract: Contract, interval: Interval) -> Iterator[None]:
    """Say of rows that Spark turns out not to be able to read or to judge what is to be done.

    Args:
        contract: The contract of the source.
        interval: The days that are read.

    Raises:
        SourceError: A file cannot be read to its end.
        UnfitRuleError: A rule cannot be asked of the values, and the source has personal ones, which are not quoted.
    """
    from pyspark.errors import PySparkException

    from lakehouse.masking import without_values

    source = contract.name
    try:
        yield
    except PySparkException as error:
        if not (error.getCondition() or "").startswith("FAILED_READ_FILE"):
            if (error.getSqlState() or "").startswith(DATA_EXCEPTION) and any(c.hidden for c in contract.columns):
                why = without_values(str(error))
                raise UnfitRuleError(
                    f"{source} {interval}: a rule of its suite cannot be asked of a value: {why}. "
                    "Compare the arguments of the rules with the types of their columns. Nothing was replaced."
                ) from None
            raise
        text = str(error).split("\n\nJVM stacktrace")[0].splitlines()[0]
        raise SourceError(
            f"{source} {interval}: a file is damaged and cannot be read to its end: {text} Nothing was replaced. Ask "
            "its sender to deliver it again.",
            "damaged",
        ) from error


def check_unchanged(batch: Batch) -> None:
    """Refuse a batch when a file of it has been written while it was read.

    Args:
        batch: What was read.

    Raises:
        UnfinishedError: A file is not the one any more whose checksum was taken.
    """
    for path, stamp in batch.stamps.items():
        if files.stamp(path) != stamp:
            raise UnfinishedError(
                f"{path} was changed while it was read. Nothing was replaced; run this again when its sender has "
                "finished. A file should be uploaded under another name and then renamed.",
                "changed_while_read",
            )


def _reader(contract: Contract) -> Any:
    return importlib.import_module(f"lakehouse.readers.{contract.format}")


def missing(contract: Contract, interval: Interval) -> list[str]:
    """What an interval still waits for; a database is always there.

    Args:
        contract: The source's contract.
        interval: The days wanted.
    """
    if contract.format == "jdbc":
        return []
    return files.missing(contract, interval)

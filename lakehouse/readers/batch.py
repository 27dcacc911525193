"""What every reader returns, and what all of them refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lakehouse.errors import LakeError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

UNKNOWN_KEY = "unknown_key"
"""Code of a record that has more than the contract declares; all of it can be read."""

PROVENANCE = ("_source_file", "_source_row", "_raw", "_columns", "_malformed")


class SourceError(LakeError):
    """What the source delivered cannot be read as its contract says.

    Args:
        message: What is wrong, where, and the way out.
        code: The kind of fault, one of those that ``docs/reference/reason-codes.md`` lists.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code


class UnfinishedError(SourceError):
    """A file was written while it was read: a moment later it is whole."""


class UnfitRuleError(LakeError):
    """A rule of a suite cannot be asked of the values of its column."""


@dataclass(frozen=True)
class Batch:
    """What a source delivered for an interval.

    Attributes:
        rows: The records, in the readers' common shape, with ``_interval``.
        files: Path to day, size in bytes and SHA-256 of each file; empty for a database.
        added: Columns that the contract does not have and lets in, with their types.
        stamps: What tells a file from a later one of the same name, by path.
    """

    rows: DataFrame
    files: dict[str, dict[str, str | int]] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    stamps: dict[str, tuple[object, ...]] = field(default_factory=dict)

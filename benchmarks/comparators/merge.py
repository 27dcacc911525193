"""Merge changed and new rows into a Delta table with delta-rs."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable


def merge(table: Path, changes: Path, key: list[str]) -> None:
    """Update the rows that have changed, and insert those that are new.

    Args:
        table: Folder of the Delta table.
        changes: A Parquet file in the table's columns.
        key: Columns that tell a row.
    """
    (
        DeltaTable(table)
        .merge(
            pq.read_table(changes),
            predicate=" and ".join(f"t.{name} = s.{name}" for name in key),
            source_alias="s",
            target_alias="t",
        )
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )

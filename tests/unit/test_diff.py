"""Differences between two versions of a Delta table, against what pandas says."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from lakehouse import ops, release_log, tables
from lakehouse.releases import diff
from lakehouse.releases.diff import DiffError, TableDiff, compare
from lakehouse.tables import VersionGoneError

TABLE = "gold.fct_flights"  # whose suite names the key flight_id


def rows(first: int, last: int, delay: int | None = 0) -> pd.DataFrame:
    ids = range(first, last)
    return pd.DataFrame({"flight_id": [f"f{i}" for i in ids], "delay": pd.array([delay] * len(ids), "Int32")})


def write(frame: pd.DataFrame, mode: str = "append", table: str = TABLE, **options: str) -> int:
    write_deltalake(
        tables.location(tables.next_table(table)),
        pa.Table.from_pandas(frame, preserve_index=False),
        mode=mode,
        **options,
    )
    head = tables.head(tables.next_table(table))
    assert head is not None
    return head


@pytest.fixture(autouse=True)
def _lake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))


def numbers(found: TableDiff) -> tuple[int, int, int | None]:
    return found.added, found.removed, found.changed


def test_added_removed_and_changed_rows_are_told_apart_by_the_key() -> None:
    first = write(rows(0, 10))
    second = write(pd.concat([rows(2, 5), rows(5, 9, delay=7), rows(9, 14)]), "overwrite")
    assert numbers(compare(TABLE, first, second)) == (4, 2, 4)
    assert numbers(compare(TABLE, second, first)) == (2, 4, 4)
    assert compare(TABLE, first, second).key == ("flight_id",)
    assert numbers(compare(TABLE, first, second, ignore=["delay"])) == (4, 2, 0)


def test_rows_that_were_only_moved_to_other_files_are_no_difference() -> None:
    first = write(rows(0, 10, delay=None))
    second = write(rows(0, 10, delay=None).sample(frac=1, random_state=1), "overwrite")
    assert numbers(compare(TABLE, first, second)) == (0, 0, 0)


def test_files_that_both_versions_share_are_not_read() -> None:
    first = write(rows(0, 10))
    [shared] = tables.delta(tables.next_table(TABLE)).file_uris()  # type: ignore[union-attr]
    second = write(rows(10, 13))
    size = Path(shared).stat().st_size
    Path(shared).write_bytes(b"\0" * size)
    found = compare(TABLE, first, second)
    assert numbers(found) == (3, 0, 0)
    assert (found.files_read, found.files) == (1, 2)


def test_without_a_key_a_changed_row_is_removed_and_added_and_duplicates_count() -> None:
    name = "gold.no_suite"
    first = write(pd.concat([rows(0, 3), rows(0, 1)]), table=name)
    second = write(pd.concat([rows(0, 2), rows(2, 3, delay=5)]), "overwrite", table=name)
    assert numbers(compare(name, first, second)) == (1, 2, None)
    assert numbers(compare(name, second, first)) == (2, 1, None)


def test_new_columns_are_named() -> None:
    first = write(rows(0, 3))
    second = write(rows(0, 4).assign(carrier="UA"), "overwrite", schema_mode="overwrite")
    found = compare(TABLE, first, second)
    assert (numbers(found), found.columns_added, found.columns_removed) == ((1, 0, 0), ("carrier",), ())


def test_a_version_that_is_no_longer_kept_is_an_error() -> None:
    first = write(rows(0, 3))
    [path] = tables.delta(tables.next_table(TABLE)).file_uris()  # type: ignore[union-attr]
    second = write(rows(0, 4), "overwrite")
    Path(path).unlink()
    with pytest.raises(VersionGoneError, match="1 of its 1 files have been removed"):
        compare(TABLE, first, second)


def test_releases_are_compared_table_by_table() -> None:
    def released(release_id: int, table: str, version: int) -> None:
        when = dt.datetime(2013, 1, release_id, tzinfo=dt.UTC)
        ops.append(
            release_log.LOG,
            [{"release_id": release_id, "released_at": when, "table_name": table, "version": version}],
        )

    released(1, TABLE, write(rows(0, 3)))
    released(2, "gold.other", write(rows(0, 2), table="gold.other"))
    released(3, TABLE, write(rows(3, 5)))
    found = diff.diff(1, 3)
    assert [(one.table, one.before, one.after, *numbers(one)) for one in found] == [
        (TABLE, 0, 1, 2, 0, 0),
        ("gold.other", None, 0, 2, 0, None),
    ]
    assert [one.table for one in diff.diff(2, 3)] == [TABLE]
    assert numbers(diff.diff(2, 3, "gold.other")[0]) == (0, 0, None)
    with pytest.raises(release_log.UnknownReleaseError, match="There is no release 7"):
        diff.diff(1, 7)
    with pytest.raises(DiffError, match=r"gold\.typo has no released version"):
        diff.diff(1, 3, "gold.typo")

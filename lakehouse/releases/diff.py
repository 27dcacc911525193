"""Diff: how many rows of the released tables differ between two releases.

Delta never changes a data file, so files that both versions share hold no difference; only the others are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow.dataset as ds

from lakehouse import tables
from lakehouse.errors import LakeError
from lakehouse.quality import rules, suites
from lakehouse.release_log import released


class DiffError(LakeError):
    """Two states cannot be compared."""


@dataclass(frozen=True)
class TableDiff:
    """How one table differs between two states.

    Attributes:
        table: Name that readers use.
        before: Version in the earlier state; None when the table had no release.
        after: Version in the later one; None when it has none any more.
        added: Rows that only the later one has.
        removed: Rows that only the earlier one has.
        changed: Rows of the same key that differ; None without a key, where they count as removed and added.
        key: Columns that name a row, by the suite's rule of uniqueness.
        columns_added: Columns that only the later one has; they do not count.
        columns_removed: Columns that only the earlier one has; they do not count.
        files_read: Data files that the two do not share.
        files: Data files of both.
    """

    table: str
    before: int | None
    after: int | None
    added: int
    removed: int
    changed: int | None
    key: tuple[str, ...] = ()
    columns_added: tuple[str, ...] = field(default=())
    columns_removed: tuple[str, ...] = field(default=())
    files_read: int = 0
    files: int = 0


def diff(before: int, after: int, table: str | None = None, ignore: Sequence[str] = ()) -> list[TableDiff]:
    """Compare the states of the lake right after two releases.

    Args:
        before: The earlier release.
        after: The later one.
        table: Only this table; without it every table whose version differs.
        ignore: Columns that do not count, such as where a row was read from.

    Raises:
        DiffError: There is no such table.
        lakehouse.release_log.UnknownReleaseError: There is no such release.
        lakehouse.tables.VersionGoneError: A version is no longer kept.
    """
    return list(_diffs(before, after, table, ignore))


def _diffs(before: int, after: int, table: str | None, ignore: Sequence[str]) -> Iterator[TableDiff]:
    old = {name: state.version for name, state in released(before).items()}
    new = {name: state.version for name, state in released(after).items()}
    if table is not None and table not in old | new:
        raise DiffError(
            f"{table} has no released version in either state. Released tables: {', '.join(sorted(old | new))}."
        )
    for name in [table] if table else sorted(old | new):
        if table or old.get(name) != new.get(name):
            yield compare(name, old.get(name), new.get(name), ignore)


def compare(table: str, before: int | None, after: int | None, ignore: Sequence[str] = ()) -> TableDiff:
    """Compare two versions of a table.

    Args:
        table: Name that readers use.
        before: A version; None for no rows.
        after: Another one; None for no rows.
        ignore: Columns that do not count.
    """
    found = [_dataset(table, version) for version in (before, after) if version is not None]
    # Where there was no release yet, there were no rows: of the same columns, in no file.
    left = found[0] if before is not None else _of(found[-1], [])
    right = found[-1] if after is not None else _of(found[0], [])
    names = [set(one.schema.names) for one in (left, right)]
    columns = [name for name in right.schema.names if name in names[0] and name not in ignore]
    paths = [{fragment.path for fragment in one.get_fragments()} for one in (left, right)]
    shared = paths[0] & paths[1]
    key = tuple(name for name in key_of(table) if name in columns)
    removed, added, changed = _count(_without(left, shared), _without(right, shared), columns, key)
    return TableDiff(
        table,
        before,
        after,
        added,
        removed,
        changed if key else None,
        key,
        tuple(sorted(names[1] - names[0])),
        tuple(sorted(names[0] - names[1])),
        len(paths[0] ^ paths[1]),
        len(paths[0] | paths[1]),
    )


def key_of(table: str) -> tuple[str, ...]:
    """The columns that name a row of a table: those of the suite's first critical rule of uniqueness.

    Args:
        table: Name that readers use; one without a suite, or without such a rule, has no key.
    """
    try:
        suite = suites.load(table)
    except suites.SuiteNotFoundError:
        return ()
    unique = [each for each in suite.expectations if each.type in rules.KEYS and each.severity == "critical"]
    return tuple(unique[0].columns) if unique else ()


def _count(left: ds.Dataset, right: ds.Dataset, columns: list[str], key: tuple[str, ...]) -> tuple[int, int, int]:
    """Rows removed, added and changed; as multisets, since a table need not be free of duplicates."""
    listed, keyed = _listed(columns), _listed(key)
    with duckdb.connect() as connection:
        connection.register("l", left)
        connection.register("r", right)
        connection.execute(f"create table gone as select {listed} from l except all select {listed} from r")
        connection.execute(f"create table come as select {listed} from r except all select {listed} from l")
        gone, come = _rows(connection, "gone"), _rows(connection, "come")
        changed = _rows(connection, f"(select {keyed} from gone intersect all select {keyed} from come)") if key else 0
    return gone - changed, come - changed, changed


def _rows(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    row = connection.execute(f"select count(*) from {source}").fetchone()
    assert row is not None
    return int(row[0])


def _listed(columns: Sequence[str]) -> str:
    return ", ".join('"' + name.replace('"', '""') + '"' for name in columns)


def _dataset(table: str, version: int) -> ds.FileSystemDataset:
    stored = tables.next_table(table)
    tables.check_kept(stored, version)
    log = tables.delta(stored, version)
    assert log is not None
    return log.to_pyarrow_dataset(filesystem=tables.filesystem(log))


def _without(rows: ds.FileSystemDataset, paths: set[str]) -> ds.FileSystemDataset:
    return _of(rows, [fragment for fragment in rows.get_fragments() if fragment.path not in paths])


def _of(rows: ds.FileSystemDataset, fragments: list[ds.Fragment]) -> ds.FileSystemDataset:
    """A dataset like another one, with the rows of these files alone."""
    return ds.FileSystemDataset(fragments, rows.schema, rows.format, rows.filesystem)

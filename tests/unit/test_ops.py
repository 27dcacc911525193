"""The platform's own tables: many small appends do not become many small files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lakehouse import locks, ops, tables

TABLE = "ops.profiles"


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """A lake of its own; what is in the set is locked by somebody else."""
    taken: set[str] = set()

    @contextmanager
    def writer(name: str, timeout_seconds: int) -> Iterator[None]:
        if name in taken:
            raise locks.TableLockedError(name)
        yield

    monkeypatch.setattr(tables, "location", lambda stored: str(tmp_path / stored))
    monkeypatch.setattr(locks, "writer", writer)
    ops.create()
    return taken


def files() -> int:
    log = tables.delta(TABLE)
    assert log is not None
    return len(log.file_uris())


def test_a_table_never_has_more_small_files_than_a_number_of_commits() -> None:
    most = 0
    for number in range(150):
        ops.append(TABLE, [{"run_id": str(number), "table_name": "bronze.weather", "row_count": number}])
        most = max(most, files())
    assert most <= ops.COMPACT_EVERY
    assert sorted(ops.read(TABLE)["row_count"].to_pylist()) == list(range(150))


def test_two_never_put_the_same_files_together(held: set[str]) -> None:
    for number in range(5):
        ops.append(TABLE, [{"row_count": number}])
    held.add(f"compaction of {TABLE}")
    assert ops.compact(TABLE) is None
    assert files() == 5
    held.clear()
    assert ops.compact(TABLE) == (5, 1)
    assert ops.read(TABLE).num_rows == 5

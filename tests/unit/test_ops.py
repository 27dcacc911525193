"""The platform's own tables: many small appends do not become many small files; views are not read as tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.compute as pc
import pytest

import lakehouse
from lakehouse import locks, ops, tables
from lakehouse.release_log import NotReleasedError

TABLE = "ops.profiles"


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> set[str]:
    """A lake of its own; what is in the set is locked by somebody else."""
    taken: set[str] = set()

    @contextmanager
    def writer(name: str, timeout_seconds: int, gives_way: bool) -> Iterator[None]:
        assert not gives_way  # it could not be asked before the commit whether it has passed on
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


def test_what_is_replaced_does_not_leave_more_small_files_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "COMPACT_EVERY", 8)
    for number in [*range(20), 3]:
        whose = {"table_name": f"bronze.t{number}"}
        made = ops.replace(TABLE, [whose | {"row_count": number}], whose)
        assert files() <= 8
        then, now = tables.delta(TABLE, made), tables.delta(TABLE)
        assert then is not None and number in then.to_pyarrow_table()["row_count"].to_pylist()
        assert now is not None and {each["version"]: each["operation"] for each in now.history()}[made] == "WRITE"
    assert sorted(ops.read(TABLE)["row_count"].to_pylist()) == list(range(20))


def test_only_files_that_may_hold_what_is_asked_for_are_read() -> None:
    long = "of a DAG with a long name, " * 5
    ops.append(TABLE, [{"run_id": f"{long}0", "row_count": 0}])
    log = tables.delta(TABLE)
    assert log is not None
    [first] = log.file_uris()
    for number in range(1, 6):
        ops.append(TABLE, [{"run_id": f"{long}{number}", "row_count": number}])
    for count in (6, 1):  # files
        assert files() == count
        found = ops.read(TABLE, ["row_count"], where=pc.field("run_id") == f"{long}4")
        assert found.to_pydict() == {"row_count": [4]}
        if count == 6:
            away = Path(first).rename(Path(first).with_suffix(".aside"))
            with pytest.raises(FileNotFoundError):
                ops.read(TABLE)
            assert sorted(ops.read(TABLE, where=pc.field("row_count") > 3)["row_count"].to_pylist()) == [4, 5]
            away.rename(first)
            ops.compact(TABLE)


def test_two_never_put_the_same_files_together(held: set[str]) -> None:
    for number in range(5):
        ops.append(TABLE, [{"row_count": number}])
    held.add(f"compaction of {TABLE}")
    assert ops.compact(TABLE) is None
    assert files() == 5
    held.clear()
    assert ops.compact(TABLE) == (5, 1)
    assert ops.read(TABLE).num_rows == 5


@pytest.mark.parametrize("view", [*ops.VIEWS, "silver.stg_weather"])
def test_a_view_is_for_sql(view: str) -> None:
    with pytest.raises(NotReleasedError, match=rf'^{view} is a view, .*: ./lake sql "select \* from {view}"'):
        lakehouse.read(view)

"""Which keys have a hash twice, found in buckets of sorted arrays: against Python's own sets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.quality import uniqueness

EXTREMES = (-(2**63), -(2**63) + 1, -1, 0, 1, 2**63 - 1)
hashes = st.one_of(st.none(), st.sampled_from(EXTREMES), st.integers(-(2**63), 2**63 - 1))
batch = st.lists(st.tuples(hashes, hashes), max_size=12)


def repeated(partitions: list[list[list[tuple[int | None, int | None]]]], buckets: int) -> set[int]:
    """What the two functions find, with Spark's part between them done here: rows meet by their bucket."""
    cut = [
        row
        for partition in partitions
        for out in uniqueness.sort_into_buckets(map(arrow, partition), buckets)
        for row in out.to_pylist()
    ]
    found: set[int] = set()
    for bucket in range(buckets):
        mine = pa.RecordBatch.from_pylist(
            [row for row in cut if row["bucket"] == bucket],
            pa.schema({"key": pa.int32(), "bucket": pa.int32(), "hashes": pa.binary()}),
        )
        found |= {key for out in uniqueness.find_repeated(iter([mine])) for key in out.column("key").to_pylist()}
    assert {row["bucket"] for row in cut} <= set(range(buckets))
    return found


def arrow(rows: list[tuple[int | None, int | None]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([row[i] for row in rows], pa.int64()) for i in (0, 1)], ["0", "1"])


@settings(deadline=None)
@given(
    st.lists(st.lists(batch, max_size=3), max_size=3),
    st.sampled_from([1, 2, 3, 7, 64]),
    st.sampled_from([1, 5, 1 << 20]),
)
def test_a_key_is_found_exactly_if_one_of_its_hashes_repeats(
    partitions: list[list[list[tuple[int | None, int | None]]]], buckets: int, run: int
) -> None:
    values = [[row[key] for p in partitions for b in p for row in b if row[key] is not None] for key in (0, 1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uniqueness, "RUN", run)
        assert repeated(partitions, buckets) == {key for key in (0, 1) if len(set(values[key])) < len(values[key])}


def test_what_is_held_is_passed_on_before_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uniqueness, "RUN", 100)
    seen: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, 1000, 50):
            seen.append(start)
            yield pa.RecordBatch.from_arrays([pa.array(np.arange(start, start + 50))], ["0"])

    runs = uniqueness.sort_into_buckets(batches(), 2)
    next(runs)
    assert seen == [0, 50]
    assert len(list(runs)) == 9


def test_a_value_in_every_row_is_passed_on_twice() -> None:
    same = pa.RecordBatch.from_arrays([pa.array(np.full(1000, 7)), pa.array(np.arange(1000))], ["0", "1"])
    (out,) = uniqueness.sort_into_buckets(iter([same]), 1)
    assert [len(each.as_py()) // 8 for each in out.column("hashes")] == [2, 1000]

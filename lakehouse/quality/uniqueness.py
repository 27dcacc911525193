"""Which keys of a table may repeat: asked of 64-bit hashes of the keys' values, so that a key that is unique is cheap.

Equal values have equal hashes, so hashes that all differ prove that the values do. Hashes that repeat prove nothing:
whoever asks then has to compare the values themselves.

There are two ways to find a hash that repeats, with the same answer. Few rows are grouped by their hash in the engine.
For many rows that is slow: every hash is a group of its own, and travels as a row of its own. They are put into sorted
arrays in Spark's Python workers instead, and only arrays are exchanged: a fraction of the processor time, and memory
that does not grow with the table.

Workers import this module, so it stays small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame

MANY_ROWS = 200_000
"""From this many rows on, starting Python workers costs less than it saves."""
RUN = 1 << 20
"""Hashes of a key that a worker holds before it sorts them and passes them on: 8 MiB."""
BUCKET = 1 << 23
"""Hashes of all keys that a worker compares at once: 64 MiB."""


def suspects(rows: DataFrame, keys: Sequence[tuple[Sequence[str], Column]], expected: int = 0) -> DataFrame:
    """The positions of the keys that may repeat, as a frame with the column ``key``; one may be named several times.

    Args:
        rows: The rows.
        keys: Of each key its columns, and which rows it is about.
        expected: About how many rows there are: decides the way, not the answer.
    """
    from pyspark.sql import functions as F

    hashes = [F.when(considered, F.xxhash64(*map(F.col, columns))) for columns, considered in keys]
    if expected < MANY_ROWS:
        structs = [F.struct(F.lit(i).alias("key"), each.alias("hash")) for i, each in enumerate(hashes)]
        return (
            rows.select(F.inline(F.array(*structs)))
            .filter("hash is not null")
            .groupBy("key", "hash")
            .agg(F.count(F.lit(1)).alias("rows"))
            .filter("rows > 1")
            .select("key")
            .distinct()
        )
    tasks = int(str(rows.sparkSession.conf.get("spark.sql.shuffle.partitions")))
    buckets = max(tasks, -(-expected * len(keys) // BUCKET))
    return (
        rows.select(*(each.alias(str(i)) for i, each in enumerate(hashes)))
        .mapInArrow(partial(sort_into_buckets, buckets=buckets), "key int, bucket int, hashes binary")
        .repartitionById(buckets, F.col("bucket"))
        .mapInArrow(find_repeated, "key int")
    )


def sort_into_buckets(batches: Iterator[pa.RecordBatch], buckets: int) -> Iterator[pa.RecordBatch]:
    """Sort the hashes of each key, and cut them where a bucket's range of values ends.

    The function that ``DataFrame.mapInArrow`` runs first.

    Args:
        batches: A column of hashes for each key, null where a row is not to be looked at.
        buckets: How many ranges of the same width there are.

    Yields:
        Key, bucket, and the hashes as 64-bit numbers in the machine's order of bytes.
    """
    held: list[list[np.ndarray]] = []
    size = 0
    for batch in batches:
        held = held or [[] for _ in batch.columns]
        for parts, column in zip(held, batch.columns, strict=True):
            parts.append(column.drop_null().to_numpy())
        size += batch.num_rows
        if size >= RUN:
            yield _cut(held, buckets)
            held, size = [], 0
    if held:
        yield _cut(held, buckets)


def _cut(held: list[list[np.ndarray]], buckets: int) -> pa.RecordBatch:
    import numpy as np
    import pyarrow as pa

    width = (1 << 64) // buckets
    limits = np.array([bucket * width - (1 << 63) for bucket in range(1, buckets)], dtype=np.int64)
    keys, numbers, hashes = [], [], []
    for key, parts in enumerate(held):
        run = np.sort(np.concatenate(parts))
        if run.size > 2:  # two of a kind say it all: a column of one value must not fill one bucket
            run = run[np.concatenate(([True, True], run[2:] != run[:-2]))]
        for bucket, part in enumerate(np.split(run, np.searchsorted(run, limits))):
            if part.size:
                keys.append(key)
                numbers.append(bucket)
                hashes.append(part.tobytes())
    columns = [pa.array(keys, pa.int32()), pa.array(numbers, pa.int32()), pa.array(hashes, pa.binary())]
    return pa.RecordBatch.from_arrays(columns, ["key", "bucket", "hashes"])


def find_repeated(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Tell the keys that have a hash twice in a bucket: the function that ``DataFrame.mapInArrow`` runs last.

    Args:
        batches: Outcome of :func:`sort_into_buckets`, all that there is of some buckets.
    """
    import numpy as np
    import pyarrow as pa

    runs: dict[tuple[int, int], list[np.ndarray]] = {}
    for batch in batches:
        keys, buckets, hashes = batch.columns
        for key, bucket, each in zip(keys.to_pylist(), buckets.to_pylist(), hashes, strict=True):
            runs.setdefault((key, bucket), []).append(np.frombuffer(each.as_buffer(), np.int64))
    repeated = set()
    while runs:
        (key, _), parts = runs.popitem()
        # NumPy's default uses the processor's vectors: a third of the time of a merge of the sorted parts.
        merged = np.sort(np.concatenate(parts))
        if (merged[1:] == merged[:-1]).any():
            repeated.add(key)
    yield pa.RecordBatch.from_arrays([pa.array(sorted(repeated), pa.int32())], ["key"])

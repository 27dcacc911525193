"""Counts of rows in fixed bins."""

from __future__ import annotations

import pandas as pd

from lakehouse.monitoring.histograms import count_in_memory, of_names, of_numbers


def test_rows_are_counted_in_the_bins_of_the_snapshot() -> None:
    snapshot = pd.DataFrame({"x": [*range(100)], "name": ["a"] * 60 + ["b"] * 40})
    bins = {"x": of_numbers(snapshot["x"], 4), "name": of_names(snapshot["name"])}
    now = count_in_memory(pd.DataFrame({"x": [0, 24, 25, 99, None], "name": ["a", "c", None, "b", "b"]}), bins)
    assert (now["x"].counts, now["x"].nulls) == ((2, 1, 0, 1), 1)
    assert (now["name"].values, now["name"].counts, now["name"].nulls) == (("a", "b"), (1, 2, 1), 1)

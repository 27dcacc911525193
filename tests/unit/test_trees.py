"""What a person reads on a terminal: one row is not called rows."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from lakehouse import trees
from lakehouse.impact import Impact


def shown(found: Impact) -> list[str]:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(trees.of_impact(found))
    return [line.strip("├─└│ ") for line in capture.get().splitlines()]


def scoring(rows: int) -> dict[str, Any]:
    return {"table": "ml.scores", "version": 1, "run_id": "s", "model_version": 1, "days": "2013-03-02",
            "because": "its features", "rows_written": rows, "rows_visible": rows, "query": "select 1",
            "releases": [1]}  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([1], "1 scoring of 1 row; of the affected days 1 row is visible"),
        ([2, 3], "2 scorings of 5 rows; of the affected days 5 rows are visible"),
        ([], "0 scorings of 0 rows; of the affected days 0 rows are visible"),
    ],
)
def test_counts_agree_with_what_is_counted(rows: list[int], told: str) -> None:
    table = {"table": "gold.a", "version": 1, "days": "all", "step": "build", "visible_days": "", "releases": []}
    model = {"name": "late", "version": 1, "roles_now": [], "trained_on": []}
    found = shown(Impact("x", "file", tables=[table], models=[model], predictions=[scoring(number) for number in rows]))
    assert told in found and "1 write of a table" in found and "1 model version" in found

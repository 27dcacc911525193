"""What a person reads on a terminal: one row is not called rows."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from rich.tree import Tree

from lakehouse.provenance import trees
from lakehouse.provenance.impact import Impact
from tests.unit.test_graphs import NOW, explanation


def shown(found: Impact) -> list[str]:
    return printed(trees.of_impact(found))


def printed(tree: Tree) -> list[str]:
    console = Console(width=300)
    with console.capture() as capture:
        console.print(tree)
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


def of_table(**more: Any) -> list[str]:
    table = {
        "table": "gold.a",
        "version": 1,
        "days": "2013-03-01",
        "step": "build",
        "visible_days": "",
        "releases": [4],
    }
    return shown(Impact("x", "version", tables=[table | more]))


def test_a_write_that_readers_see_without_rows_is_not_called_gone() -> None:
    line = "gold.a version 1 (build), days 2013-03-01; {}; shown by release 4"
    assert line.format("visible, with no rows of these days") in of_table(without_rows=True)
    assert line.format("no longer visible") in of_table(without_rows=False)
    assert line.format("visible: 2013-03-01") in of_table(without_rows=False, visible_days="2013-03-01")


@pytest.mark.parametrize(
    ("releases", "told"),
    [
        ([], "no release"),
        ([4], "release 4"),
        ([4, 9], "releases 4 and 9"),
        ([4, 6, 9], "3 releases between 4 and 9"),
    ],
)
def test_a_few_releases_are_named_and_many_counted(releases: list[int], told: str) -> None:
    [line] = [line for line in of_table(releases=releases) if line.startswith("gold.a")]
    assert line.endswith(f"; shown by {told}")


def test_a_label_is_not_called_an_input() -> None:
    model = {"name": "late", "version": 1, "roles_now": [], "trained_on": []}
    found = shown(Impact("gold.a.late", "column", models=[model | {"label": ["late"]}, model | {"inputs": ["wind"]}]))
    assert {"late version 1 (no role), label late", "late version 1 (no role), inputs wind"} <= set(found)


def test_the_tree_of_a_prediction_says_what_its_model_was_to_it_and_how_it_was_gated() -> None:
    told = explanation()
    told["prediction"]["role"], told["model"]["registered_as"] = "champion", "challenger"
    told["model"]["decisions"] = [
        {"at": NOW, "event": "taken back", "serves_from": NOW.date(), "reason": "too many alarms", "decided_by": "ada"}
    ]
    lines = printed(trees.of_explanation(told))
    [scored] = [line for line in lines if line.startswith("scored: ")]
    assert scored.endswith(", shown by release 4; gate passed: 2 of 2 rules hold")
    assert "model late version 2 (<l>), champion then, no role now" in lines
    assert any(line.startswith("taken back by ada at ") and line.endswith(": too many alarms") for line in lines)
    told["scored"]["gate"] = told["scored"]["gate"] | {"not_judged": ["expect_table_row_count_to_be_between (warning)"]}
    [scored] = [line for line in printed(trees.of_explanation(told)) if line.startswith("scored: ")]
    assert scored.endswith("; gate passed: 1 of 2 rules hold, 1 not judged: too little history")
    told["scored"]["release"], told["scored"]["gate"] = None, told["scored"]["gate"] | {"not_judged": []}
    [scored] = [line for line in printed(trees.of_explanation(told)) if line.startswith("scored: ")]
    assert scored.endswith(", not released; gate passed: 2 of 2 rules hold")

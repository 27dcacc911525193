"""What a person published in spite of a gate is marked wherever a prediction is explained."""

from __future__ import annotations

from typing import Any

import networkx as nx
from rich.console import Console
from rich.tree import Tree

from lakehouse.provenance import graphs, trees
from tests.unit.test_graphs import explanation, impact

GATE = {"verdict": "failed", "rules": 2, "broken": ["expect_table_row_count_to_be_between"], "not_judged": []}
PASSED = {"verdict": "passed", "broken": []}
WRITE = {"table": "bronze.weather", "version": 7, "days": "2013-03-01", "step": "land", "interval": "2013-03-01",
         "gate": GATE, "run": None, "inputs": []}  # fmt: skip


def released(override_of: str | None, later: bool = False) -> dict[str, Any]:
    """An input; with ``later``, its version is one that was released after the one that the rows came with."""
    release = {"release_id": 4, "reason": "counted by hand", "released_by": "ada", "override_of": override_of}
    read = {"version": 7, "release": release, "gate": GATE}
    if later:
        read = {"version": 8, "release": release | {"release_id": 5, "override_of": None}, "gate": {**GATE, **PASSED}}
    return {"table": "bronze.weather", "days": "2013-03-01", **read, "writes": [WRITE | {"release": release}]}


def on_the_terminal(each: dict[str, Any]) -> str:
    tree, console = Tree("prediction"), Console(width=200)
    trees._add_input(tree, each)
    with console.capture() as capture:
        console.print(tree)
    return capture.get()


def on_the_page(each: dict[str, Any]) -> str:
    graph = nx.DiGraph()
    graphs._add_inputs(graph, [each], "prediction")
    return str(graph.nodes["bronze.weather@7"]["note"])


def test_the_explanation_of_a_prediction_marks_an_override() -> None:
    assert "release 4, an OVERRIDE of gate 5d0c by ada: counted by hand" in on_the_terminal(released("5d0c"))
    assert on_the_page(released("5d0c")) == "land 2013-03-01, failed, OVERRIDE"
    assert "OVERRIDE" not in on_the_terminal(released(None)) + on_the_page(released(None))


def test_also_where_a_later_version_holds_the_rows() -> None:
    shown = on_the_terminal(released("5d0c", later=True))
    assert "version 8, days 2013-03-01, release 5; gate passed" in shown
    assert "release 4, an OVERRIDE of gate 5d0c by ada: counted by hand; gate failed" in shown
    assert on_the_page(released("5d0c", later=True)) == "land 2013-03-01, failed, OVERRIDE"
    assert "OVERRIDE" not in on_the_terminal(released(None, later=True))


def test_an_impact_names_the_releases_that_were_published_against_a_gate() -> None:
    override = {"table": "bronze.weather", "release_id": 4, "released_by": "ada", "reason": "counted <b>hand"}
    console = Console(width=200)

    def shown(overrides: list[dict[str, Any]]) -> tuple[str, str]:
        found = impact()
        found.overrides = overrides
        with console.capture() as capture:
            console.print(trees.of_impact(found))
        return capture.get(), graphs.page_of_impact(found)

    tree, page = shown([override])
    assert "release 4 of bronze.weather by ada: counted <b>hand" in tree
    assert "Release 4 of bronze.weather</span> by ada: counted &lt;b&gt;hand" in page
    assert not any("against a gate" in each for each in map(str.lower, shown([])))


def test_the_page_names_the_rules_that_were_not_judged() -> None:
    told = explanation()
    rule = "expect_table_row_count_to_be_between (warning)"
    assert rule not in graphs.page_of_explanation(told)
    told["scored"]["gate"] = told["scored"]["gate"] | {"not_judged": [rule]}
    assert f"not judged, too little history: {rule}" in graphs.page_of_explanation(told)

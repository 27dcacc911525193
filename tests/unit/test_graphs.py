"""Pages draw each node and each edge of what was found, whatever the names hold."""

from __future__ import annotations

import datetime as dt
import random
import re
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest

from lakehouse.provenance import graphs
from lakehouse.provenance.impact import Impact

NOW = dt.datetime(2013, 3, 2, 6, tzinfo=dt.UTC)
RELEASE = {"release_id": 4, "released_at": NOW, "reason": "audited", "released_by": None, "override_of": None}
GATE = {"verdict": "passed", "rules": 2, "broken": [], "not_judged": []}
RUN = {
    "run_id": "4f0c", "step": "land", "dataset": "bronze.weather", "started_at": NOW, "ended_at": NOW,
    "code_version": "0123abc", "airflow_dag_id": None, "airflow_run_id": None,
}  # fmt: skip
MANY = [
    {"file": f"actuals/{day}.csv", "day": f"2013-02-0{day}", "bytes": 9, "sha256": "a" * 64, "rows": day}
    for day in range(1, 5)
]


def write(table: str, version: int, **more: Any) -> dict[str, Any]:
    common = {"days": "2013-03-01", "step": "land", "interval": "2013-03-01", "gate": GATE, "release": RELEASE}
    return {"table": table, "version": version, **common, "run": RUN, **more}


def read(*writes: dict[str, Any]) -> dict[str, Any]:
    first = writes[0]
    return {**{name: first[name] for name in ("table", "version", "days", "release", "gate")}, "writes": [*writes]}


def file(name: str, **more: Any) -> dict[str, Any]:
    return {"file": name, "day": "2013-03-01", "bytes": 9, "sha256": "b" * 64, "rows": 7, **more}


def explanation() -> dict[str, Any]:
    """A prediction from features of two landings, by a model that was trained on one of them and on many files."""
    weather = write("bronze.weather", 3, files=[file("weather/day.csv"), file('<i>&"weather"</i>.csv')])
    planes = write("bronze.planes", 3, files=[file("planes/day.csv")])
    actuals = [write("bronze.actuals", version, files=MANY) for version in (5, 6)]
    features = write("gold.features", 8, step="build", inputs=[read(weather), read(planes)])
    trained = write("gold.features", 7, step="build", inputs=[read(weather), read(*actuals)])
    made_with = {"lock_sha256": "c" * 64, "environment": "<Py>"}
    return {
        "prediction": {"prediction_id": "0f3a", "flight_id": "<b>1</b>", "score": 0.25, "decision": False,
                       "model_name": "late", "model_version": 2, "role": "champion", "run_id": "4f0c",
                       "release_id": 4, "scored_at": NOW},
        "reasons": {"unit": "log-odds", "method": "exact", "base": 0.1, "threshold": 0.5, "gone": None,
                    "contributions": [{"feature": "rain", "value": "<u>", "contribution": 0.5}]},
        "scored": {**write("ml.scores", 9, step="score"), "made_with": made_with},
        "inputs": [read(features)],
        "model": {
            "name": "late", "version": 2, "deleted": False, "roles_now": [], "registered_as": "champion",
            "reason": "better", "candidate": "<l>", "decided_by": "ada", "registered_at": NOW, "decisions": [],
            "card": "# <script>", "description": "", "mlflow_run_id": "77", "parameters": {}, "metrics": {"auc": 0.7},
            "training": {"window": "2013-01-01/2013-02-28", "release_id": 3, "rows": 9, "row_order": "day", "seed": 1,
                         "lock_sha256": "c" * 64, "model_sha256": "d" * 64, "input_sha256": "e" * 64,
                         "environment": "<Py>", "run": None, "code_version": "0123abc", "inputs": [read(trained)]},
        },
    }  # fmt: skip


EXPLAINED = {
    ("weather/day.csv", "bronze.weather@3"), ("<i>&\"weather\"</i>.csv", "bronze.weather@3"),
    ("planes/day.csv", "bronze.planes@3"),
    ("bronze.weather@3", "gold.features@8"), ("bronze.planes@3", "gold.features@8"), ("gold.features@8", "0f3a"),
    ("files of bronze.actuals@5", "bronze.actuals@5"), ("files of bronze.actuals@6", "bronze.actuals@6"),
    ("bronze.actuals@5", "gold.features@7"), ("bronze.actuals@6", "gold.features@7"),
    ("bronze.weather@3", "gold.features@7"), ("gold.features@7", "late@2"), ("late@2", "0f3a"),
}  # fmt: skip


def impact() -> Impact:
    """Two files of one name, one of which was refused; a model was trained on the other, and two have scored it."""

    def landing(name: str, run_id: str, status: str) -> dict[str, Any]:
        return {**file(name), "run_id": run_id, "ended_at": NOW, "status": status, "rows_quarantined": 5,
                "error": None if status == "success" else "Refused: <b>"}  # fmt: skip

    def table(name: str, version: int, step: str, run_id: str) -> dict[str, Any]:
        return {"table": name, "version": version, "days": "2013-03-01", "step": step, "run_id": run_id,
                "visible_days": "2013-03-01", "releases": [4]}  # fmt: skip

    def scored(number: int, rows: int) -> dict[str, Any]:
        return {"table": "ml.scores", "version": 9, "run_id": "s", "model_version": number, "days": "2013-03-02",
                "because": "its features", "rows_written": rows, "rows_visible": rows - 1, "query": "select '<'",
                "releases": [4]}  # fmt: skip

    return Impact(
        "day.csv", "file",
        landings=[landing("weather/day.csv", "l", "success"), landing("<i>/day.csv", "refused!", "failed")],
        tables=[table("bronze.weather", 3, "land", "l"), table("gold.features", 8, "build", "b")],
        models=[{"name": "late", "version": 1, "roles_now": ["<b>"], "trained_on": ["gold.features@8"]}],
        predictions=[scored(1, 60), scored(2, 40)],
        edges=[("bronze.weather@3", "gold.features@8"), ("gold.features@8", "late@1"), ("late@1", "ml.scores@9"),
               ("gold.features@8", "ml.scores@9")],
    )  # fmt: skip


AFFECTED = {
    ("weather/day.csv", "bronze.weather@3"), ("<i>/day.csv", "landing refused! failed"),
    ("bronze.weather@3", "gold.features@8"), ("gold.features@8", "late@1"), ("late@1", "ml.scores@9"),
    ("gold.features@8", "ml.scores@9"),
}  # fmt: skip

EXPLANATION = graphs.page_of_explanation, graphs.of_explanation, explanation, EXPLAINED
IMPACT = graphs.page_of_impact, graphs.of_impact, impact, AFFECTED


@pytest.mark.parametrize(("page_of", "graph_of", "made", "edges"), [EXPLANATION, IMPACT], ids=["explain", "impact"])
def test_each_node_and_each_edge_is_drawn(page_of: Any, graph_of: Any, made: Any, edges: set[tuple[str, str]]) -> None:
    found = made()
    graph = graph_of(found)
    assert set(graph.edges) == edges and set(graph.nodes) == {node for edge in edges for node in edge}
    [svg] = re.findall(r"<svg.*?</svg>", page_of(found), re.DOTALL)
    drawing = ElementTree.fromstring(svg)  # which is refused where a name is not escaped
    places = {}
    for box in drawing.iter("g"):
        title, rect = box.find("title"), box.find("rect")
        assert title is not None and rect is not None
        places[title.text] = tuple(float(rect.get(name, "")) for name in ("x", "y", "width", "height"))
    told = {node: f"{node}: {facts['note']}" for node, facts in graph.nodes(data=True)}
    assert places.keys() == set(told.values()) and len(set(places.values())) == len(places)
    drawn = [tuple(map(float, re.findall(r"[\d.]+", path.get("d", "")))) for path in drawing.iter("path")]
    wanted = []
    for source, target in edges:
        (x1, y1, width, height), (x2, y2, *_) = places[told[source]], places[told[target]]
        assert x1 + width < x2  # from left to right
        wanted.append((x1 + width, y1 + height / 2, x2, y2 + height / 2))
    assert sorted((line[0], line[1], line[-2], line[-1]) for line in drawn) == sorted(wanted)


@pytest.mark.parametrize(("page_of", "graph_of", "made", "edges"), [EXPLANATION, IMPACT], ids=["explain", "impact"])
def test_nothing_that_a_page_shows_is_taken_for_markup(page_of: Any, graph_of: Any, made: Any, edges: Any) -> None:
    page = page_of(made())
    for text in ("<i>", "<b>", "<u>", "<l>", "<Py>", "<script>", "select '<'"):
        assert text not in page
    assert "&lt;i&gt;" in page


def test_the_scorings_of_two_versions_in_one_run_are_one_node_with_all_rows() -> None:
    assert graphs.of_impact(impact()).nodes["ml.scores@9"]["note"] == "2013-03-02: 98 of 100 visible"


def points(path: str) -> list[tuple[float, float]]:
    """Points close to each other on a line: curves and horizontals."""
    found: list[tuple[float, float]] = []
    for command, text in re.findall(r"([MCH])([^MCH]+)", path):
        numbers = [float(each) for each in text.split()]
        if command == "M":
            found.append((numbers[0], numbers[1]))
            continue
        (x, y), steps = found[-1], [step / 40 for step in range(1, 41)]
        if command == "H":
            found += [(x + (numbers[0] - x) * step, y) for step in steps]
            continue
        corners = [(x, y), *zip(numbers[::2], numbers[1::2], strict=True)]
        for step in steps:
            weights = [(1 - step) ** 3, 3 * step * (1 - step) ** 2, 3 * step**2 * (1 - step), step**3]
            found.append(
                tuple(sum(w * c[axis] for w, c in zip(weights, corners, strict=True)) for axis in (0, 1))  # type: ignore[arg-type]
            )
    return found


@pytest.mark.parametrize("seed", range(20))
def test_no_line_runs_behind_a_box_and_no_two_boxes_overlap(seed: int) -> None:
    chance = random.Random(seed)
    graph = nx.DiGraph([("0", "1"), ("1", "2"), ("2", "3"), ("0", "3")])
    for target in range(4, 14):
        graph.add_edges_from(
            (str(source), str(target)) for source in chance.sample(range(target), chance.randint(0, 3))
        )
    drawn = graphs.draw(graph)
    boxes = [(box.x, box.y, box.x + graphs.WIDTH, box.y + graphs.HEIGHT) for box in drawn["boxes"]]
    assert len(boxes) == len(graph) and len(drawn["lines"]) == graph.number_of_edges()
    for line in drawn["lines"]:
        for x, y in points(line):
            assert not any(left < x < right and top < y < bottom for left, top, right, bottom in boxes), (line, x, y)
            assert 0 <= x <= drawn["width"] and 0 <= y <= drawn["height"]
    for number, (left, top, right, bottom) in enumerate(boxes):
        assert right <= drawn["width"] and bottom <= drawn["height"]
        for other in boxes[number + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_what_does_not_fit_into_a_box_is_shortened_in_the_middle_and_told_in_full() -> None:
    node, note = "ml.predictions_flight_delay_of_all_airlines@1234", "2013-01-01/2013-02-28 and many more: 765 visible"
    box = graphs.Box(node, node, note, "prediction", 0, 0)
    title, below = box.lines
    for text, size in ((title, 12), (below, 11)):
        assert len(text) * size * 0.61 <= graphs.WIDTH - 16 and "…" in text
    assert title.startswith("ml.predictions") and title.endswith("@1234") and below.endswith("visible")
    prediction = "220369f03a17988510dabbbb11674cc8"
    assert graphs.Box(prediction, prediction, "", "prediction", 0, 0).lines == (prediction, "")


def test_the_page_of_an_impact_tells_inputs_from_labels_and_no_rows_from_gone() -> None:
    found = impact()
    [model] = found.models
    found.models = [
        {**model, "trained_on": [], "inputs": ["wind", "rain"]},
        {**model, "trained_on": [], "label": ["late"]},
    ]
    for number, table in enumerate(found.tables):
        table |= {"visible_days": "", "without_rows": number == 0}
    page = graphs.page_of_impact(found)
    assert "<td>inputs wind, rain</td>" in page and "<td>label late</td>" in page
    assert page.count(">no rows of these days<") == page.count('<span class="passed">no</span>') == 1

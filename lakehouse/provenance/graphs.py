"""Graphs: explanations and impacts as directed graphs, drawn as SVG in layers from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import networkx as nx

from lakehouse import pages
from lakehouse.provenance.explain import files_of
from lakehouse.provenance.trees import TECHNICAL, visibility
from lakehouse.wording import counted

if TYPE_CHECKING:
    from lakehouse.provenance.impact import Impact

SHOWN_FILES = 3
WIDTH, HEIGHT, GAP_X, GAP_Y = 260, 40, 60, 14
LANE = 10
"""Height of the way past the boxes of a layer, for lines that lead further."""
MARGIN, TITLE_SIZE, NOTE_SIZE, BROADEST = 8, 12, 11, 0.61
"""Of the text in a box: its distance from the edges, the sizes of its lines, and how broad a letter is for its size."""


@dataclass(frozen=True)
class Box:
    """A node on the page.

    Attributes:
        name: In full, for who points at it.
        title: First line.
        note: Second line.
        kind: file, table, model, prediction or failed.
        x: Left edge, in pixels.
        y: Upper edge.
    """

    name: str
    title: str
    note: str
    kind: str
    x: float
    y: float

    @property
    def lines(self) -> tuple[str, str]:
        """Title and note, as much of them as fits."""
        return _shortened(self.title, TITLE_SIZE), _shortened(self.note, NOTE_SIZE)


def _shortened(text: str, size: int) -> str:
    """A text that fits into a box; the middle goes, since the ends tell names and versions apart."""
    room = int((WIDTH - 2 * MARGIN) / (size * BROADEST))
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[-end:]}"


def of_explanation(explanation: dict[str, Any]) -> nx.DiGraph:
    """What a prediction comes from; edges go with the data.

    Args:
        explanation: Outcome of :func:`lakehouse.provenance.explain.explain`.
    """
    graph = nx.DiGraph()
    row, model = explanation["prediction"], explanation["model"]
    prediction = row["prediction_id"]
    graph.add_node(prediction, kind="prediction", note=f"score {row['score']:.4f}")
    trained = f"{model['name']}@{model['version']}"
    graph.add_node(trained, kind="model", note=f"{model['candidate']}, {model['training']['window']}")
    graph.add_edge(trained, prediction)
    _add_inputs(graph, explanation["inputs"], prediction)
    _add_inputs(graph, model["training"]["inputs"], trained)
    return graph


def _add_inputs(graph: nx.DiGraph, inputs: list[dict[str, Any]], target: str) -> None:
    for each in inputs:
        for write in each["writes"]:
            node = f"{write['table']}@{write['version']}"
            verdict = (write["gate"] or {}).get("verdict", "no gate")
            if (write["release"] or {}).get("override_of"):
                verdict += ", OVERRIDE"
            graph.add_node(node, kind="table", note=f"{write['step']} {write['interval']}, {verdict}")
            graph.add_edge(node, target)
            files = write.get("files", [])
            for file in files if len(files) <= SHOWN_FILES else ():
                rows = counted(file["rows"], "row") if file.get("rows") is not None else "? rows"
                name = _add_file(graph, file["file"], f"{rows}, {file.get('sha256', '')[:12]}")
                graph.add_edge(name, node)
            if len(files) > SHOWN_FILES:
                name = f"files of {node}"
                title = f"{len(files)} files of {write['table'].partition('.')[2]}"
                graph.add_node(name, kind="file", title=title, note=f"{files[0]['day']} to {files[-1]['day']}")
                graph.add_edge(name, node)
            _add_inputs(graph, write.get("inputs", []), node)


def _add_file(graph: nx.DiGraph, path: str, note: str) -> str:
    """A node for a source file; files of two folders can have one name."""
    graph.add_node(path, kind="file", title=path.rpartition("/")[2], note=note)
    return path


def of_impact(found: Impact) -> nx.DiGraph:
    """What was made from something; edges go with the data.

    Args:
        found: Outcome of :func:`lakehouse.provenance.impact.impact`.
    """
    graph = nx.DiGraph()
    for column in {name for edge in found.edges for name in edge} if found.kind == "column" else ():
        graph.add_node(column, kind="table", note="column")
    for landing in found.landings:
        _add_file(graph, landing["file"], landing["sha256"][:12])
    for each in found.tables if found.kind != "column" else ():
        node = f"{each['table']}@{each['version']}"
        graph.add_node(node, kind="table", note=f"{each['days']}; {visibility(each)}")
        if each["step"] in ("land", "replay"):
            for landing in found.landings:
                if landing["run_id"] == each["run_id"]:
                    graph.add_edge(landing["file"], node)
    for each in found.models:
        graph.add_node(
            f"{each['name']}@{each['version']}", kind="model", note=", ".join(each["roles_now"]) or "no role"
        )
    scorings: dict[str, list[dict[str, Any]]] = {}
    for each in found.predictions:
        scorings.setdefault(f"{each['table']}@{each['version']}", []).append(each)
    for node, parts in scorings.items():  # a part for each model version that has scored
        visible, written = (sum(part[name] or 0 for part in parts) for name in ("rows_visible", "rows_written"))
        days = ", ".join(dict.fromkeys(part["days"] for part in parts))
        graph.add_node(node, kind="prediction", note=f"{days}: {visible} of {written} visible")
    graph.add_edges_from(found.edges)
    for landing in found.landings:
        if landing["status"] != "success":
            name = f"landing {landing['run_id'][:8]} failed"
            graph.add_node(
                name, kind="failed", note=f"{counted(landing['rows_quarantined'] or 0, 'row')} in quarantine"
            )
            graph.add_edge(landing["file"], name)
    return graph


def draw(graph: nx.DiGraph) -> dict[str, Any]:
    """Places for the nodes, in layers: every edge goes from left to right.

    A line that leads past a layer has a lane there, as a box has a place, so no line is behind a box. The lines of one
    node share their lanes.

    Args:
        graph: Without cycles; nodes have ``kind`` and ``note``, and a ``title`` where it is not their name.

    Returns:
        ``width`` and ``height`` in pixels, ``boxes``, and ``lines`` as SVG paths.
    """
    layers: list[list[Any]] = [list(layer) for layer in nx.topological_generations(graph)]
    layer_of = {node: number for number, layer in enumerate(layers) for node in layer}
    before: dict[Any, list[Any]] = {node: [] for node in graph}
    ways = {}
    for source, target in graph.edges:
        ways[source, target] = [source, *((source, at) for at in range(layer_of[source] + 1, layer_of[target])), target]
        for one, following in pairwise(ways[source, target]):
            if following not in before:  # a lane, which is a source and a layer
                before[following] = []
                layers[following[1]].append(following)
            if one not in before[following]:
                before[following].append(one)
    middles: dict[Any, float] = {}
    boxes, height = [], 0.0
    for column, layer in enumerate(layers):

        def middle(node: Any) -> float:
            return sum(middles[each] for each in before[node]) / len(before[node]) if before[node] else 0.0

        y = 0.0
        for node in sorted(layer, key=lambda node: (middle(node), str(node))):
            size = LANE if isinstance(node, tuple) else HEIGHT
            middles[node] = y + size / 2
            if node in graph:
                told = graph.nodes[node]
                facts = told.get("title", node), told.get("note", ""), told.get("kind", "table")
                boxes.append(Box(node, *facts, column * (WIDTH + GAP_X), y))
            height, y = max(height, y + size), y + size + GAP_Y
    return {
        "width": max((box.x for box in boxes), default=0) + WIDTH,
        "height": height or HEIGHT,
        "boxes": boxes,
        "lines": [_line(layer_of[way[0]], [middles[node] for node in way]) for way in ways.values()],
    }


def _line(layer: int, heights: list[float]) -> str:
    """A line from a layer to a further one: curved between them, and straight past those on its way."""
    x, path = layer * (WIDTH + GAP_X) + WIDTH, ""
    for y1, y2 in pairwise(heights):
        path += f"{f' H{x}' if path else f'M{x} {y1}'} C{x + GAP_X / 2} {y1} {x + GAP_X / 2} {y2} {x + GAP_X} {y2}"
        x += WIDTH + GAP_X
    return path


def page_of_explanation(explanation: dict[str, Any]) -> str:
    """A page with the reasons of a prediction, and the graph of what it comes from.

    Args:
        explanation: Outcome of :func:`lakehouse.provenance.explain.explain`.
    """
    row, training = explanation["prediction"], explanation["model"]["training"]
    return pages.render(
        "explanation.html",
        title=f"Prediction {row['prediction_id']}",
        explanation=explanation,
        about=[(name, str(value)) for name, value in row.items() if name not in TECHNICAL],
        largest=max((abs(each["contribution"] or 0) for each in explanation["reasons"]["contributions"]), default=0)
        or 1,
        own=list(_flat(explanation["inputs"])),
        own_files=_files(explanation["inputs"]),
        trained=list(_flat(training["inputs"])),
        trained_files=_files(training["inputs"]),
        graph=draw(of_explanation(explanation)),
        size=(WIDTH, HEIGHT),
    )


def _flat(inputs: list[dict[str, Any]], depth: int = 0) -> Iterator[dict[str, Any]]:
    """Tables with those that they were made from below them, each version once."""
    for each in inputs:
        yield {**each, "depth": depth}
        below: dict[tuple[str, int], dict[str, Any]] = {}
        for write in each["writes"]:
            for further in write.get("inputs", []):
                below.setdefault((further["table"], further["version"]), further)
        yield from _flat(list(below.values()), depth + 1)


def _files(inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The source files behind some tables, each once, the latest day first."""
    found = {
        (table, file["file"]): {**file, "table": table, "rows": file.get("rows") or 0, "sha256": file.get("sha256")}
        for table, file in files_of(inputs)
    }
    return sorted(found.values(), key=lambda file: (str(file["day"]), file["table"]), reverse=True)


def page_of_impact(found: Impact) -> str:
    """A page with everything that was made from something, and its graph.

    Args:
        found: Outcome of :func:`lakehouse.provenance.impact.impact`.
    """
    return pages.render(
        "impact.html",
        title=f"Impact of {found.what}",
        found=found,
        graph=draw(of_impact(found)),
        size=(WIDTH, HEIGHT),
    )

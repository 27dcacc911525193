"""Compiled models: a fitted pipeline as plain arithmetic on Arrow columns, with the same scores to the last bit.

What scikit-learn spends on a row is mostly its own bookkeeping: building frames, checking them, one-hot matrices. Here
each encoded column is a NumPy vector, a linear model adds them up in the order in which a sparse product does, and
trees are evaluated node by node for all rows at once, with the leaves that a row cannot reach as bits of an integer
(Lucchese et al., 2015, "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees").
Every operation is one per row, so a row has the same score in any batch.

The workers import this module: it needs NumPy, SciPy and Arrow, and neither scikit-learn nor pandas. How a form is made
and proven is in :mod:`lakehouse.ml.compilation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_ROWS = 8192
"""So many rows at once: their columns fit into a core's cache."""

UNKNOWN, NULL = -2, -1
"""Places in a table of names: the last row but one and the last."""

_loaded: dict[bytes, Form] = {}


class UnfitError(Exception):
    """Rows that the pipeline itself has to score or to refuse, such as those with infinite numbers."""


@dataclass(frozen=True)
class Form:
    """A compiled model.

    Attributes:
        task: ``classification`` or ``regression``.
        blocks: How each input is encoded, in the order of the encoded columns. ``kind`` is ``number`` (``steps`` of
            ``fill``, ``subtract`` and ``divide``), ``bins`` (the same, then ``edges`` and a ``table`` with a row per
            bin) or ``names`` (``values`` and a ``table`` with a row per value, for others and for null; a row that
            is null is refused).
        final: ``kind`` is ``linear`` (``weights`` by encoded column, ``intercept``) or ``trees`` (``base``, ``trees``).
    """

    task: str
    blocks: tuple[dict[str, Any], ...]
    final: dict[str, Any]

    def dump(self) -> bytes:
        """As JSON, which keeps every number exactly and holds nothing that could be run."""
        return json.dumps({"task": self.task, "blocks": self.blocks, "final": self.final}).encode()


def load(payload: bytes) -> Form:
    """A form from what :meth:`Form.dump` gave, read once per process.

    Args:
        payload: The bytes.
    """
    if payload not in _loaded:
        document = json.loads(payload)
        final = document["final"]
        for tree in final.get("trees", ()):
            tree["kind"], tree["values"] = _by_pattern(tree["leaves"])
        _loaded[payload] = Form(document["task"], tuple(map(_prepared, document["blocks"])), final)
    return _loaded[payload]


def score(form: Form, batch: pa.RecordBatch) -> Any:
    """The score of each row, as a float64 array.

    Args:
        form: A compiled model.
        batch: Rows with the model's inputs, and any other columns.

    Raises:
        UnfitError: Some row holds what only the pipeline can judge.
    """
    scores = np.empty(batch.num_rows)
    for start in range(0, batch.num_rows, CHUNK_ROWS):
        part = batch.slice(start, CHUNK_ROWS)
        encoded = [_encode(block, part.column(block["input"])) for block in form.blocks]
        raw = _linear(form.final, encoded) if form.final["kind"] == "linear" else _trees(form.final, encoded)
        scores[start : start + CHUNK_ROWS] = raw
    if not np.isfinite(scores).all():
        raise UnfitError
    if form.task == "classification":
        from scipy.special import expit  # type: ignore[import-untyped]

        return expit(scores, out=scores)
    return scores


@dataclass(frozen=True)
class _Encoded:
    """An encoded input: a vector of numbers, or per row a row of a table."""

    width: int
    numbers: Any = None
    places: Any = None
    table: Any = None

    def column(self, number: int) -> Any:
        return self.numbers if self.places is None else self.table[:, number].take(self.places)


def _prepared(block: dict[str, Any]) -> dict[str, Any]:
    if block["kind"] == "number":
        return block
    rows = block["table"]
    width = max(len(row) for row in rows if row is not None)
    table = np.array([[np.nan] * width if row is None else row for row in rows], dtype="float64")
    refused = frozenset(place for place, row in enumerate(rows) if row is None)
    known = {value: place for place, value in enumerate(block.get("values", ()))}
    return {**block, "table": table, "refused": refused, "known": known, "edges": np.array(block.get("edges", ()))}


def _encode(block: dict[str, Any], column: pa.Array) -> _Encoded:
    if block["kind"] == "names":
        return _Encoded(block["table"].shape[1], places=_places(block, column), table=block["table"])
    numbers = _numbers(column)
    if block["steps"] or block["kind"] == "bins":
        if np.isinf(numbers).any():
            raise UnfitError
        for step, value in block["steps"]:
            numbers = _STEPS[step](numbers, value)
    if block["kind"] == "number":
        return _Encoded(1, numbers=numbers)
    if np.isnan(numbers).any():
        raise UnfitError
    places = np.searchsorted(block["edges"], numbers, side="right")
    return _Encoded(block["table"].shape[1], places=places, table=block["table"])


_STEPS: dict[str, Callable[[Any, float], Any]] = {
    "fill": lambda numbers, value: np.where(np.isnan(numbers), value, numbers),
    "subtract": np.subtract,
    "divide": np.divide,
}


def _numbers(column: pa.Array) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_float64(column.type):
        column = pc.cast(column, pa.float64(), safe=False)
    return column.to_numpy(zero_copy_only=False)


def _places(block: dict[str, Any], column: pa.Array) -> Any:
    """For each row the row of the block's table."""
    encoded = column.dictionary_encode()
    size = len(block["table"])
    known, other, null = block["known"], size + UNKNOWN, size + NULL
    # The last entry is for null, whose index is made -1.
    rows = np.array([*(known.get(_plain(value), other) for value in encoded.dictionary.to_pylist()), null])
    places = rows.take(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False))
    if block["refused"] and np.isin(places, list(block["refused"])).any():
        raise UnfitError
    return places


def _plain(value: Any) -> Any:
    # Not a number is a name that nobody knows, also to a dictionary.
    return value if isinstance(value, (str, int, float, bool)) else None


def _linear(final: dict[str, Any], encoded: list[_Encoded]) -> Any:
    total: Any = None
    place = 0
    for each in encoded:
        weights = final["weights"][place : place + each.width]
        place += each.width
        if each.places is None:
            part = each.numbers * weights[0]
        else:
            # One column of a row is not zero at most, so that adding them up in any order is adding that one.
            part = (each.table * weights).sum(axis=1).take(each.places)
        total = part if total is None else np.add(total, part, out=total)
    return total + final["intercept"]


def _trees(final: dict[str, Any], encoded: list[_Encoded]) -> Any:
    columns = _Columns(encoded)
    rows = len(columns[final["columns"][0]]) if final["columns"] else len(encoded[0].column(0))
    total = np.full(rows, final["base"])
    right = np.empty(rows, dtype=bool)
    for tree in final["trees"]:
        kind = tree["kind"]
        gone, bits = np.zeros(rows, dtype=kind), np.empty(rows, dtype=kind)
        for column, threshold, missing_left, left_leaves in tree["nodes"]:
            if missing_left:
                np.greater(columns[column], threshold, out=right)
            else:
                np.less_equal(columns[column], threshold, out=right)
                np.logical_not(right, out=right)
            np.multiply(right, kind(left_leaves), out=bits)
            np.bitwise_or(gone, bits, out=gone)
        # The pattern of a byte is looked up as it is; that of more leaves by its first leaf that is not gone.
        total += tree["values"].take(gone if kind is np.uint8 else _first(gone))
    return total


class _Columns(dict[int, Any]):
    """Encoded columns by number, made when they are asked for."""

    def __init__(self, encoded: list[_Encoded]) -> None:
        self._owner = [(each, number) for each in encoded for number in range(each.width)]

    def __missing__(self, number: int) -> Any:
        each, own = self._owner[number]
        self[number] = each.column(own)
        return self[number]


def _by_pattern(leaves: list[float]) -> tuple[Any, Any]:
    """The type that has a bit for every leaf, and the values to look up."""
    kind = next(kind for kind in (np.uint8, np.uint16, np.uint32, np.uint64) if len(leaves) <= np.iinfo(kind).bits)
    if kind is not np.uint8:
        return kind, np.array(leaves)
    return kind, np.array([*leaves, *[np.nan] * (9 - len(leaves))]).take(_first(np.arange(256, dtype=np.uint8)))


def _first(gone: Any) -> Any:
    """Number of the lowest bit that is not set."""
    one = gone.dtype.type(1)
    return np.bitwise_count((~gone & (gone + one)) - one)

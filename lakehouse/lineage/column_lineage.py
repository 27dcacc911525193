"""What each column of the lake is made from: source → bronze → silver → gold → model → prediction.

Nothing of it is written by hand. The columns of bronze follow from the contracts, those of silver and gold from the
SQL that dbt compiles, those of models and predictions from ``model.yaml``.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import sqlglot

from lakehouse import contracts, dbt_project, ops
from lakehouse.lineage import sql_lineage
from lakehouse.lineage.sql_lineage import (
    Condition,
    Edge,
    LineageError,
    conditions_of_query,
    edges_of_query,
    lineage_of_query,
)
from lakehouse.ml import model_folders
from lakehouse.ml.model_spec import ModelSpec
from lakehouse.ml.scoring import LINEAGE, SCORE
from lakehouse.settings import settings
from lakehouse.tables import UnknownColumnError
from lakehouse.wording import did_you_mean

__all__ = [
    "Condition",
    "Edge",
    "LineageError",
    "Project",
    "UnknownColumnError",
    "columns",
    "conditions",
    "conditions_of_query",
    "downstream",
    "edges",
    "edges_of_query",
    "record",
    "resolve",
    "upstream",
]

TABLE = "ops.lineage_columns"

log = logging.getLogger("lakehouse")

_Node = tuple[str, str]


@dataclass(frozen=True)
class Project:
    """The columns of the whole project.

    Attributes:
        columns: Table, by the name that readers use, to its columns in order. Beside the tables there are
            ``source.<contract>`` for what an upstream delivers, and ``models.<model>`` for a model's inputs and score.
        edges: What each column is made from, one step before.
        conditions: What decides about the rows of each table.
    """

    columns: dict[str, tuple[str, ...]]
    edges: tuple[Edge, ...]
    conditions: tuple[Condition, ...]


def edges() -> list[Edge]:
    """What each column of the project is made from, one step before.

    Raises:
        LineageError: The SQL of a model cannot be understood.
    """
    return list(_project().edges)


def of_landing(contract: contracts.Contract) -> list[Edge]:
    """What the columns of a bronze table are made from.

    Args:
        contract: The contract of its source.
    """
    return _copies(contract.table, f"source.{contract.name}", [column.name for column in contract.columns])


def conditions() -> list[Condition]:
    """What decides about the rows of each table of the project, one step before.

    Raises:
        LineageError: The SQL of a model cannot be understood.
    """
    return list(_project().conditions)


def columns() -> dict[str, tuple[str, ...]]:
    """The tables of the project with their columns, sources and models included.

    Raises:
        LineageError: The SQL of a model cannot be understood.
    """
    return dict(_project().columns)


def upstream(name: str, *, with_conditions: bool = False) -> list[Edge]:
    """All that a table or column is made from, back to the sources.

    Args:
        name: ``layer.table`` or ``layer.table.column``.
        with_conditions: Also what only decides about the rows, as an indirect edge of every column of the table.

    Raises:
        UnknownColumnError: There is no such table or column.
    """
    return _closure(name, "up", with_conditions)


def downstream(name: str, *, with_conditions: bool = False) -> list[Edge]:
    """All that is made from a table or column, on to the predictions.

    Args:
        name: ``layer.table`` or ``layer.table.column``.
        with_conditions: Also every column of the tables about whose rows it only decides.

    Raises:
        UnknownColumnError: There is no such table or column.
    """
    return _closure(name, "down", with_conditions)


def resolve(name: str) -> list[tuple[str, str]]:
    """The columns that a name stands for, each with its table.

    Args:
        name: ``layer.table`` for all of its columns, or ``layer.table.column`` for one.

    Raises:
        UnknownColumnError: There is no such table or column.
    """
    known = columns()
    layer, _, rest = name.partition(".")
    table, dot, column = rest.partition(".")
    table = f"{layer}.{table}"
    if layer in ("ops", "quarantine"):
        raise UnknownColumnError(f"{name} is a record of the platform's own, and no step on the way of the data.")
    if table not in known:
        named = [each for each in known if each.endswith(f".{name}")]
        if named:
            hint = f" Did you mean {' or '.join(named)}?"
        else:
            hint = did_you_mean(table, known, f"There are: {', '.join(sorted(known))}.", most=3)
        raise UnknownColumnError(f"There is no table {table if rest else name}.{hint}")
    if not dot:
        return [(table, each) for each in known[table]]
    if column not in known[table]:
        hint = did_you_mean(column, known[table], f"It has: {', '.join(known[table])}.", most=3)
        raise UnknownColumnError(f"{table} has no column {column}.{hint}")
    return [(table, column)]


def record() -> bool:
    """Append the lineage of the project to ``ops.lineage_columns``, if it is not what was recorded last.

    Returns:
        Whether it was recorded.

    Raises:
        LineageError: The SQL of a model cannot be understood.
    """
    project = _project()
    rows = [dict(zip(_FIELDS, astuple(edge), strict=True)) for edge in project.edges]
    rows += [
        {
            "table_name": condition.table,
            "source_table": condition.source_table,
            "source_column": condition.source_column,
            "kind": "indirect",
            "transformation": condition.transformation,
        }
        for condition in project.conditions
    ]
    digest = hashlib.sha256(json.dumps([sorted(row.items()) for row in rows]).encode()).hexdigest()
    with _lock():
        known = ops.read(TABLE, ["recorded_at", "digest"]).sort_by("recorded_at")
        if len(known) and known["digest"][-1].as_py() == digest:
            return False
        now = dt.datetime.now(dt.UTC)
        ops.append(TABLE, [{"recorded_at": now, "digest": digest, **row} for row in rows])
    log.info("column lineage: %d edges recorded in %s", len(rows), TABLE)
    return True


_FIELDS = ("table_name", "column_name", "source_table", "source_column", "kind", "transformation")


def _closure(name: str, direction: Literal["up", "down"], with_conditions: bool) -> list[Edge]:
    waiting = resolve(name)
    all_edges = edges()
    if with_conditions:
        known = columns()
        all_edges += [
            Edge(each.table, column, each.source_table, each.source_column, "indirect", each.transformation)
            for each in conditions()
            for column in known[each.table]
        ]
    at: dict[_Node, list[tuple[_Node, Edge]]] = defaultdict(list)
    for edge in all_edges:
        made, source = (edge.table, edge.column), (edge.source_table, edge.source_column)
        if direction == "up":
            at[made].append((source, edge))
        else:
            at[source].append((made, edge))
    found: set[Edge] = set()
    seen = set(waiting)
    while waiting:
        for node, edge in at[waiting.pop()]:
            found.add(edge)
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return sorted(found)


def _project() -> Project:
    return _kept(_digest())


def _digest() -> str:
    """Changes with all that the lineage is read from, and with the code that reads it."""
    digest = hashlib.sha256(f"{dbt_project.project_digest()} {sqlglot.__version__}".encode())
    for path in (Path(__file__), Path(sql_lineage.__file__)):
        digest.update(path.read_bytes())
    for spec in model_folders.readable():
        digest.update(spec.model_dump_json().encode())
    return digest.hexdigest()


@cache
def _kept(digest: str) -> Project:
    """The lineage, read anew only when what it is made from has changed: compiling the SQL takes dbt seconds."""
    path = _folder() / "columns.json"
    with _lock():
        if path.exists():
            kept = json.loads(path.read_text())
            if kept["digest"] == digest:
                return Project(
                    {table: tuple(names) for table, names in kept["columns"].items()},
                    tuple(Edge(*values) for values in kept["edges"]),
                    tuple(Condition(*values) for values in kept["conditions"]),
                )
        project = _read()
        written = path.with_suffix(".new")
        written.write_text(
            json.dumps(
                {
                    "digest": digest,
                    "columns": project.columns,
                    "edges": [astuple(edge) for edge in project.edges],
                    "conditions": [astuple(condition) for condition in project.conditions],
                }
            )
        )
        written.replace(path)
    return project


def _read() -> Project:
    known: dict[str, tuple[str, ...]] = {}
    found: set[Edge] = set()
    decisive: set[Condition] = set()
    for source, declared in dbt_project.declared_sources().items():
        names = tuple(name for name in declared["columns"] if name not in contracts.TECHNICAL_COLUMNS)
        known[f"source.{source}"] = names
        known[f"bronze.{source}"] = (*names, *contracts.TECHNICAL_COLUMNS)
        found.update(_copies(f"bronze.{source}", f"source.{source}", names))
    for compiled in dbt_project.compiled_models():
        try:
            lineage = lineage_of_query(compiled.query, compiled.table, known)
        except LineageError as error:
            raise LineageError(f"dbt/{compiled.path}, as dbt compiles it: {error}") from error
        known[compiled.table] = lineage.columns
        found.update(lineage.edges)
        decisive.update(lineage.conditions)
    specs = model_folders.readable()
    for spec in specs:
        known |= _columns_of_model(spec)
    for spec in specs:
        _check_features(spec, known)
        found.update(_edges_of_model(spec))
    return Project(known, tuple(sorted(found)), tuple(sorted(decisive)))


def _columns_of_model(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    features = spec.features
    return {
        f"models.{spec.name}": (*features.inputs, SCORE),
        spec.predictions_table: ("prediction_id", *features.kept, SCORE, *_decision(spec), *LINEAGE),
    }


def _decision(spec: ModelSpec) -> tuple[str, ...]:
    return () if spec.decision_threshold is None else ("decision",)


def _edges_of_model(spec: ModelSpec) -> list[Edge]:
    model, predictions, features = f"models.{spec.name}", spec.predictions_table, spec.features
    identity = (*features.entity_key, features.interval_column)
    return [
        *_copies(model, features.table, features.inputs),
        *(Edge(model, SCORE, model, name, "direct", "TRANSFORMATION") for name in features.inputs),
        *_copies(predictions, features.table, features.kept),
        *_copies(predictions, model, [SCORE]),
        *(Edge(predictions, name, model, SCORE, "direct", "TRANSFORMATION") for name in _decision(spec)),
        *(Edge(predictions, "prediction_id", features.table, name, "direct", "TRANSFORMATION") for name in identity),
    ]


def _check_features(spec: ModelSpec, known: dict[str, tuple[str, ...]]) -> None:
    features = spec.features
    used = tuple(dict.fromkeys([*features.kept, *features.inputs]))
    # A table that neither landing nor dbt makes is where the lineage begins.
    missing = set(used) - set(known.setdefault(features.table, used))
    if missing:
        raise LineageError(
            f"models/{spec.name}/model.yaml: features: {features.table} has no column {', '.join(sorted(missing))}."
        )


def _copies(table: str, source: str, names: Iterable[str]) -> list[Edge]:
    return [Edge(table, name, source, name, "direct", "IDENTITY") for name in names]


def _folder() -> Path:
    folder = settings().home / "lineage"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _lock() -> Iterator[None]:
    with (_folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

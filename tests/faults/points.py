"""The points at which something is harmed: who, how, where in the daily job, before or after what."""

from __future__ import annotations

from dataclasses import dataclass

WEATHER, FACTS, SCORES = "bronze_next.weather", "gold_next.fct_flights", "ml_next.predictions_flight_delay"


@dataclass(frozen=True)
class Point:
    """One fault.

    Attributes:
        name: What users of the harness call it.
        victim: Who is harmed: ``task`` (whoever gets there), ``python-worker``, or a part of the platform.
        when: ``before`` or ``after`` the target; ``files``: after its first data file; ``during``: beside it.
        target: The function, one of ``inject/sitecustomize.py``'s.
        match: What its arguments have to contain.
        watched: The table whose data files are waited for.
        dag: Where in the daily job it is: ``ingest``, ``build``, ``score`` or ``train``.
        deed: What is done to the victim, one of ``inject/sitecustomize.py``'s deeds.
        named: What a run that fails for good has to say, as a regular expression; it may just recover.
    """

    name: str
    victim: str
    when: str
    target: str
    match: str = ""
    watched: str = ""
    dag: str = "ingest"
    deed: str = "kill"
    named: str = ""


_WRITE = "lakehouse.tables.replace_interval"
_OPS = "lakehouse.ops.append"
_DBT = "dbt.adapters.spark.connections.PyhiveConnectionWrapper.execute"
_FACTS = "into gold_next.fct_flights"
_REGISTER, _FETCH = "lakehouse.registry.registry.register", "lakehouse.registry.registry.fetch"
_MISSING = "lakehouse.readers.missing"
_GATE, _RECORD, _POINT = (
    "lakehouse.quality.gate.check_all",
    "lakehouse.releases.release._record",
    "lakehouse.releases.release._point",
)

KILLS = (
    # A task of Airflow, in each of its phases.
    Point("land: task before the write", "task", "before", _WRITE, WEATHER),
    Point("land: task after data files", "task", "files", _WRITE, WEATHER, WEATHER),
    Point("land: task after the commit", "task", "after", _WRITE, WEATHER),
    Point("land: task before its record", "task", "before", _OPS, "'step': 'land', 'dataset': 'bronze.weather'"),
    Point("land: task after its record", "task", "after", _OPS, "'step': 'land', 'dataset': 'bronze.weather'"),
    Point("gate: task before the check", "task", "before", _GATE, "weather"),
    Point("gate: task after the check", "task", "after", _GATE, "weather"),
    Point("gate: task after the verdict", "task", "after", _OPS, "ops.gate_results"),
    Point(
        "release: task before the fingerprints",
        "task",
        "before",
        "lakehouse.releases.fingerprints.record",
        "bronze.weather",
    ),
    Point(
        "release: task after the fingerprints",
        "task",
        "after",
        "lakehouse.releases.fingerprints.record",
        "bronze.weather",
    ),
    Point("release: task after the record", "task", "after", _RECORD, "bronze.weather"),
    Point("release: task after the view", "task", "after", _POINT, "bronze.weather"),
    Point("release: task after all of it", "task", "after", "lakehouse.releases.release.release", "bronze.weather"),
    Point("build: task after it has made ready", "task", "after", "lakehouse.warehouse.prepare", dag="build"),
    Point("build: dbt before a table is written", "task", "before", _DBT, _FACTS, dag="build"),
    Point("build: dbt after a table's data files", "task", "files", _DBT, _FACTS, FACTS, dag="build"),
    Point("build: dbt after a table is written", "task", "after", _DBT, _FACTS, dag="build"),
    Point("build: task before its record", "task", "before", "lakehouse.warehouse.record", dag="build"),
    Point("build: task after the gate of the set", "task", "after", _GATE, "gold.", dag="build"),
    Point("build: task before the release of the set", "task", "before", _RECORD, "gold.fct_flights", dag="build"),
    Point("build: task between two views of the set", "task", "after", _POINT, "gold.dim_planes", dag="build"),
    Point("score: task before the model is loaded", "task", "before", _FETCH, dag="score"),
    Point("score: task after data files", "task", "files", _WRITE, SCORES, SCORES, dag="score"),
    Point("score: task after the commit", "task", "after", _WRITE, SCORES, dag="score"),
    Point("train: task before the registry is written", "task", "before", _REGISTER, dag="train"),
    Point("train: task after the registry is written", "task", "after", _REGISTER, dag="train"),
    Point("train: task before the comparison", "task", "before", "lakehouse.registry.comparison.contest", dag="train"),
    Point("train: task after the role is recorded", "task", "after", _OPS, "ops.model_events", dag="train"),
    Point(
        "train: task after the aliases are moved", "task", "after", "lakehouse.registry.registry.set_alias", dag="train"
    ),
    # The engine's JVM, and a Python worker of it.
    Point("land: engine before the write", "engine", "before", _WRITE, WEATHER),
    Point("land: engine after data files", "engine", "files", _WRITE, WEATHER, WEATHER),
    Point("gate: engine before the check", "engine", "before", _GATE, "weather"),
    Point("release: engine between record and view", "engine", "after", _RECORD, "bronze.weather"),
    Point("build: engine after a table's data files", "engine", "files", _DBT, _FACTS, FACTS, dag="build"),
    Point("score: engine after data files", "engine", "files", _WRITE, SCORES, SCORES, dag="score"),
    Point("score: Python worker", "python-worker", "during", _WRITE, SCORES, dag="score"),
    # The other parts.
    Point("land: PostgreSQL before the write", "postgres", "before", _WRITE, WEATHER),
    Point("release: PostgreSQL after the record", "postgres", "after", _RECORD, "bronze.weather"),
    Point("score: MLflow before the model is loaded", "mlflow", "before", _FETCH, dag="score"),
    Point("train: MLflow before the registry is written", "mlflow", "before", _REGISTER, dag="train"),
    Point("land: scheduler after the commit", "scheduler", "after", _WRITE, WEATHER),
    Point("build: scheduler after a table is written", "scheduler", "after", _DBT, _FACTS, dag="build"),
)
"""In the order of the parts."""

_DISK, _FILES = "File too large|No space left", "Too many open files|EngineLostError|does not answer"

HARMS = (
    # A writer that sleeps for longer than it is waited for, and is woken when another has done its work.
    Point("land: task paused before the write", "task", "before", _WRITE, WEATHER, deed="pause"),
    Point("land: task paused after the commit", "task", "after", _WRITE, WEATHER, deed="pause"),
    Point("release: task paused after the record", "task", "after", _RECORD, "bronze.weather", deed="pause"),
    # A part that does not answer any more, and one that answers late.
    Point("land: engine hangs", "engine", "files", _WRITE, WEATHER, WEATHER, deed="hang"),
    Point("land: PostgreSQL hangs", "postgres", "before", _WRITE, WEATHER, deed="hang"),
    Point("score: MLflow hangs", "mlflow", "before", _FETCH, dag="score", deed="hang"),
    Point("build: scheduler hangs", "scheduler", "after", _DBT, _FACTS, dag="build", deed="hang"),
    Point("land: engine answers late", "engine", "files", _WRITE, WEATHER, WEATHER, deed="be late"),
    Point("release: PostgreSQL answers late", "postgres", "after", _RECORD, "bronze.weather", deed="be late"),
    Point("train: MLflow answers late", "mlflow", "before", _REGISTER, dag="train", deed="be late"),
    # Nothing is left of what it needs, for a while.
    Point("land: engine without disk", "engine", "before", _WRITE, WEATHER, deed="fill the disk", named=_DISK),
    Point(
        "build: engine without disk", "engine", "before", _DBT, _FACTS, dag="build", deed="fill the disk", named=_DISK
    ),
    Point("land: PostgreSQL without disk", "postgres", "before", _WRITE, WEATHER, deed="fill the disk"),
    Point(
        "land: engine without file handles", "engine", "before", _WRITE, WEATHER, deed="take the files", named=_FILES
    ),
    Point(
        "score: engine without file handles",
        "engine",
        "before",
        _WRITE,
        SCORES,
        dag="score",
        deed="take the files",
        named=_FILES,
    ),
    Point("score: engine without memory", "engine", "before", _WRITE, SCORES, dag="score", deed="take the memory"),
    Point("gate: task without memory", "task", "before", _GATE, "weather", deed="take the memory", named="MemoryError"),
    # The drop folder is away when the source is asked for, and comes back.
    Point("land: drop folder away", "drop", "before", _MISSING, "weather", deed="take away"),
)
"""In the order of what is done; what is taken comes back, and who hangs is started anew by the platform."""

POINTS = (*KILLS, *HARMS)

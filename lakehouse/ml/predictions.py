"""Predictions: the rows that a version is given, and those that it leaves, whoever scores and whatever for."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import TYPE_CHECKING, Any

from lakehouse import tables
from lakehouse.engine import sql
from lakehouse.errors import LakeError
from lakehouse.ml import prediction_id
from lakehouse.ml.scoring import DECISION, LINEAGE, SCORE, score_batches
from lakehouse.release_log import NotReleasedError, released

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.ml.scoring import ServedModel
    from lakehouse.release_log import Released

COMMENTS = {
    "prediction_id": "Hash of model, entity key and day: the same whenever the entity is scored again.",
    SCORE: "Probability that the label is true, or the predicted number.",
    DECISION: "Whether the score reaches the model version's threshold.",
    "model_name": "Model in the registry.",
    "model_version": "Version in the registry that scored, which is resolved from its role once per run.",
    "role": "What the version was when it scored: champion, challenger, fallback, fallback_baseline.",
    "run_id": "Run in ops.runs that made the row.",
    "release_id": "Release in ops.releases that made the features visible.",
    "scored_at": "When its version began to score.",
}


class NothingToScoreError(LakeError):
    """The released features have no rows for an interval."""


def source_of(spec: ModelSpec) -> Released:
    """The released version of a model's features.

    Args:
        spec: The model.

    Raises:
        lakehouse.release_log.NotReleasedError: They have never been released.
    """
    source = released().get(spec.features.table)
    if source is None:
        raise NotReleasedError(
            f"{spec.features.table} has no released version. Build, gate and release the warehouse first."
        )
    return source


def column_types(source: Released) -> dict[str, str]:
    """Columns of a released table, and their types as Spark names them.

    Args:
        source: The table and its version.
    """
    fields = sql(f"select * from {tables.next_table(source.table)} version as of {source.version}").schema
    return {field.name: field.dataType.simpleString() for field in fields}


def select(spec: ModelSpec, source: Released, inputs: set[str], condition: str) -> DataFrame:
    """The rows to score: the columns that a prediction keeps, and those that the versions see.

    Args:
        spec: The model.
        source: The released version of the features.
        inputs: Input columns of the versions that score.
        condition: SQL that tells which rows.
    """
    columns = dict.fromkeys([*spec.features.kept, *sorted(inputs)])
    return sql(
        f"select {', '.join(f'`{name}`' for name in columns)} from {tables.next_table(source.table)} "
        f"version as of {source.version} where {condition}"
    )


def lineage(version: int, role: str, name: str, run_id: str, release_id: int) -> dict[str, Any]:
    """What every row that a version scores in a run says of where it comes from.

    Args:
        version: The version that scores.
        role: What it is.
        name: The model.
        run_id: The run in ``ops.runs``.
        release_id: The release of the features.
    """
    return {
        "model_name": name,
        "model_version": version,
        "role": role,
        "run_id": run_id,
        "release_id": release_id,
        "scored_at": dt.datetime.now(dt.UTC),
    }


def create_table(
    spec: ModelSpec, stored: str, kept: dict[str, str], decided: bool, more: dict[str, str] | None = None
) -> None:
    """Create a table of predictions if it does not exist.

    Args:
        spec: The model.
        stored: Name of the stored table.
        kept: Name and type of the columns that a prediction keeps of its input.
        decided: Whether it has decisions.
        more: Further columns and their types.
    """
    tables.create(
        stored,
        {
            "prediction_id": "string",
            **kept,
            SCORE: "double",
            **({DECISION: "boolean"} if decided else {}),
            **LINEAGE,
            **(more or {}),
        },
        statistics=[spec.features.interval_column, "model_version"],
        comments=COMMENTS,
    )


def predictions(
    features: DataFrame,
    served: ServedModel,
    spec: ModelSpec,
    kept: dict[str, str],
    facts: dict[str, Any],
    decided: bool | None = None,
) -> DataFrame:
    """The predictions for rows of features.

    Args:
        features: The columns to keep and the model's inputs.
        served: The model version that scores.
        spec: The model.
        kept: Name and type of the columns that a prediction keeps of its input.
        facts: Values of the columns of ``LINEAGE``.
        decided: Whether there is a column for decisions, which is null for a version without a threshold; as the
            version has one without it.
    """
    from pyspark.sql import functions as F

    decided = served.threshold is not None if decided is None else decided
    decision = F.lit(None) if served.threshold is None else F.col(SCORE) >= F.lit(served.threshold)
    scored = features.select(*dict.fromkeys([*kept, *served.inputs])).mapInArrow(
        partial(score_batches, model=served, kept=list(kept)),
        ", ".join(f"`{name}` {type_}" for name, type_ in {**kept, SCORE: "double"}.items()),
    )
    identity = prediction_id.column(served.name, spec.features.entity_key, spec.features.interval_column)
    return scored.select(
        identity.alias("prediction_id"),
        *kept,
        SCORE,
        *([decision.cast("boolean").alias(DECISION)] if decided else []),
        *(F.lit(facts[name]).cast(type_).alias(name) for name, type_ in LINEAGE.items()),
    )

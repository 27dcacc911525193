"""Score: predictions of a model's champion for the released features of an interval."""

from __future__ import annotations

import datetime as dt
from functools import partial
from typing import TYPE_CHECKING, Any

from lakehouse import prediction_id, registry, roles, tables
from lakehouse.engine import spark, sql
from lakehouse.errors import LakeError
from lakehouse.release import NotReleasedError, released, withdraw
from lakehouse.scoring import LINEAGE, SCORE, score_batches
from lakehouse.steps import step

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.interval import Interval
    from lakehouse.model_spec import ModelSpec
    from lakehouse.release import Released
    from lakehouse.scoring import ServedModel

BATCH_ROWS = 50_000
COMMENTS = {
    "prediction_id": "Hash of model, entity key and day: the same whenever the entity is scored again.",
    SCORE: "Probability that the label is true, or the predicted number.",
    "decision": "Whether the score reaches the model version's threshold.",
    "model_name": "Model in the registry.",
    "model_version": "Version in the registry, resolved from the alias once per run.",
    "role": "What the version was when it scored.",
    "run_id": "Run in ops.runs that made the row.",
    "release_id": "Release in ops.releases that made the features visible.",
    "scored_at": "When the run began to score.",
}


class NothingToScoreError(LakeError):
    """The released features have no rows for an interval."""


def run(model: str, interval: Interval, expected: int | None = None) -> dict[str, Any]:
    """Score one interval with the champion, replacing what was scored for it before.

    Args:
        model: Name of a model folder.
        interval: Day or range of days of the features.
        expected: The version that the caller believes to be champion; any without it.

    Returns:
        ``rows`` written, ``version`` of the predictions table, ``model_version``, ``release_id``.

    Raises:
        lakehouse.roles.NoChampionError: No version of the model may score the first day of the interval, or it is not
            the expected one.
        lakehouse.release.NotReleasedError: The features have never been released.
        NothingToScoreError: They have no rows for the interval.
    """
    spec = registry.load(model)
    table, stored = spec.predictions_table, tables.next_table(spec.predictions_table)
    with step("score", table, interval, writes=stored) as this:
        champion = roles.champion(model, interval.start, expected)
        served = registry.fetch(champion)
        source = released().get(spec.features.table)
        if source is None:
            raise NotReleasedError(
                f"{spec.features.table} has no released version. Build, gate and release the warehouse first."
            )
        features, kept = select_features(spec, served, source, interval.sql(spec.features.interval_column))
        tables.create(
            stored,
            {"prediction_id": "string", **kept, SCORE: "double", **_decision_type(served), **LINEAGE},
            statistics=[spec.features.interval_column, "model_version"],
            comments=COMMENTS,
        )
        withdraw(table, this)

        this.rows_in = features.count()
        this.versions_in = {tables.next_table(source.table): source.version}
        this.details = {"model_version": champion.version, "release_id": source.release_id}
        if this.rows_in == 0:
            raise NothingToScoreError(
                f"{source.table} has no rows for {interval} in its released version {source.version}. Nothing was "
                "replaced; build and release the interval first."
            )
        spark().conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS))
        scored = predictions(features, served, spec, kept, facts=lineage(champion, this.run_id, source.release_id))
        version = tables.replace_interval(scored, stored, spec.features.interval_column, interval, this)
        this.rows_out, this.versions_out = tables.written_rows(stored), {stored: version}
        if this.rows_in != this.rows_out:
            raise RuntimeError(
                f"{table} {interval}: {this.rows_in} rows of features came in, but {this.rows_out} predictions were "
                "written. Nothing is released; this is a fault of the platform."
            )
        this.say(
            "%s %s: %d rows scored with version %d, on release %d of %s",
            table, interval, this.rows_out, champion.version, source.release_id, source.table,
        )  # fmt: skip
        return {
            "rows": this.rows_out,
            "version": version,
            "model_version": champion.version,
            "release_id": source.release_id,
        }


def select_features(
    spec: ModelSpec, served: ServedModel, source: Released, condition: str
) -> tuple[DataFrame, dict[str, str]]:
    """The rows to score: the columns that a prediction keeps, and the model's inputs.

    Args:
        spec: The model.
        served: The model version that scores.
        source: The released version of the features.
        condition: SQL that tells which rows.

    Returns:
        The rows, and name and type of the columns to keep.
    """
    columns = dict.fromkeys([*spec.features.kept, *served.inputs])
    features = sql(
        f"select {', '.join(columns)} from {tables.next_table(source.table)} version as of {source.version} "
        f"where {condition}"
    )
    types = {field.name: field.dataType.simpleString() for field in features.schema}
    return features, {name: types[name] for name in spec.features.kept}


def lineage(champion: registry.ModelVersion, run_id: str, release_id: int) -> dict[str, Any]:
    """What every row of a run says of where it comes from.

    Args:
        champion: The version that scores.
        run_id: The run in ``ops.runs``.
        release_id: The release of the features.
    """
    return {
        "model_name": champion.name,
        "model_version": champion.version,
        "role": registry.CHAMPION,
        "run_id": run_id,
        "release_id": release_id,
        "scored_at": dt.datetime.now(dt.UTC),
    }


def predictions(
    features: DataFrame, served: ServedModel, spec: ModelSpec, kept: dict[str, str], facts: dict[str, Any]
) -> DataFrame:
    """The predictions for rows of features.

    Args:
        features: The columns to keep and the model's inputs.
        served: The model version that scores.
        spec: The model.
        kept: Name and type of the columns that a prediction keeps of its input.
        facts: Values of the columns of ``LINEAGE``.
    """
    from pyspark.sql import functions as F

    scored = features.mapInArrow(
        partial(score_batches, model=served, kept=list(kept)),
        ", ".join(f"`{name}` {type_}" for name, type_ in {**kept, SCORE: "double"}.items()),
    )
    identity = prediction_id.column(served.name, spec.features.entity_key, spec.features.interval_column)
    return scored.select(
        identity.alias("prediction_id"),
        *kept,
        SCORE,
        *(
            (F.col(SCORE) >= F.lit(served.threshold)).cast(type_).alias(name)
            for name, type_ in _decision_type(served).items()
        ),
        *(F.lit(facts[name]).cast(type_).alias(name) for name, type_ in LINEAGE.items()),
    )


def _decision_type(served: ServedModel) -> dict[str, str]:
    return {} if served.threshold is None else {"decision": "boolean"}

"""What if: what a version would have predicted for days that it may not score, kept apart from the predictions."""

from __future__ import annotations

from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from lakehouse import tables
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.predictions import (
    NothingToScoreError,
    column_types,
    create_table,
    lineage,
    predictions,
    select,
    source_of,
)
from lakehouse.ml.scoring import ModelFailedError
from lakehouse.registry import registry, roles, serving
from lakehouse.registry.serving import Crew
from lakehouse.steps import step

HINDSIGHT = "hindsight"


def run(model: str, interval: Interval, version: int) -> dict[str, Any]:
    """Score an interval with any version, replacing what the same version was asked for it before.

    The rows go to a table of their own, which has no gate and is never released as predictions.

    Args:
        model: Name of a model folder.
        interval: Day or range of days of the features.
        version: Number in the registry.

    Returns:
        ``rows``, ``table``, ``model_version``, ``hindsight``: whether the version may have seen what came of a day;
        ``release_id``.

    Raises:
        lakehouse.registry.registry.UnknownVersionError: There is no such version.
        lakehouse.release_log.NotReleasedError: The features have never been released.
        lakehouse.ml.scoring.ModelFailedError: The version fails.
        lakehouse.ml.predictions.NothingToScoreError: The features have no rows for the interval.
    """
    spec = model_folders.load(model)
    stored, column = spec.what_if_table, spec.features.interval_column
    with step("what_if", stored, interval, writes=stored) as this:
        chosen = registry.version(model, version)
        source = source_of(spec)
        types = column_types(source)
        served = Crew(spec, set(types)).load(chosen)
        kept = {name: types[name] for name in spec.features.kept}
        features = select(spec, source, set(served.inputs), interval.sql(column))
        this.rows_in = features.count()
        this.versions_in = {tables.next_table(source.table): source.version}
        if this.rows_in == 0:
            raise NothingToScoreError(f"{source.table} has no rows for {interval} in its version {source.version}.")
        decided = served.threshold is not None
        create_table(spec, stored, kept, decided, {HINDSIGHT: "boolean"})
        facts = lineage(version, serving.WHAT_IF, model, this.run_id, source.release_id)
        first = roles.serves_from(spec, chosen)
        scored = predictions(features, served, spec, kept, facts, decided)
        marked = scored.withColumn(HINDSIGHT, F.col(column) < F.lit(first))
        try:
            written = tables.replace_interval(
                marked, stored, column, interval, this, within=f"model_version = {version}"
            )
        except PySparkException as error:
            if (blame := serving.blamed(error, model)) is None:
                raise
            raise ModelFailedError(f"{model} version {version} cannot score {interval}: {blame[1]}") from error
        this.rows_out, this.versions_out = tables.written_rows(stored), {stored: written}
        this.details = {"model_version": version, HINDSIGHT: interval.start < first, "release_id": source.release_id}
        return {"rows": this.rows_out, "table": stored, **this.details}

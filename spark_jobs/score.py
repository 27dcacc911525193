"""Score: predictions of a model's champion for the released features of an interval, and what its challenger says."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyspark.errors import PySparkException

from lakehouse import alerts, tables
from lakehouse.engine import spark
from lakehouse.errors import LakeError
from lakehouse.ml import model_folders, routing
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
from lakehouse.registry import pins, serving
from lakehouse.registry.serving import Crew, Failure, Part, Shift
from lakehouse.releases.unreleased import withdraw
from lakehouse.steps import step
from lakehouse.wording import counted

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from lakehouse.interval import Interval
    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.release_log import Released
    from lakehouse.steps import Run

BATCH_ROWS = 50_000


def run(model: str, interval: Interval, expected: int | None = None) -> dict[str, Any]:
    """Score one interval, each day with the version that was its champion, replacing what was scored for it before.

    A challenger scores the share of the entities that ``model.yaml`` gives it, and all of them into a table that
    readers do not see.

    Args:
        model: Name of a model folder.
        interval: Day or range of days of the features.
        expected: The version that the caller believes to be champion; any without it.

    Returns:
        ``rows`` written, ``version`` of the predictions table, ``model_version`` of the last day's champion,
        ``model_versions`` and ``roles`` that have scored, each with its rows, ``failures``, ``release_id``.

    Raises:
        lakehouse.registry.roles.NoChampionError: No version of the model may score a day of the interval, or it is not
            the expected one.
        lakehouse.release_log.NotReleasedError: The features have never been released.
        lakehouse.ml.scoring.ModelFailedError: A champion fails, and ``model.yaml`` names nothing in its place.
        lakehouse.ml.predictions.NothingToScoreError: The features have no rows for the interval.
    """
    spec = model_folders.load(model)
    table, stored = spec.predictions_table, tables.next_table(spec.predictions_table)
    column = spec.features.interval_column
    with step("score", table, interval, writes=stored) as this:
        shifts = serving.shifts(model, interval, expected)
        source = source_of(spec)
        types = column_types(source)
        crew = Crew(spec, set(types))
        parts = crew.parts(shifts)
        kept = {name: types[name] for name in spec.features.kept}
        features = select(spec, source, {name for part in parts for name in part.served.inputs}, interval.sql(column))
        withdraw(table, this)
        shadowed = [shift for shift in shifts if shift.challenger and spec.serving.shadow]
        with ExitStack() as stack:
            if shadowed or len(parts) > 1:
                features = _with_inputs_of_challengers(spec, crew, source, shadowed, features, interval)
                # Read once, for every version that scores.
                stack.callback(features.persist().unpersist)
            this.rows_in = features.count()
            this.versions_in = {tables.next_table(source.table): source.version}
            this.details = {"release_id": source.release_id, "made_with": pins.surroundings(spec)}
            if this.rows_in == 0:
                raise NothingToScoreError(
                    f"{source.table} has no rows for {interval} in its released version {source.version}. Nothing was "
                    "replaced; build and release the interval first."
                )
            spark().conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS))
            version = _write(spec, crew, shifts, features, kept, source, interval, this)
            this.rows_out, this.versions_out = tables.written_rows(stored), {stored: version}
            if this.rows_in != this.rows_out:
                raise RuntimeError(
                    f"{table} {interval}: {this.rows_in} rows of features came in, but {this.rows_out} predictions "
                    "were written. Nothing is released; this is a fault of the platform."
                )
            by_version, by_role = _counts(
                stored, version, [(column, ">=", interval.start), (column, "<=", interval.end)]
            )
            this.details |= {
                "model_version": shifts[-1].champion.version,
                "model_versions": by_version,
                "roles": by_role,
                "failures": [str(failure) for failure in crew.failures],
            }
            this.say(
                "%s %s: %s scored with version %s, on release %d of %s",
                table, interval, counted(this.rows_out, "row"), ", ".join(map(str, by_version)),
                source.release_id, source.table,
            )  # fmt: skip
            unseen = _shadow(spec, crew, shadowed, features, kept, source, interval) if shadowed else []
            _alert(spec, interval, crew.failures, unseen, this)
        told = {name: value for name, value in this.details.items() if name != "made_with"}
        return {"rows": this.rows_out, "version": version, **told}


def _with_inputs_of_challengers(
    spec: ModelSpec,
    crew: Crew,
    source: Released,
    shifts: list[Shift],
    features: DataFrame,
    interval: Interval,
) -> DataFrame:
    """The same rows with what challengers need, too; one that cannot be brought here fails later, on its own."""
    needed = set(features.columns)
    for shift in shifts:
        assert shift.challenger is not None
        try:
            needed |= set(crew.load(shift.challenger).inputs)
        except ModelFailedError:
            continue
    if needed == set(features.columns):
        return features
    return select(spec, source, needed, interval.sql(spec.features.interval_column))


def _write(
    spec: ModelSpec,
    crew: Crew,
    shifts: list[Shift],
    features: DataFrame,
    kept: dict[str, str],
    source: Released,
    interval: Interval,
    this: Run,
) -> int:
    """Write the predictions; a version that fails meanwhile is replaced, and all are written again."""
    stored = tables.next_table(spec.predictions_table)
    while True:
        parts = crew.parts(shifts)
        needed = {name for part in parts for name in part.served.inputs}
        if not needed <= set(features.columns):  # what has taken another's place sees other columns
            features = select(spec, source, needed, interval.sql(spec.features.interval_column))
        decided = any(part.served.threshold is not None for part in parts)
        create_table(spec, stored, kept, decided)
        frames = [
            predictions(
                _rows(features, part, spec), part.served, spec, kept,
                lineage(part.served.version, part.role, spec.name, this.run_id, source.release_id), decided,
            )
            for part in parts
        ]  # fmt: skip
        # What is to be there afterwards, for the gate.
        due = {"due": {"table": source.table, "version": source.version}}
        scored = reduce(lambda one, other: one.unionByName(other), frames)
        try:
            return tables.replace_interval(scored, stored, spec.features.interval_column, interval, this, due)
        except PySparkException as error:
            blame = serving.blamed(error, spec.name)
            if blame is None or not crew.dismiss(*blame):
                raise
            this.say("%s: version %d has failed: %s", spec.predictions_table, *blame)


def _counts(stored: str, version: int, condition: list[tuple[str, str, Any]]) -> tuple[dict[int, int], dict[str, int]]:
    """Some rows of a version of a table of predictions, counted by model version and by role."""
    log = tables.delta(stored, version)
    assert log is not None
    rows = tables.read(log, ["model_version", "role"], condition)
    versions, roles = (Counter(rows[name].to_pylist()) for name in rows.column_names)
    return dict(sorted(versions.items())), dict(sorted(roles.items()))


def _rows(features: DataFrame, part: Part, spec: ModelSpec) -> DataFrame:
    """The rows that a part is about."""
    rows = features.where(part.shift.days.sql(spec.features.interval_column))
    if part.drawn is None or spec.serving.route is None:
        return rows
    drawn = routing.to_challenger(*spec.serving.route, spec.name, spec.features.entity_key)
    return rows.where(drawn if part.drawn else ~drawn)


def _shadow(
    spec: ModelSpec,
    crew: Crew,
    shifts: list[Shift],
    features: DataFrame,
    kept: dict[str, str],
    source: Released,
    interval: Interval,
) -> list[str]:
    """Have challengers score the same rows, where readers do not look; what goes wrong stops nothing.

    Returns:
        What went wrong.
    """
    stored = spec.shadow_table
    try:
        with step("shadow", stored, interval, writes=stored) as this:
            this.versions_in = {tables.next_table(source.table): source.version}
            this.rows_in = this.rows_out = 0
            this.details = {"release_id": source.release_id, "model_versions": []}
            for shift in shifts:
                assert shift.challenger is not None
                served = crew.load(shift.challenger)
                facts = lineage(served.version, serving.SHADOW, spec.name, this.run_id, source.release_id)
                decided = served.threshold is not None
                create_table(spec, stored, kept, decided)
                rows = features.where(shift.days.sql(spec.features.interval_column))
                version = tables.replace_interval(
                    predictions(rows, served, spec, kept, facts, decided),
                    stored,
                    spec.features.interval_column,
                    shift.days,
                    this,
                    within=f"model_version = {served.version}",
                )
                this.rows_out += tables.written_rows(stored)
                this.versions_out = {stored: version}
                this.details["model_versions"].append(served.version)
            this.rows_in = this.rows_out
    except (LakeError, PySparkException) as error:
        blame = serving.blamed(error, spec.name)
        why = f"version {blame[0]}: {blame[1]}" if blame else str(error).strip().splitlines()[0]
        return [f"The challenger has not scored {interval} in the shadow: {why}"]
    return []


def _alert(spec: ModelSpec, interval: Interval, failures: list[Failure], unseen: list[str], this: Run) -> None:
    """Raise what has failed, and end what was raised before and has gone well now."""
    # Not `models.<name>`, about which monitoring judges the same days: each would end what the other has found.
    name = f"serving.{spec.name}"
    causes = [
        alerts.Cause(name, interval, serving.FALLBACK, "critical", "; ".join(map(str, failures)), run_id=this.run_id)
        for _ in failures[:1]
    ]
    causes += [
        alerts.Cause(name, interval, serving.SHADOW, "warning", message, run_id=this.run_id) for message in unseen
    ]
    alerts.report(causes, {(name, interval)})

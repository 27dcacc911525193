"""Monitor: measure what a model was given and what it said of an interval, and what came of it, if that is known."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from lakehouse import contracts, dbt_project, ops, tables
from lakehouse.engine import sql
from lakehouse.interval import Interval
from lakehouse.ml import model_folders
from lakehouse.ml.scoring import SCORE
from lakehouse.monitoring import histograms, measuring, performance, reports
from lakehouse.monitoring.drift import Bins
from lakehouse.monitoring.measuring import ALL, LOG, Measure, NothingToMonitorError
from lakehouse.monitoring.reference import ARTIFACT, Reference
from lakehouse.quality import freshness
from lakehouse.registry import model_versions, registry, roles
from lakehouse.registry.registry import CHAMPION
from lakehouse.release_log import history, released
from lakehouse.steps import step

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from lakehouse.ml.model_spec import ModelSpec
    from lakehouse.registry.registry import ModelVersion
    from lakehouse.release_log import Released


def run(model: str, interval: Interval) -> dict[str, Any]:
    """Measure an interval that was scored; what was measured of it before is replaced.

    What depends on outcomes is measured on those that are known by now: run it again when they have arrived. Of days
    that should have been scored and were not, that is told, and what can be said of their data.

    Args:
        model: Name of a model folder.
        interval: Days that were scored and released, or should have been.

    Returns:
        By role and version: how many measures, which are red, and how many outcomes are still due; and the report's
        ``page``, which MLflow keeps with the version's run, too.

    Raises:
        lakehouse.monitoring.measuring.NothingToMonitorError: No predictions of the interval are released, and none
            were due.
    """
    spec = model_folders.load(model)
    if spec.predictions_table not in released() and not roles.succession(roles.events(spec.name), interval.end):
        raise _none_due(spec, interval)  # which is no step that has failed
    with step("monitor", spec.name, interval, writes=LOG) as this:
        state = released()
        needed = {name: state.get(name) for name in (spec.features.table, spec.label.table)}
        if missing := [name for name, each in needed.items() if each is None]:
            raise NothingToMonitorError(f"{', '.join(missing)}: nothing is released. Score, gate and release first.")
        scored = state.get(spec.predictions_table)
        needed |= {spec.predictions_table: scored} if scored else {}
        views = {name: _pinned(each) for name, each in needed.items() if each is not None}
        this.versions_in = {tables.next_table(n): each.version for n, each in needed.items() if each is not None}
        types = tables.types(tables.next_table(spec.features.table), state[spec.features.table].version)
        coverage = _coverage(spec, interval, views)
        days = {"model_name": spec.name, "interval_start": interval.start, "interval_end": interval.end}
        who = _scorers(spec, interval, views)
        found: list[tuple[ModelVersion, str, list[Measure]]] = []
        for row in who:
            version = model_versions.find_or_unknown(spec.name, row["model_version"])
            of_version = measure(spec, version, row["role"], interval, views, types, row["release_id"])
            found.append((version, row["role"], [coverage, *of_version]))
        if not found:
            version = _due(spec, interval, coverage)
            release_id = state[spec.features.table].release_id
            measures = [coverage, *_of_inputs(spec, reference_of(version), interval, views, types, release_id, None)]
            found.append((version, CHAMPION, measures))
        this.rows_in = sum(row["rows"] for row in who)
        outcome: dict[str, Any] = {}
        rows = []
        for version, role, measures in found:
            facts = {"model_version": version.version, "role": role, "run_id": this.run_id}
            now = {"measured_at": dt.datetime.now(dt.UTC)}
            rows += [{**days, **facts, **now, **vars(each)} for each in measures]
            red = [f"{each.metric} {each.segment}" for each in measures if each.verdict == "red"]
            due = next((each.value for each in measures if each.metric == "labels_due"), 0)
            outcome[f"{role} {version.version}"] = {"measures": len(measures), "red": red, "labels_due": due}
            this.say("%s version %d %s: %d measures, red: %s", spec.name, version.version, interval, len(measures),
                     ", ".join(red) or "none")  # fmt: skip
        this.check_lock()
        # All of the days at once: who was due, or has scored them before, may be another.
        this.versions_out = {LOG: ops.replace(LOG, rows, days)}
        this.rows_out = len(rows)
        page = reports.write(spec.name, interval)
        for version, _, _ in found:
            registry.keep_text(version, f"monitoring/{page.name}", page.read_text())
        this.details = outcome | {"page": str(page)}
        return this.details


def measure(
    spec: ModelSpec,
    version: ModelVersion,
    role: str,
    interval: Interval,
    views: dict[str, str],
    types: dict[str, str],
    release_id: int,
) -> list[Measure]:
    """Everything that is told of a version and an interval.

    Args:
        spec: The model.
        version: One of those that scored the interval.
        role: What it was then.
        interval: The days.
        views: Tables, by the names that readers use, to what is read of them in a query.
        types: Columns of the features table to their types.
        release_id: The release of the features that it has scored.
    """
    reference = reference_of(version)
    scored = _scored(spec, version, role, _window(spec, interval), views)
    score, outcomes = _of_outcomes(spec, version, reference, interval, scored, views)
    return [
        *_of_inputs(spec, reference, interval, views, types, release_id, score),
        *measuring.of_scoring(_scorings(spec, interval)),
        *outcomes,
    ]


def _window(spec: ModelSpec, interval: Interval) -> Interval:
    """The days that drift and performance are measured on."""
    days = dt.timedelta(days=spec.monitoring.window_days - 1)
    return Interval(min(interval.start, interval.end - days), interval.end)


def _of_inputs(
    spec: ModelSpec,
    reference: Reference,
    interval: Interval,
    views: dict[str, str],
    types: dict[str, str],
    release_id: int,
    score: Bins | None,
) -> list[Measure]:
    """What is told of the data that a version was given, or would have been: its state, and how far it has drifted."""
    rules, day = spec.monitoring, spec.features.interval_column
    window = _window(spec, interval)
    features = sql(f"select * from {views[spec.features.table]}")
    # A column that is gone is told of as such, and cannot be counted.
    bins = {name: each for name, each in reference.features.items() if name in types}
    # Of the interval itself only what is missing is asked.
    within = interval.sql(day)
    missing = [f"count_if({within} and {histograms.no_value(name, each)})" for name, each in bins.items()]
    also = (f"max({day})", f"count_if({within})", *missing)
    of_window, (newest, rows, *nulls) = histograms.count(features.where(window.sql(day)), bins, also)
    of_interval = {
        name: Bins(each.kind, counts=(rows - without,), nulls=without)
        for (name, each), without in zip(bins.items(), nulls, strict=True)
    }
    since = Interval(min(reference.window.end, interval.end), interval.end)
    if newest is None or newest < since.start:
        newest = features.where(since.sql(day)).agg({day: "max"}).collect()[0][0] or reference.window.end
    made_from = dbt_project.upstream([spec.features.table])
    late = freshness.stale_days(made_from, contracts.readable(), history(), interval.end, release_id)
    stale = max([(interval.end - newest).days, *late.values()])
    known = {name: each for name, each in reference.features.items() if name in bins}
    drifting = Reference(**vars(reference) | {"features": known})
    return [
        *measuring.of_data(reference, types, of_interval, stale, len(list(interval.days())), rules),
        *measuring.of_drift(drifting, of_window, score, rules, spec.retrain and spec.retrain.drift_share),
    ]


def reference_of(version: ModelVersion) -> Reference:
    """The counts of a version's training snapshot.

    Args:
        version: Which.

    Raises:
        lakehouse.monitoring.measuring.NothingToMonitorError: None were kept when it was trained.
    """
    text = registry.kept_text(version, ARTIFACT)
    if text is None:
        raise NothingToMonitorError(
            f"{version.name} version {version.version} has no {ARTIFACT} in its MLflow run {version.run_id}, "
            f"so there is nothing to compare with. Train it again: lake train {version.name}."
        )
    return Reference.from_json(text)


def _scorers(spec: ModelSpec, interval: Interval, views: dict[str, str]) -> list[Any]:
    """Versions and roles that have scored an interval: their rows, and the newest release of features behind them."""
    if spec.predictions_table not in views:
        return []
    return sql(
        "select model_version, role, count(*) as rows, max(release_id) as release_id "
        f"from {views[spec.predictions_table]} "
        f"where {interval.sql(spec.features.interval_column)} "
        "group by model_version, role order by model_version, role"
    ).collect()


def _coverage(spec: ModelSpec, interval: Interval, views: dict[str, str]) -> Measure:
    """How many rows of the features have no prediction."""
    keys = ", ".join(dict.fromkeys([*spec.features.entity_key, spec.features.interval_column]))
    within = interval.sql(spec.features.interval_column)
    due = f"select {keys} from {views[spec.features.table]} where {within}"
    missing = due
    if spec.predictions_table in views:
        missing += f" except select {keys} from {views[spec.predictions_table]} where {within}"
    rows, without = sql(f"select (select count(*) from ({due})), (select count(*) from ({missing}))").collect()[0]
    return measuring.of_coverage(rows, without)


def _due(spec: ModelSpec, interval: Interval, coverage: Measure) -> ModelVersion:
    """The version that should have scored an interval that nobody has scored, if there was something to score."""
    line = roles.succession(roles.events(spec.name), interval.end)
    if not (line and coverage.value):
        raise _none_due(spec, interval)
    return model_versions.find_or_unknown(spec.name, line[-1])


def _none_due(spec: ModelSpec, interval: Interval) -> NothingToMonitorError:
    return NothingToMonitorError(
        f"{spec.predictions_table} has no predictions for {interval}, and none were due. To make some: "
        f"lake score {spec.name} --interval {interval}, then gate and release them."
    )


def _pinned(table: Released) -> str:
    return f"{tables.next_table(table.table)} version as of {table.version}"


def _scored(spec: ModelSpec, version: ModelVersion, role: str, window: Interval, views: dict[str, str]) -> DataFrame:
    """The predictions of a version in a window, with ``outcome`` where it is known."""
    key = list(dict.fromkeys([*spec.features.entity_key, spec.features.interval_column]))
    equal = " and ".join(f"p.{name} = l.{name}" for name in key)
    within = window.sql(spec.features.interval_column)
    reported = f"coalesce(l.{spec.label.reported}, false)" if spec.label.reported else "false"
    return sql(
        f"select p.*, cast(l.{spec.label.column} as double) as outcome, {reported} as reported from (select * from "
        f"{views[spec.predictions_table]} where {within} and model_version = {version.version} and role = '{role}') p "
        f"left join (select * from {views[spec.label.table]} where {within}) l on {equal}"
    )


def _of_outcomes(
    spec: ModelSpec,
    version: ModelVersion,
    reference: Reference,
    interval: Interval,
    scored: DataFrame,
    views: dict[str, str],
) -> tuple[Bins, list[Measure]]:
    """The scores, counted; and what is told of a version by its outcomes, as far as they are known."""
    day, label, plan = spec.features.interval_column, views[spec.label.table], spec.retrain
    newest, new = sql(
        f"select max({day}), count_if({day} <= date'{interval.end}') from {label} "
        f"where {spec.label.column} is not null and {day} > date'{reference.window.end}'"
    ).collect()[0]
    # Where the label does not say that nothing is to come, a day is given up once a later one has outcomes.
    open_ = "not reported" if spec.label.reported else f"{day} >= date'{newest or dt.date.min}'"
    within = interval.sql(day)
    of_window, (known, due, of_interval) = histograms.count(
        scored,
        {SCORE: reference.score},
        also=(
            f"count_if({within} and outcome is not null)",
            f"count_if({within} and outcome is null and {open_})",
            f"count_if({within})",
        ),
    )
    measures = [
        Measure("labels_known", ALL, known, of_interval),
        Measure("labels_due", ALL, due, of_interval),
        Measure("new_rows", ALL, new, plan and plan.new_rows),
        Measure("age_days", ALL, (interval.end - reference.window.end).days, plan and plan.max_age_days),
    ]
    found, rows = {}, {}
    groups = _groups(spec, reference, scored)
    for segment, part in groups.groupby("segment", sort=False):
        found[str(segment)] = performance.figures(part.drop(columns="segment"), spec)
        rows[str(segment)] = int(part["rows"].sum())
    ordered = {name: found[name] for name in sorted(found, key=lambda name: (name != ALL, name))}
    optimize = spec.metrics.optimize
    logged = registry.logged(version).metrics
    tested = {name.removeprefix("test_"): value for name, value in logged.items() if name.startswith("test_")}
    tested |= {"baseline": tested[f"{optimize}_baseline"], "mean_score": reference.mean_score,
               "mean_outcome": reference.mean_outcome}  # fmt: skip
    measures += measuring.of_performance(ordered, rows, tested, spec.monitoring, optimize)
    return of_window[SCORE], measures


def _groups(spec: ModelSpec, reference: Reference, scored: DataFrame) -> pd.DataFrame:
    """Sums by segment, bin of the score, decision and outcome, on the engine; of the greatest segments alone."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    named = [F.lit(ALL)] + [F.concat(F.lit(f"{c}="), F.col(c).cast("string")) for c in spec.monitoring.segments]
    sums = performance.sums(spec, reference.mean_outcome)
    decision = "decision" if spec.decision_threshold is not None else "false"
    groups = (
        scored.where("outcome is not null")
        .withColumn("bin", F.expr(performance.bin_of(reference.score_edges)))
        .withColumn("decision", F.expr(decision))
        .withColumn("positive", F.expr("outcome > 0"))
        .withColumn("segment", F.explode(F.array(*named)))
        .groupBy("segment", "bin", "decision", "positive")
        .agg(*[F.expr(expression).alias(name) for name, expression in sums.items()])
        .where("segment is not null")
    )
    # Chosen where the rows are: a column of many values costs no more than one of few.
    greatest = Window.partitionBy(F.lit(ALL)).orderBy(F.col("segment") != ALL, F.desc("size"), "segment")
    found: pd.DataFrame = (
        groups.withColumn("size", F.sum("rows").over(Window.partitionBy("segment")))
        .where(f"segment = '{ALL}' or size >= {spec.monitoring.segment_rows}")
        .withColumn("place", F.dense_rank().over(greatest))
        .where(f"place <= {1 + measuring.SEGMENTS}")
        .drop("size", "place")
        .toPandas()
    )
    return found


def _scorings(spec: ModelSpec, interval: Interval) -> list[dict[str, Any]]:
    """The scorings of an interval, or of a part of it, oldest first."""
    field = pc.field
    mine = (field("step") == "score") & (field("dataset") == spec.predictions_table)
    of_days = (field("interval_end") >= interval.start) & (field("interval_start") <= interval.end)
    columns = ["started_at", "status", "seconds", "rows_in", "rows_out"]
    found: list[dict[str, Any]] = ops.read("ops.runs", columns, where=mine & of_days).sort_by("started_at").to_pylist()
    return found

"""Monitoring: what is told of a model in use, as rows of ``ops.model_metrics`` with a verdict where there is a limit.

Pure functions; :mod:`spark_jobs.monitor` counts and adds up on the engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lakehouse.errors import LakeError
from lakehouse.monitoring.drift import GREEN, RED, YELLOW, Bins, Drift, compare

if TYPE_CHECKING:
    from lakehouse.ml.model_spec import Monitoring
    from lakehouse.monitoring.reference import Reference

LOG = "ops.model_metrics"
ALL = "all"
SCORE = "score"
SEGMENTS = 50
"""So many segments of a model are measured at most: those with most outcomes."""
DEFECTS = ("rows", "stale_days", "changed_columns", "null_share")
"""Metrics that are red when the data is broken, and not when the world has changed."""
STAY = ("rows", "changed_columns", "null_share")
"""Those that say of the days themselves that they are broken: what was late when it was scored has come since."""


class NothingToMonitorError(LakeError):
    """A model has no released predictions for an interval."""


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes:
        metric: What was measured.
        segment: ``all``, ``feature=NAME``, or ``COLUMN=VALUE``.
        value: The figure.
        reference: What it is compared with: the training snapshot's figure, or a limit.
        verdict: ``green``, ``yellow`` or ``red``; None where nothing is judged.
    """

    metric: str
    segment: str
    value: float | None
    reference: float | None = None
    verdict: str | None = None


def of_drift(
    reference: Reference,
    features: Mapping[str, Bins],
    score: Bins | None,
    rules: Monitoring,
    drift_share: float | None,
) -> list[Measure]:
    """What has drifted: each feature, how many of them, and the predictions.

    Args:
        reference: The training snapshot.
        features: Input column to its counts in the window.
        score: Counts of the scores in the window; None where nothing was scored.
        rules: The model's ``monitoring``.
        drift_share: The share of the features that is a cause to retrain.
    """
    limits = {"warning": rules.psi_warning, "limit": rules.psi, "significance": rules.significance}
    found = compare(reference.features, features, **limits)
    measures = [each for name, drift in found.items() for each in _of_column(f"feature={name}", drift, rules)]
    drifted = sum(drift.verdict == RED for drift in found.values()) / max(len(found), 1)
    verdict = None if drift_share is None else RED if drifted >= drift_share else GREEN
    measures.append(Measure("drifted_share", ALL, drifted, drift_share, verdict))
    if score is None:
        return measures
    [of_score] = compare({SCORE: reference.score}, {SCORE: score}, **limits).values()
    return [*measures, *_of_column(SCORE, of_score, rules)]


def of_data(
    reference: Reference,
    types: Mapping[str, str],
    features: Mapping[str, Bins],
    stale: int,
    days: int,
    rules: Monitoring,
) -> Iterator[Measure]:
    """Whether the data is broken: fewer rows than usual, columns that changed, values that are missing, or old.

    Args:
        reference: The training snapshot.
        types: Column to its type, of the features table as it is.
        features: Input column to its counts in the interval.
        stale: Days that were missing at the end of the features, or of a source behind them, when it was scored.
        days: Days of the interval.
        rules: The model's ``monitoring``.
    """
    rows = next(iter(features.values())).rows if features else 0
    reference_days = (reference.window.end - reference.window.start).days + 1
    usual = reference.rows / reference_days * days
    yield Measure("rows", ALL, rows, usual, RED if rows < (1 - rules.volume_drop) * usual else GREEN)
    yield Measure("stale_days", ALL, stale, rules.stale_days, RED if stale > rules.stale_days else GREEN)
    changed = sum(types.get(name) != type_ for name, type_ in reference.types.items())
    yield Measure("changed_columns", ALL, changed, 0, RED if changed else GREEN)
    for name, bins in reference.features.items():
        if name in features:
            share, before = features[name].null_share, bins.null_share
            verdict = RED if share - before > rules.null_share else GREEN
            yield Measure("null_share", f"feature={name}", share, before, verdict)


def of_performance(
    found: Mapping[str, Mapping[str, float]],
    rows: Mapping[str, int],
    tested: Mapping[str, float],
    rules: Monitoring,
    optimize: str,
) -> Iterator[Measure]:
    """What the scores were worth.

    Args:
        found: Segment to its figures, ``all`` first.
        rows: Segment to its rows with an outcome.
        tested: The version's figures on its test days: the metrics, and ``baseline``.
        rules: The model's ``monitoring``.
        optimize: The metric that decides.
    """
    before = 1 - tested[optimize] / tested["baseline"] if tested.get("baseline") and optimize in tested else None
    for segment, figures in found.items():
        yield Measure("labelled_rows", segment, rows[segment])
        for name, value in figures.items():
            if name == "skill":
                yield Measure(name, segment, value, before, _of_skill(value, before, segment, rules))
            else:
                yield Measure(name, segment, value, tested.get(name) if segment == ALL else None)


def of_coverage(due: int, missing: int) -> Measure:
    """Whether everything that was due has a prediction.

    Args:
        due: Rows of the features in the interval.
        missing: Those without a prediction.
    """
    return Measure("unscored_rows", ALL, missing, due, RED if missing else GREEN)


def of_scoring(runs: Sequence[Mapping[str, Any]]) -> Iterator[Measure]:
    """What scoring has taken.

    Args:
        runs: Rows of ``ops.runs`` of the scorings of the interval, oldest first.
    """
    failed = sum(run["status"] != "success" for run in runs)
    yield Measure("scoring_errors", ALL, failed, 0, YELLOW if failed else GREEN)
    done = [run for run in runs if run["status"] == "success"]
    if done:
        yield Measure("scoring_seconds", ALL, done[-1]["seconds"])
        yield Measure("scored_rows", ALL, done[-1]["rows_out"], done[-1]["rows_in"])


def _of_column(segment: str, drift: Drift, rules: Monitoring) -> Iterator[Measure]:
    yield Measure("psi", segment, drift.psi, rules.psi, drift.verdict)
    yield Measure(drift.test, segment, drift.statistic)
    yield Measure("q_value", segment, drift.q_value, rules.significance)


def _of_skill(value: float, before: float | None, segment: str, rules: Monitoring) -> str:
    if segment != ALL:
        # A part of the rows has a level of its own: worse than the constant is worth a look, and no more.
        return YELLOW if value < 0 else GREEN
    if before is not None and value < before - rules.skill_drop:
        return RED
    return YELLOW if value < 0 else GREEN

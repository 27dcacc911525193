"""Training: days are split by time, candidates selected on folds, and all of them measured on untouched days.

Everything here is a function of its arguments; reading the tables and talking to the registry is done elsewhere.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import brier_score_loss, log_loss, precision_score, recall_score, roc_auc_score
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.scoring import ServedModel, model_input, score

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from lakehouse.registry import ModelSpec, Training

LABEL = "label"
CALIBRATION_BINS = 10


class NotEnoughDataError(LakeError, ValueError):
    """The window is too short, or has too few labelled rows, to train, select and measure."""


@dataclass(frozen=True)
class Split:
    """A training window cut by time.

    Attributes:
        train: What the shipped model is fitted on, after selection.
        test: The untouched days after it.
        folds: Pairs of fitted and validated days within ``train``, oldest first.
    """

    train: Interval
    test: Interval
    folds: tuple[tuple[Interval, Interval], ...]


@dataclass(frozen=True)
class Figures:
    """How good a candidate is.

    Attributes:
        validation_log_loss: Mean over the folds.
        log_loss: On the test days, like all that follows.
        auc: Area under the ROC curve.
        brier: Brier score.
        calibration_error: Mean distance of score and outcome over bins of the score, weighted by rows.
        precision: Of the decision.
        recall: Of the decision.
        calibration: Per bin of the score (deciles): rows, mean score, share of positives.
    """

    validation_log_loss: float
    log_loss: float
    auc: float
    brier: float
    calibration_error: float
    precision: float
    recall: float
    calibration: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Trained:
    """A finished training: the selected pipeline, fitted, and the figures of all candidates.

    Attributes:
        selected: Name of the candidate with the lowest log loss on the folds, the baseline aside.
        baseline: Name of the baseline.
        pipeline: The selected candidate, fitted on the train days. The figures are of this very fit.
        candidates: Figures by candidate.
        split: How the window was cut.
        rows: Number of rows: ``train``, ``test``, ``unlabelled``.
        positive_rate: Share of positives in the train days.
        test: Labelled rows of the test days, with every column of the features table.
        predictions_sha256: Hash of the selected candidate's scores on the test days.
        example: A few rows of input.
    """

    selected: str
    baseline: str
    pipeline: Pipeline
    candidates: dict[str, Figures]
    split: Split
    rows: dict[str, int]
    positive_rate: float
    test: pd.DataFrame
    predictions_sha256: str
    example: pd.DataFrame

    @property
    def test_log_loss(self) -> float:
        """Log loss of the selected candidate on the test days."""
        return self.candidates[self.selected].log_loss

    @property
    def baseline_test_log_loss(self) -> float:
        """Log loss of the baseline on the test days."""
        return self.candidates[self.baseline].log_loss

    def test_log_loss_of(self, model: ServedModel) -> float:
        """Log loss of another model on the same test days.

        Args:
            model: Which.
        """
        return float(log_loss(self.test[LABEL], score(self.test, model)))

    def headline(self) -> dict[str, float]:
        """The figures that a version is known by."""
        figures = self.candidates[self.selected]
        return {
            "test_log_loss": figures.log_loss,
            "test_log_loss_baseline": self.baseline_test_log_loss,
            "test_auc": figures.auc,
            "test_brier": figures.brier,
            "test_calibration_error": figures.calibration_error,
        }

    def metrics(self) -> dict[str, float]:
        """Every figure of every candidate, by a flat name."""
        flat = dict(self.headline())
        for name, figures in self.candidates.items():
            flat |= {
                f"{name}/validation_log_loss": figures.validation_log_loss,
                f"{name}/test_log_loss": figures.log_loss,
                f"{name}/test_auc": figures.auc,
                f"{name}/test_brier": figures.brier,
                f"{name}/test_calibration_error": figures.calibration_error,
                f"{name}/test_precision": figures.precision,
                f"{name}/test_recall": figures.recall,
            }
        return flat

    def hyperparameters(self) -> dict[str, Any]:
        """Parameters of the selected candidate's final step."""
        return dict(self.pipeline[-1].get_params(deep=False))

    def figures(self) -> dict[str, Any]:
        """Everything measured, ready for JSON."""
        return {
            "selected": self.selected,
            "baseline": self.baseline,
            "train_days": str(self.split.train),
            "test_days": str(self.split.test),
            "folds": [{"fitted": str(fitted), "validated": str(validated)} for fitted, validated in self.split.folds],
            "rows": self.rows,
            "positive_rate": self.positive_rate,
            "candidates": {name: vars(figures) for name, figures in self.candidates.items()},
        }


def default_window(plan: Training, last_labelled: dt.date) -> Interval:
    """The window that ends on the last day with labels.

    Args:
        plan: The model's training section.
        last_labelled: That day.
    """
    return Interval(last_labelled - dt.timedelta(days=plan.window_days - 1), last_labelled)


def split(window: Interval, plan: Training) -> Split:
    """Cut a window by time: train days, then the untouched test days; folds at the end of the train days.

    Args:
        window: All days.
        plan: The model's training section.

    Raises:
        NotEnoughDataError: The window does not hold test days, folds and one more fold's days to fit.
    """
    needed = plan.test_days + (plan.folds + 1) * plan.fold_days
    days = (window.end - window.start).days + 1
    if days < needed:
        raise NotEnoughDataError(
            f"The training window {window} has {days} days; {plan.folds} folds of {plan.fold_days} days, as many "
            f"days to fit the first on, and {plan.test_days} test days need {needed}."
        )
    train = Interval(window.start, window.end - dt.timedelta(days=plan.test_days))
    folds = []
    for number in reversed(range(plan.folds)):
        end = train.end - dt.timedelta(days=number * plan.fold_days)
        start = end - dt.timedelta(days=plan.fold_days - 1)
        folds.append((Interval(window.start, start - dt.timedelta(days=1)), Interval(start, end)))
    return Split(train, Interval(train.end + dt.timedelta(days=1), window.end), tuple(folds))


def training_frame(features: pd.DataFrame, labels: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """Join the outcomes to the features, in an order that does not depend on how they are stored.

    Args:
        features: Rows of the features table.
        labels: Rows of the label table.
        spec: The model.

    Returns:
        The features with a column ``label``: true, false, or null where the outcome is not known.
    """
    key = list(dict.fromkeys([*spec.features.entity_key, spec.features.interval_column]))
    outcomes = labels[[*key, spec.label.column]].rename(columns={spec.label.column: LABEL})
    return (
        features.merge(outcomes, on=key, how="left", validate="one_to_one")
        .sort_values([spec.features.interval_column, *spec.features.entity_key], kind="stable")
        .reset_index(drop=True)
    )


def content_sha256(frame: pd.DataFrame) -> str:
    """A hash of the rows to train on: names and values of the columns, in their order.

    Args:
        frame: Outcome of :func:`training_frame`.
    """
    digest = hashlib.sha256("|".join(frame.columns).encode())
    for name in frame.columns:
        digest.update(pd.util.hash_pandas_object(frame[name], index=False).to_numpy().tobytes())
    return digest.hexdigest()


# The same sums in the same order whatever the number of cores; and threads that wait for each other on a busy
# machine take many times longer than one.
@threadpool_limits.wrap(limits=1)
def train(frame: pd.DataFrame, candidates: dict[str, Pipeline], spec: ModelSpec, window: Interval) -> Trained:
    """Select by log loss on time-ordered folds, fit on the train days, measure every candidate on the test days.

    Args:
        frame: Outcome of :func:`training_frame`.
        candidates: Unfitted pipelines; the first is the baseline, which is measured but never selected.
        spec: The model.
        window: The days to train, select and measure on.

    Raises:
        NotEnoughDataError: Some part of the window lacks labelled rows of both outcomes.
    """
    plan = split(window, spec.training)
    inside = frame[_within(frame, window, spec)]
    known = inside[inside[LABEL].notna()].copy()
    known[LABEL] = known[LABEL].astype("int8")
    parts = {str(part): known[_within(known, part, spec)] for part in _parts(plan)}
    for name, part in parts.items():
        if part[LABEL].nunique() < 2:
            raise NotEnoughDataError(
                f"{spec.name}: {len(part)} labelled rows of {spec.features.table} in {name}, and not of both outcomes. "
                f"Are {spec.features.table} and {spec.label.table} built and released for those days?"
            )

    validation = dict.fromkeys(candidates, 0.0)
    for fitted, validated in plan.folds:
        for name, candidate in candidates.items():
            fold = _fit(candidate, parts[str(fitted)], spec)
            scores = _score(fold, parts[str(validated)], spec)
            validation[name] += float(log_loss(parts[str(validated)][LABEL], scores)) / len(plan.folds)
    baseline, *contenders = candidates
    selected = min(contenders, key=lambda name: validation[name])

    train_part, test_part = parts[str(plan.train)], parts[str(plan.test)]
    pipelines = {name: _fit(candidate, train_part, spec) for name, candidate in candidates.items()}
    scores = {name: _score(pipeline, test_part, spec) for name, pipeline in pipelines.items()}
    return Trained(
        selected=selected,
        baseline=baseline,
        pipeline=pipelines[selected],
        candidates={
            name: measure(test_part[LABEL].to_numpy(), scores[name], spec.decision_threshold, validation[name])
            for name in candidates
        },
        split=plan,
        rows={"train": len(train_part), "test": len(test_part), "unlabelled": len(inside) - len(known)},
        positive_rate=float(train_part[LABEL].mean()),
        test=test_part,
        predictions_sha256=hashlib.sha256(scores[selected].tobytes()).hexdigest(),
        example=_inputs(train_part.head(3), spec),
    )


def measure(outcomes: Any, scores: Any, threshold: float, validation_log_loss: float) -> Figures:
    """Figures of one candidate.

    Args:
        outcomes: 0 or 1 per row.
        scores: Probability of 1 per row.
        threshold: From this score on the decision is 1.
        validation_log_loss: Mean log loss on the folds.
    """
    bins = calibration(outcomes, scores)
    error = sum(rows * abs(mean - share) for rows, mean, share in bins) / len(scores)
    decisions = scores >= threshold
    return Figures(
        validation_log_loss=validation_log_loss,
        log_loss=float(log_loss(outcomes, scores)),
        auc=float(roc_auc_score(outcomes, scores)),
        brier=float(brier_score_loss(outcomes, scores)),
        calibration_error=error,
        precision=float(precision_score(outcomes, decisions, zero_division=0)),
        recall=float(recall_score(outcomes, decisions)),
        calibration=bins,
    )


def calibration(outcomes: Any, scores: Any) -> tuple[tuple[int, float, float], ...]:
    """Rows, mean score and share of positives per decile of the score; equal scores share a bin.

    Args:
        outcomes: 0 or 1 per row.
        scores: Probability of 1 per row.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, scores, side="right")
    return tuple(
        (int(inside.sum()), float(scores[inside].mean()), float(outcomes[inside].mean()))
        for inside in (place == number for number in range(len(edges) + 1))
        if inside.any()
    )


def card(spec: ModelSpec, trained: Trained, pins: dict[str, str]) -> str:
    """The generated part of the model card: figures and pins, as Markdown.

    Args:
        spec: The model.
        trained: Its training.
        pins: What it was made from.
    """
    plan = trained.split
    lines = [
        f"# {spec.name}",
        "",
        spec.description,
        "",
        f"Selected: **{trained.selected}**, by mean log loss over {len(plan.folds)} time-ordered folds. "
        f"Fitted on {plan.train} ({trained.rows['train']} rows, {trained.positive_rate:.1%} positive), measured on the "
        f"untouched days {plan.test} ({trained.rows['test']} rows).",
        "",
        "| candidate | validation log loss | test log loss | AUC | Brier | calibration error | precision | recall |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {f.validation_log_loss:.4f} | {f.log_loss:.4f} | {f.auc:.3f} | {f.brier:.4f} "
            f"| {f.calibration_error:.3f} | {f.precision:.3f} | {f.recall:.3f} |"
            for name, f in trained.candidates.items()
        ),
        "",
        f"Precision and recall are of the decision at a score of {spec.decision_threshold}.",
        "",
        f"Calibration of {trained.selected} on the test days:",
        "",
        "| rows | mean score | share of positives |",
        "|---|---|---|",
        *(
            f"| {rows} | {mean:.3f} | {share:.3f} |"
            for rows, mean, share in trained.candidates[trained.selected].calibration
        ),
        "",
        "| pinned | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in pins.items()),
        "",
    ]
    return "\n".join(lines)


def _parts(plan: Split) -> Iterator[Interval]:
    yield plan.train
    yield plan.test
    for fold in plan.folds:
        yield from fold


def _within(frame: pd.DataFrame, interval: Interval, spec: ModelSpec) -> pd.Series:
    days = pd.to_datetime(frame[spec.features.interval_column])
    return days.between(pd.Timestamp(interval.start), pd.Timestamp(interval.end))


def _inputs(frame: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    return model_input(frame, spec.features.numeric, spec.features.categorical)


def _fit(candidate: Pipeline, part: pd.DataFrame, spec: ModelSpec) -> Pipeline:
    return clone(candidate).fit(_inputs(part, spec), part[LABEL].to_numpy())


def _score(fitted: Pipeline, part: pd.DataFrame, spec: ModelSpec) -> Any:
    return fitted.predict_proba(_inputs(part, spec))[:, 1]

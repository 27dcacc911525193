"""Training: days are split by time, candidates selected on folds, and all of them measured on untouched days.

Everything here is a function of its arguments; reading the tables and talking to the registry is done elsewhere.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lakehouse import compilation
from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.metrics import calibration_bins, interval_of_mean, metric
from lakehouse.scoring import model_input, predict

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from lakehouse.model_spec import ModelSpec, Training

LABEL = "label"


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
        validation: Mean over the folds of the metric that decides.
        test: Metric to its value on the test days; the one that decides comes first.
        low: Lower end of the 95 % interval of the one that decides, by days.
        high: Upper end.
        segments: ``column=value`` to the rows there and the metric that decides.
        calibration: Per bin of the score (deciles): rows, mean score, mean outcome.
    """

    validation: float
    test: dict[str, float]
    low: float
    high: float
    segments: dict[str, tuple[int, float]]
    calibration: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Trained:
    """A finished training: the selected pipeline, fitted, and the figures of all candidates.

    Attributes:
        selected: Name of the candidate that is best on the folds, the baseline aside.
        baseline: Name of the baseline.
        optimize: The metric that decides.
        pipeline: The selected candidate, fitted on the train days. The figures are of this very fit.
        baseline_pipeline: The baseline, fitted on the same days.
        candidates: Figures by candidate.
        split: How the window was cut.
        rows: Number of rows: ``train``, ``test``, ``unlabelled``.
        mean_outcome: Mean label of the train days; of a classification, the share of positives.
        test: Labelled rows of the test days, with every column of the features table.
        predictions_sha256: Hash of the selected candidate's scores on the test days.
        example: A few rows of input.
        compiled: A form of the pipeline that scores faster and was proven equal; empty where there is none.
        compiled_reason: On what it was proven, or why there is none.
    """

    selected: str
    baseline: str
    optimize: str
    pipeline: Pipeline
    baseline_pipeline: Pipeline
    candidates: dict[str, Figures]
    split: Split
    rows: dict[str, int]
    mean_outcome: float
    test: pd.DataFrame
    predictions_sha256: str
    example: pd.DataFrame
    compiled: bytes
    compiled_reason: str

    def headline(self) -> dict[str, float]:
        """The figures that a version is known by."""
        figures = self.candidates[self.selected]
        return {
            **{f"test_{name}": value for name, value in figures.test.items()},
            f"test_{self.optimize}_low": figures.low,
            f"test_{self.optimize}_high": figures.high,
            f"test_{self.optimize}_baseline": self.candidates[self.baseline].test[self.optimize],
        }

    def metrics(self) -> dict[str, float]:
        """Every figure of every candidate, by a flat name."""
        flat = dict(self.headline())
        for name, figures in self.candidates.items():
            flat[f"{name}/validation_{self.optimize}"] = figures.validation
            flat |= {f"{name}/test_{metric}": value for metric, value in figures.test.items()}
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
            "mean_outcome": self.mean_outcome,
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
        The features with a column ``label``, which is null where the outcome is not known.
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
    """Select on time-ordered folds, fit on the train days, measure every candidate on the test days.

    Args:
        frame: Outcome of :func:`training_frame`.
        candidates: Unfitted pipelines; the first is the baseline, which is measured but never selected.
        spec: The model.
        window: The days to train, select and measure on.

    Raises:
        NotEnoughDataError: Some part of the window lacks labelled rows, or its outcomes are all the same.
    """
    plan = split(window, spec.training)
    inside = frame[_within(frame, window, spec)]
    known = inside[inside[LABEL].notna()].copy()
    known[LABEL] = known[LABEL].astype("int8" if spec.task == "classification" else "float64")
    parts = {str(part): known[_within(known, part, spec)] for part in _parts(plan)}
    for name, part in parts.items():
        if part[LABEL].nunique() < 2:
            raise NotEnoughDataError(
                f"{spec.name}: {len(part)} labelled rows of {spec.features.table} in {name}, and no two different "
                f"outcomes. Are {spec.features.table} and {spec.label.table} built and released for those days?"
            )

    optimize = metric(spec.metrics.optimize)
    validation = dict.fromkeys(candidates, 0.0)
    for fitted, validated in plan.folds:
        for name, candidate in candidates.items():
            fold, part = _fit(candidate, parts[str(fitted)], spec), parts[str(validated)]
            validation[name] += optimize.of(_outcomes(part), _score(fold, part, spec), None) / len(plan.folds)
    baseline, *contenders = candidates
    selected = min(contenders, key=lambda name: validation[name])

    train_part, test_part = parts[str(plan.train)], parts[str(plan.test)]
    pipelines = {name: _fit(candidate, train_part, spec) for name, candidate in candidates.items()}
    scores = {name: _score(pipeline, test_part, spec) for name, pipeline in pipelines.items()}
    compiled, compiled_reason = compilation.attempt(pipelines[selected], inside, spec)
    return Trained(
        selected=selected,
        baseline=baseline,
        optimize=optimize.name,
        pipeline=pipelines[selected],
        baseline_pipeline=pipelines[baseline],
        candidates={name: measure(test_part, scores[name], spec, validation[name]) for name in candidates},
        split=plan,
        rows={"train": len(train_part), "test": len(test_part), "unlabelled": len(inside) - len(known)},
        mean_outcome=float(train_part[LABEL].mean()),
        test=test_part,
        predictions_sha256=hashlib.sha256(scores[selected].tobytes()).hexdigest(),
        example=_inputs(train_part.head(3), spec),
        compiled=compiled,
        compiled_reason=compiled_reason,
    )


def measure(part: pd.DataFrame, scores: Any, spec: ModelSpec, validation: float) -> Figures:
    """Figures of one candidate.

    Args:
        part: Labelled rows.
        scores: One per row.
        spec: The model.
        validation: Mean over the folds of the metric that decides.
    """
    outcomes, names = _outcomes(part), dict.fromkeys([spec.metrics.optimize, *spec.metrics.watch])
    loss = metric(spec.metrics.optimize).loss_per_row
    assert loss is not None
    losses = pd.Series(loss(outcomes, scores), index=part.index)
    low, high = interval_of_mean(losses, part[spec.features.interval_column].to_numpy(), 0.95, spec.training.seed)
    return Figures(
        validation=validation,
        test={name: metric(name).of(outcomes, scores, spec.decision_threshold) for name in names},
        low=low,
        high=high,
        segments={
            f"{column}={value}": (len(group), float(group.mean()))
            for column in spec.promotion.segments
            for value, group in losses.groupby(part[column], sort=True)
        },
        calibration=tuple(calibration_bins(outcomes, scores)),
    )


def card(spec: ModelSpec, trained: Trained, pins: dict[str, str]) -> str:
    """The generated part of the model card: figures and pins, as Markdown.

    Args:
        spec: The model.
        trained: Its training.
        pins: What it was made from.
    """
    plan, figures = trained.split, trained.candidates[trained.selected]
    measured = list(figures.test)
    names = ["candidate", f"validation {trained.optimize}", *(f"test {name}" for name in measured)]
    lines = [
        f"# {spec.name}",
        "",
        spec.description,
        "",
        f"**Intended use.** {spec.intended_use}",
        "",
        f"Selected: **{trained.selected}**, by mean {trained.optimize} over {len(plan.folds)} time-ordered folds. "
        f"Fitted on {plan.train} ({trained.rows['train']} rows, mean outcome {trained.mean_outcome:.4g}), measured on "
        f"the untouched days {plan.test} ({trained.rows['test']} rows).",
        "",
        *_table(
            names,
            [
                [name, *(f"{value:.4f}" for value in (each.validation, *each.test.values()))]
                for name, each in trained.candidates.items()
            ],
        ),
        "",
        f"The 95 % interval of {trained.selected}'s {trained.optimize}, by days: {figures.low:.4f} to "
        f"{figures.high:.4f}.",
        "",
        *([f"Decisions are made at a score of {spec.decision_threshold}.", ""] if spec.decision_threshold else []),
        f"Calibration of {trained.selected} on the test days:",
        "",
        *_table(
            ["rows", "mean score", "mean outcome"],
            [[str(rows), f"{score:.3f}", f"{outcome:.3f}"] for rows, score, outcome in figures.calibration],
        ),
        "",
        *(
            [
                *_table(
                    ["segment", "rows", trained.optimize],
                    [[name, str(rows), f"{value:.4f}"] for name, (rows, value) in figures.segments.items()],
                ),
                "",
            ]
            if figures.segments
            else []
        ),
        *_table(["pinned", "value"], [[name, value] for name, value in pins.items()]),
        "",
    ]
    return "\n".join(lines)


def _table(names: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]


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
    return predict(fitted, _inputs(part, spec), spec.task)


def _outcomes(part: pd.DataFrame) -> Any:
    return part[LABEL].to_numpy("float64")

"""Training: days are split by time, candidates selected on folds, and all of them measured on untouched days.

Everything here is a function of its arguments; reading the tables and talking to the registry is done elsewhere.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from lakehouse.errors import LakeError
from lakehouse.interval import Interval
from lakehouse.ml import compilation, leaks
from lakehouse.ml.importances import Importance, importances
from lakehouse.ml.metrics import calibration_bins, metric
from lakehouse.ml.model_spec import InvalidModelError
from lakehouse.ml.scoring import SCORE, model_input, predict
from lakehouse.ml.search import SearchError, Trial, tune
from lakehouse.ml.uncertainty import intervals

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from lakehouse.ml.model_spec import ModelSpec, Training
    from lakehouse.ml.search import Space

LABEL = "label"

# A name of the training's most frequent ones is shown in the example if so many rows share it.
_SHARED_BY = 20
_NOT_IN_A_NAME = r"[^\w\-. /]"


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
        low: Lower end of the 95 % interval of the one that decides, by days; None of too few days for one.
        high: Upper end.
        segments: ``column=value`` to the rows there and the metric that decides.
        calibration: Per bin of the score (deciles): rows, mean score, mean outcome.
        intervals: Metric to both ends of its 95 % interval on the test days, by days.
    """

    validation: float
    test: dict[str, float]
    low: float | None
    high: float | None
    segments: dict[str, tuple[int, float]]
    calibration: tuple[tuple[int, float, float], ...]
    intervals: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Trained:
    """A finished training: the selected pipeline, fitted, and the figures of all candidates.

    Attributes:
        selected: Name of the candidate that is best on the folds, the baseline aside.
        baseline: Name of the baseline.
        optimize: The metric that decides.
        pipeline: The selected candidate, fitted on the train days. The figures are of this very fit.
        baseline_pipeline: The baseline, fitted on the same days.
        candidates: Figures by candidate, but for those that do not give every row of the test days a number.
        split: How the window was cut.
        rows: Number of rows: ``train``, ``test``, ``unlabelled``.
        mean_outcome: Mean label of the train days; of a classification, the share of positives.
        test: Labelled rows of the test days, with every column of the features table.
        predictions_sha256: Hash of the selected candidate's scores on the test days.
        scores: The selected candidate's scores on the test days, one per row of ``test``.
        example: Rows of input that nobody has: quartiles, and names that many rows share.
        importances: By input, how much the loss on the test days rises when it is shuffled; the greatest first.
        trials: What a search has tried.
        tuned: Candidate to the parameters that a search has set.
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
    scores: Any
    example: pd.DataFrame
    importances: dict[str, Importance]
    trials: tuple[Trial, ...]
    tuned: dict[str, dict[str, Any]]
    compiled: bytes
    compiled_reason: str

    def headline(self) -> dict[str, float]:
        """The figures that a version is known by."""
        figures = self.candidates[self.selected]
        ends = {"low": figures.low, "high": figures.high}
        return {
            **{f"test_{name}": value for name, value in figures.test.items()},
            **{f"test_{self.optimize}_{end}": value for end, value in ends.items() if value is not None},
            f"test_{self.optimize}_baseline": self.candidates[self.baseline].test[self.optimize],
        }

    def metrics(self) -> dict[str, float]:
        """Every figure of every candidate, by a flat name."""
        flat = dict(self.headline())
        for name, figures in self.candidates.items():
            flat[f"{name}/validation_{self.optimize}"] = figures.validation
            flat |= {f"{name}/test_{metric}": value for metric, value in figures.test.items()}
            for measured, (low, high) in figures.intervals.items():
                flat |= {f"{name}/test_{measured}_low": low, f"{name}/test_{measured}_high": high}
            for segment, (_, value) in figures.segments.items():
                flat[f"{name}/segments/{re.sub(_NOT_IN_A_NAME, '_', segment)}/test_{self.optimize}"] = value
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
            "importances": {name: vars(importance) for name, importance in self.importances.items()},
            "trials": [vars(trial) for trial in self.trials],
        }


def default_window(plan: Training, last_labelled: dt.date) -> Interval:
    """The window that ends on the last day with labels.

    Args:
        plan: The model's training section.
        last_labelled: That day.
    """
    return Interval(last_labelled - dt.timedelta(days=plan.window_days - 1), last_labelled)


def split(window: Interval, plan: Training, known_after_days: int = 1) -> Split:
    """Cut a window by time: train days, then the untouched test days; folds at the end of the train days.

    Where outcomes are known later than on the next day, as many days are left out before the test days and each fold:
    on the first day that is predicted, their outcomes were not known.

    Args:
        window: All days.
        plan: The model's training section.
        known_after_days: Days from a day to the one on which its outcomes are known.

    Raises:
        NotEnoughDataError: The window does not hold test days, folds and one more fold's days to fit.
    """
    gap = max(known_after_days, 1) - 1
    needed = plan.test_days + (plan.folds + 1) * plan.fold_days + 2 * gap
    days = (window.end - window.start).days + 1
    if days < needed:
        raise NotEnoughDataError(
            f"The training window {window} has {days} days; {plan.folds} folds of {plan.fold_days} days, as many "
            f"days to fit the first on, and {plan.test_days} test days need {needed}"
            + (f", with {gap} days before each whose outcomes are not known yet." if gap else ".")
        )
    train = Interval(window.start, window.end - dt.timedelta(days=plan.test_days + gap))
    folds = []
    for number in reversed(range(plan.folds)):
        end = train.end - dt.timedelta(days=number * plan.fold_days)
        start = end - dt.timedelta(days=plan.fold_days - 1)
        folds.append((Interval(window.start, start - dt.timedelta(days=1 + gap)), Interval(start, end)))
    return Split(train, Interval(train.end + dt.timedelta(days=1 + gap), window.end), tuple(folds))


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
def train(
    frame: pd.DataFrame,
    candidates: dict[str, Pipeline],
    spec: ModelSpec,
    window: Interval,
    spaces: Mapping[str, Space] | None = None,
    trials: Mapping[str, int] | None = None,
) -> Trained:
    """Select on time-ordered folds, fit on the train days, measure every candidate on the test days.

    Args:
        frame: Outcome of :func:`training_frame`.
        candidates: Unfitted pipelines; the first is the baseline, which is measured but never selected.
        spec: The model.
        window: The days to train, select and measure on.
        spaces: Candidate to its search space, which is used when ``model.yaml`` gives a budget to search.
        trials: Candidate to the number of trials, to repeat a search that was ended by its time; of others there are
            none then.

    Raises:
        lakehouse.ml.model_spec.InvalidModelError: ``model.yaml`` names a column that the features do not have, or no
            candidate but the baseline gives every row a number.
        NotEnoughDataError: Some part of the window lacks labelled rows, or its outcomes are all the same.
        lakehouse.ml.leaks.LeakError: An input tells the outcome by itself.
        lakehouse.ml.search.SearchError: There is nothing to search, or what is searched is no parameter.
    """
    _check_columns(frame, spec)
    plan = split(window, spec.training, spec.label.known_after_days)
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
    train_part, test_part = parts[str(plan.train)], parts[str(plan.test)]
    leaks.check(train_part, LABEL, spec)

    optimize = metric(spec.metrics.optimize)

    def validate(candidate: Pipeline) -> float:
        total = 0.0
        for fitted, validated in plan.folds:
            fold, part = _fit(candidate, parts[str(fitted)], spec), parts[str(validated)]
            total += optimize.of(_outcomes(part), _score(fold, part, spec), None) / len(plan.folds)
        return math.inf if math.isnan(total) else total  # scores that are no numbers are the worst of all

    tried, tuned = _search(candidates, spec, validate, spaces or {}, trials)
    candidates = {name: clone(each).set_params(**tuned.get(name, {})) for name, each in candidates.items()}
    validation = {name: validate(candidate) for name, candidate in candidates.items()}
    pipelines = {name: _fit(candidate, train_part, spec) for name, candidate in candidates.items()}
    scores = {name: _score(pipeline, test_part, spec) for name, pipeline in pipelines.items()}
    # One that cannot say how likely or how much would fail on the days to come, too.
    measured = [name for name in candidates if np.isfinite(scores[name]).all()]
    baseline, *_ = candidates
    contenders = [name for name in measured if name != baseline and validation[name] < math.inf]
    if not contenders:
        raise InvalidModelError(
            f"models/{spec.name}/pipeline.py: no candidate but the baseline gives every row of the folds and of the "
            "test days a number."
        )
    selected = min(contenders, key=lambda name: validation[name])
    compiled, compiled_reason = compilation.attempt(pipelines[selected], inside, spec)
    return Trained(
        selected=selected,
        baseline=baseline,
        optimize=optimize.name,
        pipeline=pipelines[selected],
        baseline_pipeline=pipelines[baseline],
        candidates={name: measure(test_part, scores[name], spec, validation[name]) for name in measured},
        split=plan,
        rows={"train": len(train_part), "test": len(test_part), "unlabelled": len(inside) - len(known)},
        mean_outcome=float(train_part[LABEL].mean()),
        test=test_part,
        predictions_sha256=hashlib.sha256(scores[selected].tobytes()).hexdigest(),
        scores=scores[selected],
        example=_example(_inputs(train_part, spec), spec),
        importances=importances(
            pipelines[selected],
            compilation.scorer(pipelines[selected], compiled, spec),
            _inputs(test_part, spec).reset_index(drop=True),
            _outcomes(test_part),
            spec,
        ),
        trials=tuple(tried),
        tuned=tuned,
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
    days = part[spec.features.interval_column].to_numpy()
    found = intervals(list(names), outcomes, scores, days, spec.decision_threshold, spec.training.seed)
    low, high = found.get(spec.metrics.optimize, (None, None))
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
        intervals=found,
    )


@threadpool_limits.wrap(limits=1)
def scored(frame: pd.DataFrame, trained: Trained, spec: ModelSpec) -> pd.DataFrame:
    """Rows with the scores that a training gives them.

    Args:
        frame: Outcome of :func:`training_frame`.
        trained: The training.
        spec: The model.
    """
    return frame.assign(**{SCORE: _score(trained.pipeline, frame, spec)})


def _check_columns(frame: pd.DataFrame, spec: ModelSpec) -> None:
    """Refuse columns that are not there before anything is fitted."""
    named = {
        "features.numeric": spec.features.numeric,
        "features.categorical": spec.features.categorical,
        "promotion.segments": spec.promotion.segments,
    }
    for key, columns in named.items():
        if missing := [column for column in columns if column not in frame]:
            raise InvalidModelError(
                f"models/{spec.name}/model.yaml: {key}: {spec.features.table} has no column {', '.join(missing)}"
            )


def _search(
    candidates: dict[str, Pipeline],
    spec: ModelSpec,
    validate: Callable[[Pipeline], float],
    spaces: Mapping[str, Space],
    trials: Mapping[str, int] | None,
) -> tuple[list[Trial], dict[str, dict[str, Any]]]:
    """What was tried of each candidate that has a space, and what is better than the candidate as it is."""
    budget = spec.training.search
    if budget is None:
        return [], {}
    if not spaces or (strange := sorted(set(spaces) - set(candidates))):
        raise SearchError(
            f"{spec.name}: model.yaml gives a budget to training.search, and search_spaces of pipeline.py "
            + (f"names {', '.join(strange)}, which is no candidate." if spaces else "gives no space to spend it on.")
        )
    tried: list[Trial] = []
    tuned = {}
    for name, space in spaces.items():
        again = None if trials is None else trials.get(name, 0)
        found, best = tune(
            name, candidates[name], space, validate, budget.share(len(spaces)), spec.training.seed, again
        )
        tried += found
        if best is not None:
            tuned[name] = best
    return tried, tuned


def _example(inputs: pd.DataFrame, spec: ModelSpec) -> pd.DataFrame:
    """Three rows of input that are no rows of the data, so that what is kept with the model is about nobody."""
    quartiles = inputs[list(spec.features.numeric)].quantile([0.25, 0.5, 0.75]).reset_index(drop=True)
    for name in spec.features.categorical:
        counts = inputs[name].value_counts()
        shared = counts.index[counts >= _SHARED_BY].tolist()[: len(quartiles)]
        quartiles[name] = pd.Series([*shared, *[shared[0] if shared else np.nan] * 3][: len(quartiles)], dtype=object)
    return quartiles[spec.features.inputs]


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

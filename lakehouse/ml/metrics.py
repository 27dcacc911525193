"""Metrics: how good scores are, by a name that ``model.yaml`` can use, each with its direction.

Those with a loss per row can be compared row by row, and so with an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_score, recall_score, roc_auc_score

from lakehouse.errors import LakeError

CALIBRATION_BINS = 10
RESAMPLES = 2000
FEWEST_DAYS = 3
"""Of fewer days there is no interval: one day drawn again and again is always the same."""
_SMALLEST = np.finfo("float64").eps


class UnknownMetricError(LakeError, ValueError):
    """There is no metric of a name."""


@dataclass(frozen=True)
class Metric:
    """How good scores are.

    Attributes:
        name: As ``model.yaml`` calls it.
        higher_is_better: Its direction.
        of: The metric of outcomes and scores, both arrays of floats of one length, and of the decision threshold.
        loss_per_row: What each row adds to it, where it is a mean over the rows; lower is better.
    """

    name: str
    higher_is_better: bool
    of: Callable[[Any, Any, float | None], float]
    loss_per_row: Callable[[Any, Any], Any] | None = None

    def worse_by(self, ours: float, theirs: float) -> float:
        """How much worse one value is than another; negative when it is better.

        Args:
            ours: The value in question.
            theirs: What it is compared with.
        """
        return theirs - ours if self.higher_is_better else ours - theirs


def metric(name: str) -> Metric:
    """A metric by its name.

    Args:
        name: One of ``METRICS``.

    Raises:
        UnknownMetricError: There is none.
    """
    if name not in METRICS:
        raise UnknownMetricError(f"There is no metric {name!r}. There are: {', '.join(METRICS)}.")
    return METRICS[name]


def calibration_bins(outcomes: Any, scores: Any, bins: int = CALIBRATION_BINS) -> list[tuple[int, float, float]]:
    """Rows, mean score and mean outcome per quantile of the score; equal scores share a bin.

    Args:
        outcomes: Per row.
        scores: Per row.
        bins: How many at most.
    """
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)[1:-1]))
    place = np.searchsorted(edges, scores, side="right")
    return [
        (int(inside.sum()), float(scores[inside].mean()), float(outcomes[inside].mean()))
        for inside in (place == number for number in range(len(edges) + 1))
        if inside.any()
    ]


def _calibration_error(outcomes: Any, scores: Any, _: float | None) -> float:
    found = calibration_bins(outcomes, scores)
    return sum(rows * abs(score - outcome) for rows, score, outcome in found) / len(scores)


def interval_of_mean(values: Any, days: Any, confidence: float, seed: int) -> tuple[float, float] | None:
    """The interval of a mean over rows, by drawing whole days.

    Rows of one day share its weather and its delays: drawn one by one, they would make the interval too narrow
    (Cameron, Gelbach and Miller, 2008, "Bootstrap-based improvements for inference with clustered errors").

    Args:
        values: One per row.
        days: The day of each row.
        confidence: Of the interval, such as 0.95.
        seed: Of the draws.

    Returns:
        Its lower and upper end; None of fewer than ``FEWEST_DAYS`` days.
    """
    by_day = pd.DataFrame({"day": days, "value": values}).groupby("day")["value"]
    sums, counts = by_day.sum().to_numpy(), by_day.count().to_numpy()
    if len(sums) < FEWEST_DAYS:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _log_losses(outcomes: Any, scores: Any) -> Any:
    inside = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return -np.where(outcomes > 0, np.log(inside), np.log1p(-inside))


def _mean_of(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any, float | None], float]:
    return lambda outcomes, scores, _: float(np.mean(loss(outcomes, scores)))


def _precision(outcomes: Any, scores: Any, threshold: float | None) -> float:
    return float(precision_score(outcomes, scores >= threshold, zero_division=0))


def _recall(outcomes: Any, scores: Any, threshold: float | None) -> float:
    return float(recall_score(outcomes, scores >= threshold, zero_division=0))


def _squares(outcomes: Any, scores: Any) -> Any:
    return (scores - outcomes) ** 2


def _distances(outcomes: Any, scores: Any) -> Any:
    return np.abs(scores - outcomes)


METRICS = {
    each.name: each
    for each in (
        Metric("log_loss", False, _mean_of(_log_losses), _log_losses),
        Metric("brier", False, _mean_of(_squares), _squares),
        Metric("auc", True, lambda outcomes, scores, _: float(roc_auc_score(outcomes, scores))),
        Metric("calibration_error", False, _calibration_error),
        Metric("precision", True, _precision),
        Metric("recall", True, _recall),
        Metric("mean_absolute_error", False, _mean_of(_distances), _distances),
        Metric("mean_squared_error", False, _mean_of(_squares), _squares),
        Metric("bias", False, lambda outcomes, scores, _: abs(float(np.mean(scores - outcomes)))),
    )
}
"""Metrics of classifiers (scores are probabilities of 1) and of regressors, by name."""

"""Metrics: how good scores are, by a name that ``model.yaml`` can use, each with its direction.

Those with a loss per row can be compared row by row, and so with an interval.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from lakehouse.errors import LakeError

CALIBRATION_BINS = 10
_SMALLEST = np.finfo("float64").eps


class UnknownMetricError(LakeError, ValueError):
    """There is no metric of a name."""


@dataclass(frozen=True)
class Metric:
    """How good scores are.

    Attributes:
        name: As ``model.yaml`` calls it.
        higher_is_better: Its direction.
        of: The metric of outcomes and scores, both arrays of floats of one length.
        loss_per_row: What each row adds to it, where it is a mean over the rows; lower is better.
    """

    name: str
    higher_is_better: bool
    of: Callable[[Any, Any], float]
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


def _calibration_error(outcomes: Any, scores: Any) -> float:
    found = calibration_bins(outcomes, scores)
    return sum(rows * abs(score - outcome) for rows, score, outcome in found) / len(scores)


def _log_losses(outcomes: Any, scores: Any) -> Any:
    inside = np.clip(scores, _SMALLEST, 1 - _SMALLEST)
    return -np.where(outcomes > 0, np.log(inside), np.log1p(-inside))


def _mean_of(loss: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float]:
    return lambda outcomes, scores: float(np.mean(loss(outcomes, scores)))


def _squares(outcomes: Any, scores: Any) -> Any:
    return (scores - outcomes) ** 2


def _distances(outcomes: Any, scores: Any) -> Any:
    return np.abs(scores - outcomes)


METRICS = {
    each.name: each
    for each in (
        Metric("log_loss", False, _mean_of(_log_losses), _log_losses),
        Metric("brier", False, _mean_of(_squares), _squares),
        Metric("auc", True, lambda outcomes, scores: float(roc_auc_score(outcomes, scores))),
        Metric("calibration_error", False, _calibration_error),
        Metric("mean_absolute_error", False, _mean_of(_distances), _distances),
        Metric("mean_squared_error", False, _mean_of(_squares), _squares),
        Metric("bias", False, lambda outcomes, scores: abs(float(np.mean(scores - outcomes)))),
    )
}
"""Metrics of classifiers (scores are probabilities of 1) and of regressors, by name."""

"""Uncertainty: intervals of metrics, by drawing whole days.

Every metric is made from sums over days, so that thousands of draws cost a few matrix products, and no metric is
computed row by row again. As in :func:`lakehouse.ml.metrics.interval_of_mean`, whose intervals are these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from lakehouse.ml.metrics import CALIBRATION_BINS, FEWEST_DAYS, RESAMPLES, metric

Draws = Any
"""How often each day is drawn: an array of draws by days."""


def intervals(
    names: list[str],
    outcomes: Any,
    scores: Any,
    days: Any,
    threshold: float | None,
    seed: int,
    confidence: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """The intervals of some metrics.

    Args:
        names: Of the metrics.
        outcomes: Per row, as floats.
        scores: Per row.
        days: The day of each row.
        threshold: From this score on the decision is true.
        seed: Of the draws.
        confidence: Of the intervals.

    Returns:
        By metric its lower and upper end; none of fewer than ``FEWEST_DAYS`` days. A metric that a draw does not have
        (of days with one outcome, say) is left out of that draw.
    """
    codes, known = pd.factorize(pd.Series(days), sort=True)
    size = len(known)
    if size < FEWEST_DAYS:
        return {}
    picked = np.random.default_rng(seed).integers(0, size, (RESAMPLES, size))
    draws = np.stack([(picked == day).sum(axis=1) for day in range(size)], axis=1).astype("float64")
    tail = (1 - confidence) / 2
    found = {}
    for name in names:
        values = _of_draws(name, outcomes, scores, codes, size, threshold, draws)
        low, high = np.nanquantile(values, [tail, 1 - tail])
        found[name] = float(low), float(high)
    return found


def _of_draws(
    name: str, outcomes: Any, scores: Any, codes: Any, size: int, threshold: float | None, draws: Draws
) -> Any:
    """The metric of each draw."""

    def total(values: Any) -> Any:
        return draws @ np.bincount(codes, weights=values, minlength=size)

    every = np.ones(len(scores))
    if (loss := metric(name).loss_per_row) is not None:
        return total(loss(outcomes, scores)) / total(every)
    return _OTHERS[name](total, draws, outcomes, scores, codes, size, threshold)


def _bias(total: Any, draws: Draws, outcomes: Any, scores: Any, codes: Any, size: int, _: float | None) -> Any:
    return np.abs(total(scores - outcomes) / total(np.ones(len(scores))))


def _precision(
    total: Any, draws: Draws, outcomes: Any, scores: Any, codes: Any, size: int, threshold: float | None
) -> Any:
    decided = scores >= threshold
    return _share(total(decided & (outcomes > 0)), total(decided))


def _recall(
    total: Any, draws: Draws, outcomes: Any, scores: Any, codes: Any, size: int, threshold: float | None
) -> Any:
    return _share(total((scores >= threshold) & (outcomes > 0)), total(outcomes > 0))


def _share(part: Any, whole: Any) -> Any:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _auc(total: Any, draws: Draws, outcomes: Any, scores: Any, codes: Any, size: int, _: float | None) -> Any:
    """Pairs of a positive and a negative row that are in order, counted once for each pair of days."""
    late = [np.sort(scores[(codes == day) & (outcomes > 0)]) for day in range(size)]
    other = [np.sort(scores[(codes == day) & (outcomes <= 0)]) for day in range(size)]
    wins = np.array([[
        (np.searchsorted(theirs, ours, "left").sum() + np.searchsorted(theirs, ours, "right").sum()) / 2
        for theirs in other] for ours in late])  # fmt: skip
    pairs = total(outcomes > 0) * total(outcomes <= 0)
    ordered = np.einsum("ri,ij,rj->r", draws, wins, draws)
    return np.divide(ordered, pairs, out=np.full_like(ordered, np.nan), where=pairs > 0)


def _calibration_error(
    total: Any, draws: Draws, outcomes: Any, scores: Any, codes: Any, size: int, _: float | None
) -> Any:
    """The bins are those of all rows, and not drawn."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, scores, side="right")
    off = [np.abs(total((scores - outcomes) * (place == number))) for number in range(len(edges) + 1)]
    return np.sum(off, axis=0) / total(np.ones(len(scores)))


_OTHERS: dict[str, Callable[..., Any]] = {
    "auc": _auc,
    "bias": _bias,
    "calibration_error": _calibration_error,
    "precision": _precision,
    "recall": _recall,
}

"""Intervals from sums over days are those of the metric computed again on the rows of each draw."""

from __future__ import annotations

import numpy as np
import pytest

from lakehouse.ml import uncertainty
from lakehouse.ml.metrics import RESAMPLES, interval_of_mean, metric

RANDOM = np.random.default_rng(7)
DAYS = np.repeat(np.arange(5), [40, 10, 25, 60, 30])
SCORES = RANDOM.random(len(DAYS)).round(2)
OUTCOMES = (RANDOM.random(len(DAYS)) < SCORES * 0.7).astype("float64")
NAMES = ["log_loss", "brier", "auc", "precision", "recall", "bias", "mean_absolute_error", "mean_squared_error"]


@pytest.mark.parametrize("name", NAMES)
def test_the_interval_is_that_of_the_rows_of_each_draw(name: str) -> None:
    picked = np.random.default_rng(3).integers(0, 5, (RESAMPLES, 5))
    values = []
    for draw in picked[:150]:
        rows = np.concatenate([np.flatnonzero(day == DAYS) for day in draw])
        values.append(metric(name).of(OUTCOMES[rows], SCORES[rows], 0.5))
    draws = np.stack([(picked[:150] == day).sum(axis=1) for day in range(5)], axis=1).astype("float64")
    found = uncertainty._of_draws(name, OUTCOMES, SCORES, DAYS, 5, 0.5, draws)
    assert np.allclose(found, values, rtol=1e-12, atol=1e-12)


def test_a_mean_has_the_interval_that_promotion_draws() -> None:
    losses = metric("log_loss").loss_per_row
    assert losses is not None
    expected = interval_of_mean(losses(OUTCOMES, SCORES), DAYS, 0.95, 3)
    found = uncertainty.intervals(["log_loss"], OUTCOMES, SCORES, DAYS, 0.5, 3)["log_loss"]
    assert found == pytest.approx(expected, rel=1e-12)


def test_every_metric_has_an_interval_around_it() -> None:
    names = [*NAMES, "calibration_error"]
    for name, (low, high) in uncertainty.intervals(names, OUTCOMES, SCORES, DAYS, 0.5, 3).items():
        assert low < metric(name).of(OUTCOMES, SCORES, 0.5) < high, name


@pytest.mark.parametrize("days", [1, 2])
def test_a_day_alone_has_no_interval_and_two_have_none(days: int) -> None:
    few = DAYS % days
    assert uncertainty.intervals(NAMES, OUTCOMES, SCORES, few, 0.5, 3) == {}
    assert interval_of_mean(SCORES, few, 0.95, 3) is None
    assert uncertainty.intervals(NAMES, OUTCOMES, SCORES, DAYS % 3, 0.5, 3).keys() == set(NAMES)


def test_days_of_one_outcome() -> None:
    """A draw that has no day of the other outcome has no area under the curve, and is left out."""
    split = np.where(OUTCOMES > 0, 2, np.arange(len(OUTCOMES)) % 2)
    low, high = uncertainty.intervals(["auc"], OUTCOMES, SCORES, split, 0.5, 3)["auc"]
    assert low <= metric("auc").of(OUTCOMES, SCORES, None) <= high

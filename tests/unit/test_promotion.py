"""A challenger wins when it is better beyond doubt, by enough, and harms nobody."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, mean_squared_error, roc_auc_score

from lakehouse.ml import metrics
from lakehouse.ml.model_spec import Metrics, ModelSpec, Promotion
from lakehouse.quality.expectation import Expectation
from lakehouse.quality.gate import RuleResult
from lakehouse.registry.promotion import ComparisonError, decide, difference, gated
from tests.made_up_flights import SPEC

DAYS = 30


def spec(optimize: str = "log_loss", **policy: Any) -> ModelSpec:
    """flight_delay with another policy."""
    return SPEC.model_copy(update={"promotion": Promotion(**policy), "metrics": Metrics(optimize=optimize)})


def rows(better: float, per_day: int = 60, seed: int = 1, harmed: str | None = None) -> pd.DataFrame:
    """Flights whose risk the challenger knows better than the champion; harmed: an airport where it knows nothing."""
    random = np.random.default_rng(seed)
    size = DAYS * per_day
    signal = random.normal(size=size) + np.repeat(random.normal(0, 0.3, DAYS), per_day)
    risk = 1 / (1 + np.exp(1.5 - signal))
    origin = random.choice(["EWR", "JFK", "LGA"], size)
    known = np.where(origin == harmed, -1.5, better) if harmed else better
    return pd.DataFrame(
        {
            "day": np.repeat([dt.date(2013, 3, 1) + dt.timedelta(day) for day in range(DAYS)], per_day),
            "origin": origin,
            "outcome": (random.random(size) < risk).astype(int),
            "champion": 1 / (1 + np.exp(1.5 - 0.5 * signal)),
            "challenger": 1 / (1 + np.exp(1.5 - (0.5 + known) * signal)),
        }
    )


def test_a_better_challenger_wins_and_says_by_how_much() -> None:
    found = decide(rows(0.5), spec(guards={"auc": 0.01, "calibration_error": 0.02}, segments=["origin"]))
    assert found.promote
    assert found.difference.high < 0 and found.difference.low < found.difference.value < found.difference.high
    assert set(found.segments) == {"origin=EWR", "origin=JFK", "origin=LGA"} and set(found.guards) == {
        "auc", "calibration_error",
    }  # fmt: skip
    assert "log_loss is lower" in found.reasons[0]


@pytest.mark.parametrize(
    ("better", "policy", "reason"),
    [
        (0.0, spec(), "not lower beyond doubt"),
        (-0.4, spec(), "not lower beyond doubt"),
        (0.5, spec(min_effect=0.2), "lower by less than 0.2"),
        (0.5, spec(guards={"calibration_error": -1.0}), "calibration_error is worse by more than -1.0"),
    ],
)
def test_a_challenger_that_is_not_better_enough_does_not_win(better: float, policy: ModelSpec, reason: str) -> None:
    found = decide(rows(better), policy)
    assert not found.promote and reason in " ".join(found.reasons)


def test_a_better_loss_does_not_make_up_for_a_guard() -> None:
    """The champion ranks better, but says it far too loudly."""
    given = rows(0.5)
    signal = np.log(given["challenger"] / (1 - given["challenger"]))
    noise = np.random.default_rng(7).normal(0, 0.5, len(given))
    given = given.assign(champion=1 / (1 + np.exp(-4 * signal)), challenger=1 / (1 + np.exp(-signal - noise)))
    assert decide(given, spec()).promote
    found = decide(given, spec(guards={"auc": 0.01, "calibration_error": 0.0}))
    assert not found.promote and len(found.reasons) == 1 and "auc is worse by more than 0.01" in found.reasons[0]
    theirs, ours = found.guards["auc"]
    assert theirs == pytest.approx(roc_auc_score(given["outcome"], given["champion"]))
    assert ours == pytest.approx(roc_auc_score(given["outcome"], given["challenger"]))


def test_a_challenger_that_harms_a_segment_does_not_win() -> None:
    given = rows(0.5, harmed="LGA")
    assert decide(given, spec()).promote is (difference(given, spec()).high < 0)
    found = decide(given, spec(segments=["origin"]))
    assert not found.promote and "higher where origin is LGA" in " ".join(found.reasons)
    assert decide(given, spec(segments=["origin"], segment_rows=10_000)).segments == {}


def test_the_interval_is_that_of_days_and_not_of_rows() -> None:
    """Rows of a day that are copies of one another are no more evidence than one row of it."""
    few = rows(0.5, per_day=20)
    many = pd.concat([few] * 25, ignore_index=True)
    one, other = (difference(each, spec()) for each in (few, many))
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_of_equal_models_as_many_intervals_miss_zero_as_they_say() -> None:
    """The share of intervals of 90 % that miss the true difference, of models that are equally good by construction."""
    missed = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        noise = random.normal(0, 0.02, (2, DAYS * 20)) + np.repeat(random.normal(0, 0.02, (2, DAYS)), 20, axis=1)
        given = pd.DataFrame(
            {
                "day": np.repeat(np.arange(DAYS), 20), "outcome": 0.0,
                "champion": 1 + noise[0], "challenger": 1 + noise[1],
            }
        )  # fmt: skip
        found = difference(given, spec("mean_absolute_error", confidence=0.9))
        missed += not found.low <= 0 <= found.high
    assert 0.05 <= missed / 200 <= 0.17


def test_a_challenger_whose_scores_would_not_pass_the_gate_does_not_win() -> None:
    found = decide(rows(0.5), spec())
    kept, broken = (
        RuleResult(Expectation("expect_column_values_to_be_between", {"column": "score", "max_value": high}), *result)
        for high, result in ((1, (True, 1800, 0)), (0.9, (False, 1800, 3)))
    )
    assert gated(found, [kept]).promote and gated(found, [kept]).gate == {kept.expectation.label: True}
    out = gated(found, [kept, broken])
    assert (gated(found, [kept]).gate_open, out.gate_open) == (True, False)
    assert not out.promote and "gate of its predictions would be shut" in out.reasons[0]
    assert "3 of 1800 rows break it" in out.reasons[0] and list(out.gate.values()) == [True, False]
    odd = replace(broken, expectation=replace(broken.expectation, severity="warning"))
    assert (
        gated(found, [odd]).gate_open
        and gated(found, [odd]).promote
        and list(gated(found, [odd]).gate.values()) == [False]
    )


@pytest.mark.parametrize("column", ["outcome", "champion", "challenger"])
def test_rows_that_only_one_was_measured_on_are_refused(column: str) -> None:
    given = rows(0.5)
    given.loc[3, column] = np.nan
    with pytest.raises(ComparisonError, match=f"1 of 1800 rows have no {column}"):
        decide(given, spec())


def test_what_cannot_be_compared_is_refused() -> None:
    for given, policy, message in (
        (rows(0.5).head(0), spec(), "no rows"),
        (rows(0.5).drop(columns="origin"), spec(segments=["origin"]), "no origin"),
    ):
        with pytest.raises(ComparisonError, match=message):
            decide(given, policy)
    with pytest.raises(metrics.UnknownMetricError, match="log_loss"):
        metrics.metric("accuracy")


def test_metrics_are_those_of_scikit_learn() -> None:
    given = rows(0.5)
    outcomes, scores = given["outcome"].to_numpy(), given["challenger"].to_numpy()
    for name, theirs in {
        "log_loss": log_loss, "brier": brier_score_loss, "auc": roc_auc_score,
        "mean_absolute_error": mean_absolute_error, "mean_squared_error": mean_squared_error,
    }.items():  # fmt: skip
        assert metrics.metric(name).of(outcomes, scores, None) == pytest.approx(theirs(outcomes, scores), abs=1e-12), (
            name
        )
    assert metrics.metric("log_loss").of(np.array([1.0, 0.0]), np.array([0.0, 0.0]), None) == pytest.approx(
        log_loss([1, 0], [0.0, 0.0], labels=[0, 1])
    )


@pytest.mark.parametrize("days", [1, 2])
def test_of_a_day_or_two_there_is_no_interval_and_nobody_wins(days: int) -> None:
    given = rows(0.5)
    few = given[given["day"] < dt.date(2013, 3, 1) + dt.timedelta(days)]
    found = decide(few, spec(segments=["origin"], segment_rows=1))
    assert (found.difference.low, found.difference.high) == (None, None) and found.difference.value < 0
    assert not found.promote and "no interval of fewer than 3 days" in found.reasons[0] and len(found.reasons) == 1
    three = given[given["day"] <= dt.date(2013, 3, 3)]
    assert decide(three, spec()).difference.low is not None


def test_a_guard_that_cannot_be_told_is_not_kept() -> None:
    """Of outcomes that are all the same there is no area under the curve, and nothing is worse than that."""
    given = rows(0.5).assign(outcome=0)
    given = given.assign(challenger=given["champion"] / 2)
    assert decide(given, spec()).promote
    with pytest.warns(UserWarning, match="Only one class"):
        found = decide(given, spec(guards={"auc": 0.01, "brier": 0.01}))
    assert not found.promote and found.reasons == ("auc cannot be told on these rows, and so not whether it is worse",)
    assert list(found.guards) == ["brier"]

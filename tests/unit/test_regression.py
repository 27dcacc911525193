"""A regression goes the same way as a classification: selected, stored, scored and explained."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from skops import io

from lakehouse.ml import model_folders, training
from lakehouse.ml.attribution import attribute
from lakehouse.ml.scoring import TRUSTED, ServedModel, model_input, score
from lakehouse.registry.model_card import card
from tests.made_up_flights import WINDOW, flights

SPEC = model_folders.load("flight_delay_minutes")


def minutes() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Made-up flights whose delay grows with the carrier's late rate, as hours do with a long tail."""
    features, labels = flights()
    random = np.random.default_rng(5)
    expected = 12 * features["carrier_late_rate_28d"].fillna(0) + 20 * (features["carrier"] == "EV")
    delay = pd.Series(expected + random.gumbel(0, 12, len(features)), dtype="Float64")
    labels = labels[["flight_id", "flight_date"]].assign(arrival_delay_minutes=delay)
    labels.loc[random.random(len(labels)) < 0.03, "arrival_delay_minutes"] = pd.NA
    return features, labels


@pytest.fixture(scope="module")
def trained() -> training.Trained:
    frame = training.training_frame(*minutes(), SPEC)
    return training.train(frame, model_folders.candidates(SPEC), SPEC, WINDOW)


@pytest.fixture(scope="module")
def served(trained: training.Trained) -> dict[str, ServedModel]:
    """Every candidate, fitted on all labelled rows."""
    frame = training.training_frame(*minutes(), SPEC).dropna(subset="label")
    inputs = model_input(frame, SPEC.features.numeric, SPEC.features.categorical)
    shape = tuple(SPEC.features.numeric), tuple(SPEC.features.categorical)
    return {
        name: ServedModel(
            name, 1, *shape, None, io.dumps(candidate.fit(inputs, frame["label"].astype("float64"))), SPEC.task
        )
        for name, candidate in model_folders.candidates(SPEC).items()
    }


def test_the_selected_candidate_beats_the_mean(trained: training.Trained) -> None:
    ours, mean = (trained.candidates[name].test for name in (trained.selected, "mean"))
    assert list(ours) == ["mean_squared_error", "mean_absolute_error", "bias"]
    assert ours["mean_squared_error"] < 0.8 * mean["mean_squared_error"]
    assert trained.candidates[trained.selected].low < ours["mean_squared_error"] < trained.candidates["mean"].low
    assert set(trained.candidates[trained.selected].segments) == {"origin=EWR", "origin=JFK", "origin=LGA"}
    assert "mean_squared_error" in card(SPEC, trained, {}) and "Decisions" not in card(SPEC, trained, {})


def test_a_row_has_the_same_score_in_any_batch(served: dict[str, ServedModel]) -> None:
    features, _ = minutes()
    for model in served.values():
        assert set(io.get_untrusted_types(data=model.payload)) <= set(TRUSTED)
        whole = score(features, model)
        assert whole.dtype == np.float64 and np.isfinite(whole).all()
        for size in (1, 7, 100):
            assert (score(features.head(size), model) == whole[:size]).all(), model


@pytest.mark.parametrize("name", ["ridge", "histogram_gradient_boosting"])
def test_contributions_add_up_to_the_minutes(served: dict[str, ServedModel], name: str) -> None:
    features, _ = minutes()
    found = attribute(served[name], features.head(200), lambda: features)
    total = found.base + found.contributions.sum(axis=1).to_numpy()
    assert np.allclose(total, score(features.head(200), served[name]), rtol=0, atol=1e-9)
    assert found.unit == "units of the label"
    assert set(found.contributions.abs().mean().nlargest(2).index) == {"carrier_late_rate_28d", "carrier"}


def test_a_baseline_is_a_constant_to_which_nothing_contributes(served: dict[str, ServedModel]) -> None:
    features, _ = minutes()
    found = attribute(served["mean"], features.head(20), lambda: features)
    assert found.base == score(features.head(1), served["mean"])[0]
    assert (found.contributions == 0).all(axis=None) and found.method == "constant"

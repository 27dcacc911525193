"""The contributions of a model's inputs add up to its score, and go to the inputs that they belong to."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from skops import io

from lakehouse.ml import attribution, model_folders
from lakehouse.ml.attribution import AttributionError, attribute
from lakehouse.ml.scoring import ServedModel, model_input, pipeline, score
from tests.made_up_flights import SPEC, flights


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    features, labels = flights()
    return features.assign(label=labels["is_late"]).dropna(subset=["label"]).reset_index(drop=True)


@pytest.fixture(scope="module")
def served(frame: pd.DataFrame) -> dict[str, ServedModel]:
    inputs = list(SPEC.features.numeric), list(SPEC.features.categorical)
    found = {}
    for number, (name, candidate) in enumerate(model_folders.candidates(SPEC).items()):
        fitted = candidate.fit(model_input(frame, *inputs), frame["label"].astype(int))
        found[name] = ServedModel(SPEC.name, 1000 + number, *map(tuple, inputs), 0.3, io.dumps(fitted))
    return found


@pytest.mark.parametrize("name", [name for name in model_folders.candidates(SPEC) if name != "base_rate"])
def test_contributions_add_up_to_the_score(frame: pd.DataFrame, served: dict[str, ServedModel], name: str) -> None:
    rows = frame.head(200)
    found = attribute(served[name], rows, lambda: frame)
    log_odds = found.base + found.contributions.sum(axis=1).to_numpy()
    assert np.allclose(1 / (1 + np.exp(-log_odds)), score(rows, served[name]), rtol=0, atol=1e-12)
    assert list(found.contributions.columns) == SPEC.features.inputs
    strongest = found.contributions.abs().mean().nlargest(2).index
    assert set(strongest) == {"carrier_late_rate_28d", "carrier"}  # the rule of the made-up delays


def test_a_linear_contribution_is_the_change_of_an_average_row(
    frame: pd.DataFrame, served: dict[str, ServedModel]
) -> None:
    """Independent of the code: replace one input by each training row's, and average the log-odds."""
    name, column = "logistic_regression_with_weather", "carrier"
    row = frame.iloc[[7]]
    found = attribute(served[name], row, lambda: frame)
    swapped = pd.concat([row] * len(frame), ignore_index=True).assign(**{column: frame[column].to_numpy()})
    fitted = pipeline(served[name])

    def log_odds(rows: pd.DataFrame) -> np.ndarray:
        return fitted.decision_function(model_input(rows, list(SPEC.features.numeric), list(SPEC.features.categorical)))

    expected = log_odds(row)[0] - log_odds(swapped).mean()
    assert found.contributions[column].iloc[0] == pytest.approx(expected, abs=1e-9)


def test_an_input_that_the_model_does_not_see_contributes_nothing(
    frame: pd.DataFrame, served: dict[str, ServedModel]
) -> None:
    found = attribute(served["logistic_regression"], frame.head(5), lambda: frame)
    weather = [column for column in SPEC.features.numeric if column.startswith("weather_")]
    assert (found.contributions[weather] == 0).all(axis=None)


def test_a_baseline_gives_every_row_its_base(frame: pd.DataFrame, served: dict[str, ServedModel]) -> None:
    found = attribute(served["base_rate"], frame.head(9), lambda: frame)
    assert np.allclose(1 / (1 + np.exp(-found.base)), score(frame.head(9), served["base_rate"]), rtol=0, atol=1e-12)
    assert (found.contributions == 0).all(axis=None)


def test_a_model_of_another_kind_is_refused(frame: pd.DataFrame, served: dict[str, ServedModel]) -> None:
    rows = model_input(frame, list(SPEC.features.numeric), []).fillna(0)
    bayes = make_pipeline(SimpleImputer(), GaussianNB()).fit(rows, frame["label"].astype(int))
    other = dataclasses.replace(served["base_rate"], version=1009, categorical=(), payload=io.dumps(bayes))
    with pytest.raises(AttributionError, match="version 1009 is a GaussianNB"):
        attribute(other, frame.head(1), lambda: frame)


def test_contributions_that_miss_the_score_are_refused(
    frame: pd.DataFrame, served: dict[str, ServedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = attribution._encoded
    monkeypatch.setattr(attribution, "_encoded", lambda *given: encoded(*given) * 1.001)
    with pytest.raises(AttributionError, match="miss the score by"):
        attribute(served["logistic_regression"], frame.head(5), lambda: frame)
